"""Unpacks a layer blob into a directory: decompress, digest and place in one pass, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from builder.contexts.members import ContextMembers, context_path
from builder.errors import BuildError
from builder.layer.changes import Change, Entry
from builder.layer.decompress import DecompressingReader, Readable
from builder.layer.entries import keeps_xattr
from builder.layer.layerdir import LayerDirectory, no_tree
from builder.layer.links import clean
from builder.layer.rootfs import Tree
from builder.layer.tarformat import change_of, member_of
from builder.layer.tarread import read_entries
from builder.options import DEFAULT_LIMITS, Limits
from cache.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out: the digest and size of the uncompressed tar.

    ``skipped`` is what could not be made here, each with its reason, for a warning; ``implied`` the directories that
    were made although the tar does not list them.
    """

    diff_id: Digest
    size_bytes: int
    skipped: tuple[str, ...] = ()
    implied: frozenset[str] = frozenset()
    lists_root: bool = False


def unpack_layer(
    source: Readable,
    directory: Path,
    *,
    overlay: bool,
    lower: Callable[[], Tree] = no_tree,
    limits: Limits = DEFAULT_LIMITS,
) -> Unpacked:
    """Unpacks the layer ``source`` into ``directory`` and says what it was.

    With ``overlay`` the directory is new and this layer's own, and whiteouts are written as overlayfs reads them;
    ``lower`` then gives the tree of the layers below, and is asked only where the layer depends on it: directories that
    it does not list itself get their owner and mode from there. Without it the layer is applied in place. The caller
    compares the diff_id, and drops the directory when this raises BuildError.
    """
    target = LayerDirectory(directory, overlay=overlay, lower=lower)
    return _unpack(source, target, counted(change_of, limits.files), limits)


def unpack_archive(source: Readable, directory: Path, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    """Unpacks a tar that is no layer into a new directory: ``.wh.`` names are plain files. Raises BuildError."""
    return _unpack(source, LayerDirectory(directory), counted(member_of, limits.files), limits)


def unpack_context(source: Readable, directory: Path, limits: Limits) -> Unpacked:
    """Unpacks a build context, compressed or not, into a new directory. Raises BuildError.

    Nobody may have meant a member to lie outside the context, or in it as a device: that is an error and names it.
    """
    members = ContextMembers()
    unpacked = _unpack(source, LayerDirectory(directory), counted(members.change, limits.files), limits, context_path)
    if not unpacked.size_bytes:
        raise BuildError("it is empty: expected a tar archive")
    return unpacked


def counted(change_of: Callable[[Entry], Change | None], most: int) -> Callable[[Entry], Change | None]:
    """``change_of`` for so many members; the next raises BuildError."""
    numbers = itertools.count(1)

    def change(entry: Entry) -> Change | None:
        if next(numbers) > most:
            raise BuildError(f"the archive has more than {most} files (--max-files)")
        return change_of(entry)

    return change


def _unpack(
    source: Readable,
    directory: LayerDirectory,
    change_of: Callable[[Entry], Change | None],
    limits: Limits,
    path_of: Callable[[str], str] = clean,
) -> Unpacked:
    with ThreadPoolExecutor(1, thread_name_prefix="decompress") as ahead:
        reader = DecompressingReader(source, limits.unpacked_bytes, ahead)
        _place(reader, directory, change_of, path_of)
        reader.drain()  # what follows the archive's end counts for the digest
    directory.finish()
    return Unpacked(
        reader.digest(), reader.size_bytes, tuple(directory.skipped), frozenset(directory.implied), directory.lists_root
    )


def _place(
    reader: DecompressingReader,
    directory: LayerDirectory,
    change_of: Callable[[Entry], Change | None],
    path_of: Callable[[str], str],
) -> None:
    for entry, content in read_entries(reader, path_of):
        change = change_of(replace(entry, xattrs=_kept(entry.xattrs)) if entry.xattrs else entry)
        if change is None:
            continue
        try:
            directory.apply(change, content)
        except OSError as error:
            raise BuildError(f"cannot unpack {entry.path!r}: {error.strerror}") from error
        except (OverflowError, ValueError) as error:  # a zero byte in a name, an owner or a time out of range
            raise BuildError(f"cannot unpack {entry.path!r}: {error}") from error


def _kept(xattrs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without those that would steer overlayfs or are the machine's own."""
    return {name: value for name, value in xattrs.items() if keeps_xattr(name)}
