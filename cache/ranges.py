"""Which part of a blob a reader gets."""

from __future__ import annotations


def check_bounds(start: int, stop: int | None) -> None:
    """Returns when these may be the bounds of a range. Raises ValueError for negative ones."""
    if start < 0 or (stop is not None and stop < 0):
        raise ValueError(f"a range has no negative bounds, got {start} to {stop}")


def clip(start: int, stop: int | None, size_bytes: int) -> range:
    """The positions from ``start`` to ``stop`` (exclusive; None = to the end) that a blob of this size has."""
    check_bounds(start, stop)
    return range(start, size_bytes if stop is None else min(stop, size_bytes))
