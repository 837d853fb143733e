"""Where the files of a COPY, an ADD or a mount come from, and which of them are taken: values."""

from __future__ import annotations

import msgspec


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which files of a tree are taken: ``patterns`` that find them, less those that ``excludes`` match.

    With ``parents`` each keeps its path (from ``/./`` on, where a pattern has that), and ``**`` goes over directories.
    """

    patterns: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    parents: bool = False


class StageSource(msgspec.Struct, frozen=True):
    """Files come from a stage, by its index."""

    index: int


class ContextSource(msgspec.Struct, frozen=True):
    """Files come from the build context, or from one that is named on the command line."""

    name: str = ""


Origin = StageSource | ContextSource
