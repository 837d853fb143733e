"""COPY and ADD: what a source pattern finds, and what placing it changes in a stage (BuildKit's rules)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.changes import Change, Entry
from builder.rootfs import Tree
from cache.keys import CacheKey


class IgnoreRules(Protocol):
    """What ``.dockerignore`` says of paths relative to the context."""

    def excludes(self, path: str) -> bool: ...
    def may_descend(self, path: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to copy: a file (``entries`` is that one entry, with an empty path) or what a directory holds.

    ``name`` is the last part of its path as the instruction found it. An ``archive`` is a file that ADD unpacks; see
    :func:`unpack_archives`.
    """

    name: str
    is_directory: bool
    entries: tuple[Entry, ...]
    archive: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where sources go and as whom; ``path`` as written, with its trailing slash.

    ``made_at_ns`` is the modification time of directories that have to be made on the way.
    """

    path: str
    workdir: str = "/"
    chown: tuple[int, int] | None = None
    chmod: int | None = None
    made_at_ns: int = 0


def collect(
    tree: Tree,
    patterns: Sequence[str],
    ignore: IgnoreRules | None = None,
    *,
    owner: tuple[int, int] | None = None,
    detect_archives: bool = False,
) -> tuple[Source, ...]:
    """What ``patterns`` find in ``tree``. Raises ContextError for one that finds nothing.

    ``owner`` is that of all files (0:0 for the build context); None keeps each file's own (``COPY --from``). ADD asks to
    ``detect_archives``.
    """
    raise NotImplementedError


def content_digest(sources: Sequence[Source]) -> CacheKey:
    """A digest of all that the sources can bring into a layer, times excepted. Reads the files, in threads."""
    raise NotImplementedError


def unpack_archives(sources: Sequence[Source], scratch: Path) -> tuple[Source, ...]:
    """The sources with every archive replaced by what it holds, unpacked below ``scratch`` (kept until the layer is)."""
    raise NotImplementedError


def place(sources: Sequence[Source], destination: Destination, tree: Tree) -> list[Change]:
    """What copying ``sources`` changes in ``tree``, sorted, with the directories above. Raises ContextError."""
    raise NotImplementedError
