"""Numbers as people read them."""

from __future__ import annotations

_TIMES = (("d", 86400), ("h", 3600), ("min", 60))


def told_bytes(size_bytes: int) -> str:
    """A size in the decimal unit that fits: ``512 B``, ``31.2 MB``."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.95 or unit == "TB":
            break
        size /= 1000
    return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


def told_seconds(seconds: float) -> str:
    """A length of time in whole units, the greatest of which there are two: ``90 s``, ``3 h``, ``14 d``."""
    for unit, unit_s in _TIMES:
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
