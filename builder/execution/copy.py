"""COPY and ADD, first half: what source patterns find, and a digest of it that is known before anything is copied.

BuildKit's rules: a directory stands for what it holds, a symlink named by a pattern for what it points to, and links
deeper down are copied as links. The second half is :mod:`builder.execution.placement`.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from builder.contexts.ignore import IgnoreRules as IgnorePatterns
from builder.errors import BuildError, ContextError
from builder.execution.copy_rules import has_wildcard, split_pattern
from builder.execution.digests import DigestFile, entries_key, file_digest
from builder.execution.placement import Destination, Source, place
from builder.layer.archives import is_archive, unpack_file
from builder.layer.changes import Entry, Whiteout
from builder.layer.entries import Seen, read_changes, with_parents
from builder.layer.links import clean, join
from builder.layer.rootfs import Tree
from builder.options import DEFAULT_LIMITS, Limits
from builder.planning.sources import Selection
from cache.keys import CacheKey

__all__ = [
    "Destination",
    "IgnoreRules",
    "Source",
    "check_unchanged",
    "collect",
    "content_digest",
    "place",
    "unpack_archives",
]


class IgnoreRules(Protocol):
    """What ``.dockerignore`` says of paths relative to the context."""

    def excludes(self, path: str) -> bool: ...
    def may_descend(self, path: str) -> bool: ...


def collect(
    tree: Tree,
    selection: Selection,
    ignore: IgnoreRules | None = None,
    *,
    owner: tuple[int, int] | None = None,
    detect_archives: bool = False,
) -> tuple[Source, ...]:
    """What ``selection`` finds in ``tree``.

    Raises ContextError for a path that is not there; wildcards may find nothing, as in BuildKit.

    ``owner`` is that of all files (0:0 for the build context); None keeps each file's own (``COPY --from``).
    ADD asks to ``detect_archives``.
    """
    reader = _Reader(tree, ignore, _named_excludes(selection.excludes), owner, detect_archives)
    find = reader.with_parents if selection.parents else reader.sources
    try:
        return tuple(source for pattern in selection.patterns for source in find(pattern))
    except OSError as error:
        raise ContextError(f"cannot read the source {error.filename!r}: {error.strerror}") from error


def _named_excludes(patterns: Sequence[str]) -> IgnorePatterns | None:
    try:
        return IgnorePatterns.parse("\n".join(patterns)) if patterns else None
    except ContextError as error:
        where = error.span.text if error.span else ""
        raise ContextError(f"--exclude={where}: {error.message}") from None


def content_digest(sources: Sequence[Source], digest_file: DigestFile = file_digest) -> CacheKey:
    """A digest of all that the sources can bring into a layer, times excepted. Reads the files, in threads.

    Modes count as they are, for they land in the image; an archive counts by its bytes.
    """
    try:
        return entries_key([(source.kind, source.name, source.entries) for source in sources], digest_file)
    except OSError as error:
        raise ContextError(f"cannot read the source {error.filename!r}: {error.strerror}") from error


def check_unchanged(sources: Sequence[Source]) -> None:
    """Raises ContextError for a file whose size or time are not those that it was collected with.

    Called after the files were copied: a step's key stands for what they held when they were digested.
    """
    for source in sources:
        for entry in source.entries:
            if not entry.is_file or entry.content is None:
                continue
            try:
                status = os.lstat(entry.content)
            except OSError as error:
                raise ContextError(f"{entry.content!r} has gone during the build: {error.strerror}") from error
            if (status.st_size, status.st_mtime_ns) != (entry.size_bytes, entry.mtime_ns):
                raise ContextError(f"{entry.content!r} changed during the build: build again when it is at rest")


def unpack_archives(sources: Sequence[Source], scratch: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[Source, ...]:
    """The sources with every archive replaced by what it holds.

    Its files are unpacked into new directories below ``scratch``, which must stay until the layer is written.
    """
    return tuple(_unpacked(source, scratch, limits) if source.kind == "archive" else source for source in sources)


def _unpacked(source: Source, scratch: Path, limits: Limits) -> Source:
    archive = source.entries[0]
    scratch.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="archive-", dir=scratch))
    try:
        unpacked = unpack_file(str(archive.content), directory, limits)
    except (BuildError, OSError) as error:
        raise ContextError(f"cannot unpack {source.name!r}: {error}") from error
    if unpacked.skipped:
        raise ContextError(f"cannot unpack {source.name!r} here: {'; '.join(unpacked.skipped)}")
    root = [Seen("", directory.lstat(), os.fspath(directory))] if unpacked.lists_root else []
    changes = read_changes((*root, *(seen for seen in Tree([directory]).walk() if seen.path not in unpacked.implied)))
    return Source(source.name, "unpacked", tuple(entry for entry in changes if isinstance(entry, Entry)))


class _Reader:
    """Finds sources in one tree, under one set of rules."""

    def __init__(
        self,
        tree: Tree,
        ignore: IgnoreRules | None,
        excludes: IgnoreRules | None,
        owner: tuple[int, int] | None,
        detect_archives: bool,
    ) -> None:
        self._tree = tree
        self._ignore = ignore
        self._excludes_named = excludes
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
            elif self._tree.lstat(self._tree.resolve(path)) is None:
                raise ContextError(f"{pattern!r} finds {path!r}, a link to what is not there")

    def with_parents(self, pattern: str) -> Iterator[Source]:
        """What one pattern of ``--parents`` finds, as one directory that holds it all below its path."""
        above, pivot, below = pattern.partition("/./")
        base = self._tree.resolve(clean(above)) if pivot else ""
        wanted = clean(below if pivot else pattern)
        status = self._tree.lstat(base)
        if status is None or not stat.S_ISDIR(status.st_mode):
            raise ContextError(f"the source {pattern!r} is not there")
        chosen = IgnorePatterns.parse(wanted, "--parents") if wanted else None
        entries = self._below(base, chosen)
        if not entries and not has_wildcard(wanted):
            self._required(join(base, wanted), pattern)
        if entries:
            yield Source("", "directory", entries)

    def _required(self, path: str, pattern: str) -> Source:
        source = self._source(path)
        if source is not None:
            return source
        if self._tree.lstat(self._tree.resolve(path)) is None:
            raise ContextError(f"the source {pattern!r} is not there")
        by = ".dockerignore" if self._excludes(self._tree.resolve(path)) else "--exclude"
        raise ContextError(f"the source {pattern!r} is excluded by {by}")

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
        if self._excludes(resolved) or self._is_named(name):
            return None
        (entry,) = self._entries([Seen("", status, os.fspath(self._tree.real_path(resolved)))])
        archive = self._detect_archives and entry.content is not None and is_archive(entry.content)
        return Source(name, "archive" if archive else "file", (entry,))

    def _below(self, directory: str, chosen: IgnoreRules | None = None) -> tuple[Entry, ...]:
        """All that a directory holds, with paths relative to it; of it what ``chosen`` matches, and what is above."""
        below = len(directory) + 1 if directory else 0

        def may_descend(path: str) -> bool:
            named = self._excludes_named
            return (self._ignore is None or self._ignore.may_descend(path)) and (
                named is None or named.may_descend(path[below:])
            )

        def taken(path: str) -> bool:
            return not (self._excludes(path) or self._is_named(path[below:]))

        found = (
            Seen(path, seen.status, seen.on_disk, is_taken)
            for seen in self._tree.walk(directory, may_descend)
            for path in (seen.path[below:],)
            for is_taken in (taken(seen.path) and (chosen is None or chosen.excludes(path)),)
            if is_taken or stat.S_ISDIR(seen.status.st_mode)
        )
        return self._entries(with_parents(found))

    def _entries(self, found: Iterable[Seen | Whiteout]) -> tuple[Entry, ...]:
        return tuple(entry for entry in read_changes(found, self._owner) if isinstance(entry, Entry))

    def _excludes(self, path: str) -> bool:
        return self._ignore is not None and path != "" and self._ignore.excludes(path)

    def _is_named(self, path: str) -> bool:
        """True for what an ``--exclude`` names, by its path in the source."""
        return self._excludes_named is not None and self._excludes_named.excludes(path)
