"""COPY and ADD, first half: what source patterns find, and a digest of it that is known before anything is copied.

BuildKit's rules: a directory stands for what it holds, a symlink named by a pattern for what it points to, and links
deeper down are copied as links. The second half is :mod:`builder.placement`.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from builder.archives import is_archive, unpack_file
from builder.changes import Entry, Whiteout
from builder.copy_rules import split_pattern
from builder.digests import entries_key
from builder.entries import Seen, read_changes, with_parents
from builder.errors import BuildError, ContextError
from builder.links import join
from builder.placement import Destination, Source, place
from builder.rootfs import Tree
from cache.keys import CacheKey

__all__ = ["Destination", "IgnoreRules", "Source", "collect", "content_digest", "place", "unpack_archives"]


class IgnoreRules(Protocol):
    """What ``.dockerignore`` says of paths relative to the context."""

    def excludes(self, path: str) -> bool: ...
    def may_descend(self, path: str) -> bool: ...


def collect(
    tree: Tree,
    patterns: Sequence[str],
    ignore: IgnoreRules | None = None,
    *,
    owner: tuple[int, int] | None = None,
    detect_archives: bool = False,
) -> tuple[Source, ...]:
    """What ``patterns`` find in ``tree``.

    Raises ContextError for a path that is not there, and where nothing at all is found; one wildcard among several
    sources may find nothing.

    ``owner`` is that of all files (0:0 for the build context); None keeps each file's own (``COPY --from``).
    ADD asks to ``detect_archives``.
    """
    reader = _Reader(tree, ignore, owner, detect_archives)
    try:
        sources = tuple(source for pattern in patterns for source in reader.sources(pattern))
    except OSError as error:
        raise ContextError(f"cannot read the source {error.filename!r}: {error.strerror}") from error
    if not sources:
        raise ContextError(f"nothing matches {', '.join(map(repr, patterns))}")
    return sources


def content_digest(sources: Sequence[Source]) -> CacheKey:
    """A digest of all that the sources can bring into a layer, times excepted. Reads the files, in threads.

    Modes count as they are, for they land in the image; an archive counts by its bytes.
    """
    try:
        return entries_key([(source.kind, source.name, source.entries) for source in sources])
    except OSError as error:
        raise ContextError(f"cannot read the source {error.filename!r}: {error.strerror}") from error


def unpack_archives(sources: Sequence[Source], scratch: Path) -> tuple[Source, ...]:
    """The sources with every archive replaced by what it holds.

    Its files are unpacked into new directories below ``scratch``, which must stay until the layer is written.
    """
    return tuple(_unpacked(source, scratch) if source.kind == "archive" else source for source in sources)


def _unpacked(source: Source, scratch: Path) -> Source:
    archive = source.entries[0]
    scratch.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="archive-", dir=scratch))
    try:
        unpacked = unpack_file(str(archive.content), directory)
    except (BuildError, OSError) as error:
        raise ContextError(f"cannot unpack {source.name!r}: {error}") from error
    if unpacked.skipped:
        raise ContextError(f"cannot unpack {source.name!r} here: {'; '.join(unpacked.skipped)}")
    root = [("", directory.lstat())] if unpacked.lists_root else []
    found = (*root, *((path, status) for path, status in Tree([directory]).walk() if path not in unpacked.implied))
    changes = read_changes(Seen(path, status, f"{directory}/{path}") for path, status in found)
    return Source(source.name, "unpacked", tuple(entry for entry in changes if isinstance(entry, Entry)))


class _Reader:
    """Finds sources in one tree, under one set of rules."""

    def __init__(
        self, tree: Tree, ignore: IgnoreRules | None, owner: tuple[int, int] | None, detect_archives: bool
    ) -> None:
        self._tree = tree
        self._ignore = ignore
        self._owner = owner
        self._detect_archives = detect_archives

    def sources(self, pattern: str) -> Iterator[Source]:
        """What one pattern finds, in the order of the names' bytes."""
        base, wildcards = split_pattern(pattern)
        if not wildcards:
            yield self._required(base, pattern)
            return
        for path in self._matches(self._tree.resolve(base), wildcards):
            source = self._source(path)
            if source is not None:
                yield source

    def _required(self, path: str, pattern: str) -> Source:
        source = self._source(path)
        if source is not None:
            return source
        if self._tree.lstat(self._tree.resolve(path)) is None:
            raise ContextError(f"the source {pattern!r} is not there")
        raise ContextError(f"the source {pattern!r} is excluded by .dockerignore")

    def _matches(self, directory: str, wildcards: Sequence[re.Pattern[str]]) -> Iterator[str]:
        status = self._tree.lstat(directory)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return
        for name in self._tree.listdir(directory):
            if not wildcards[0].fullmatch(name):
                continue
            if len(wildcards) == 1:
                yield join(directory, name)
            else:
                yield from self._matches(join(directory, name), wildcards[1:])

    def _source(self, path: str) -> Source | None:
        """What is at ``path``, links followed; None when it is not there or excluded."""
        resolved = self._tree.resolve(path)
        status = self._tree.lstat(resolved)
        if status is None or stat.S_ISSOCK(status.st_mode):
            return None
        name = path.rpartition("/")[2]
        if stat.S_ISDIR(status.st_mode):
            entries = self._below(resolved)
            if resolved and not entries and self._excludes(resolved):
                return None
            return Source(name, "directory", entries)
        if self._excludes(resolved):
            return None
        (entry,) = self._entries([Seen("", status, os.fspath(self._tree.real_path(resolved)))])
        archive = self._detect_archives and entry.content is not None and is_archive(entry.content)
        return Source(name, "archive" if archive else "file", (entry,))

    def _below(self, directory: str) -> tuple[Entry, ...]:
        """All that a directory holds, with paths relative to it."""
        below = len(directory) + 1 if directory else 0
        descend = self._ignore.may_descend if self._ignore else None
        found = (
            Seen(path[below:], status, os.fspath(self._tree.real_path(path)), not self._excludes(path))
            for path, status in self._tree.walk(directory, descend)
            if stat.S_ISDIR(status.st_mode) or not self._excludes(path)
        )
        return self._entries(with_parents(found))

    def _entries(self, found: Iterable[Seen | Whiteout]) -> tuple[Entry, ...]:
        entries = (entry for entry in read_changes(found) if isinstance(entry, Entry))
        if self._owner is None:
            return tuple(entries)
        uid, gid = self._owner
        return tuple(replace(entry, uid=uid, gid=gid) for entry in entries)

    def _excludes(self, path: str) -> bool:
        return self._ignore is not None and path != "" and self._ignore.excludes(path)
