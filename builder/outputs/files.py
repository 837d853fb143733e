"""A stage's files → a directory or a tar, without an image around them. Owners and modes are the image's."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, cast

from msgspec.structs import replace

from builder.errors import BuildError
from builder.layer.changes import Entry
from builder.layer.entries import read_changes
from builder.layer.layerdir import LayerDirectory
from builder.layer.links import join
from builder.layer.rootfs import Tree
from builder.layer.tarlayer import write_layer

_DIRECTORY = stat.S_IFDIR | 0o755


def write_directory(
    trees: Mapping[str, Tree], directory: Path, clamp_mtime_s: int | None, *, owners: bool
) -> list[str]:
    """Puts the files of each tree below its name ("" = the directory itself) over what is there, and never outside.

    Without ``owners`` they are the builder's own. Returns what could not be made here, and why. Raises BuildError.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        target = LayerDirectory(directory, owners=owners)
        for entry in _entries(trees):
            _apply(target, _clamped(entry, clamp_mtime_s))
        target.finish()
    except OSError as error:
        where = error.filename or directory
        raise BuildError(f"cannot write the files to {directory}: {where}: {error.strerror or error}") from error
    return target.skipped


def write_tar(trees: Mapping[str, Tree], out: IO[bytes], clamp_mtime_s: int | None) -> None:
    """Writes the files of each tree, below its name, as one tar. Raises BuildError."""
    write_layer(_entries(trees), cast("BinaryIO", out), clamp_mtime_s=clamp_mtime_s, compression="none")


def _entries(trees: Mapping[str, Tree]) -> Iterator[Entry]:
    for name, tree in trees.items():
        if name:
            yield Entry(name, _DIRECTORY)
        for entry in read_changes(tree.walk()):
            if isinstance(entry, Entry):
                yield _below(entry, name) if name else entry


def _below(entry: Entry, name: str) -> Entry:
    link = join(name, entry.link) if entry.hardlink else entry.link
    return replace(entry, path=join(name, entry.path), link=link)


def _apply(target: LayerDirectory, entry: Entry) -> None:
    if entry.is_file and entry.content is not None:
        with open(entry.content, "rb") as content:
            target.apply(entry, content)
    else:
        target.apply(entry)


def _clamped(entry: Entry, clamp_mtime_s: int | None) -> Entry:
    latest_ns = entry.mtime_ns if clamp_mtime_s is None else clamp_mtime_s * 10**9
    return replace(entry, mtime_ns=min(entry.mtime_ns, latest_ns))
