"""Unpacks a layer blob into a directory: decompress, digest and place in one pass, in bounded memory."""

from __future__ import annotations

import hashlib
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal, Protocol, cast

import zstandard
from isal import isal_zlib

from builder.changes import Change, Entry, Opaque, Whiteout
from builder.entries import keeps_xattr
from builder.errors import BuildError
from builder.layerdir import LayerDirectory
from builder.links import clean
from builder.rootfs import Tree
from builder.tarformat import OPAQUE_NAME, WHITEOUT_PREFIX, XATTR_RECORD
from cache.oci.digest import Digest

Compression = Literal["gzip", "zstd", "none"]

READ_BYTES = 1 << 20
GZIP_READ_BYTES = 1 << 16
"""Compressed bytes taken at once: even a bomb's, which grow a thousandfold, then fit into memory."""

_GZIP_WINDOW = 31  # the largest window, in a gzip frame
_IsalError = cast(type[Exception], isal_zlib.IsalError)  # the package's stub says it were an instance
_AUFS_PREFIX = ".wh..wh."
_TYPES = {
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


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


def unpack_layer(
    source: BinaryIO, compression: Compression, directory: Path, *, overlay: bool, lower: Tree | None = None
) -> Unpacked:
    """Unpacks the layer ``source`` into ``directory`` and says what it was.

    With ``overlay`` the directory is new and this layer's own, and whiteouts are written as overlayfs reads them;
    ``lower`` is then the tree of the layers below, from which directories that the layer does not list itself get their
    owner and mode. Without it the layer is applied in place. The caller compares the diff_id, and drops the directory
    when this raises BuildError.
    """
    return _unpack(_decompressed(source, compression), LayerDirectory(directory, overlay=overlay, lower=lower), True)


def unpack_archive(tar: _Readable, directory: Path) -> Unpacked:
    """Unpacks an uncompressed tar that is no layer: ``.wh.`` names are plain files. Raises BuildError."""
    return _unpack(tar, LayerDirectory(directory), False)


def apply_changes(
    changes: Iterable[Change], directory: Path, *, overlay: bool, lower: Tree | None = None
) -> tuple[str, ...]:
    """Puts changes with their contents into ``directory``, as unpacking their layer would; gives what was skipped."""
    target = LayerDirectory(directory, overlay=overlay, lower=lower)
    for change in changes:
        try:
            if isinstance(change, Entry) and change.is_file and change.content is not None:
                with open(change.content, "rb") as content:
                    target.apply(change, content)
            else:
                target.apply(change)
        except OSError as error:
            raise BuildError(f"cannot put {change.path!r} in place: {error.strerror}") from error
    target.finish()
    return tuple(target.skipped)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _HashingReader:
    """Reads on, and digests and counts what was read."""

    def __init__(self, source: _Readable) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self.size_bytes += len(data)
        return data

    def digest(self) -> Digest:
        return Digest("sha256", self._hash.hexdigest())


class _Gunzip:
    """Reads what is in gzip members, one after the other, with zeros after the last (as tapes and ``gzip`` allow)."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._pending = b""
        self._member: isal_zlib.Decompress | None = None
        self._members = 0

    def read(self, _size: int = -1) -> bytes:
        """The next bytes, how many is up to the stream; none at its end. Raises EOFError when it is cut off."""
        while self._fill():
            if self._member is None:
                self._member = isal_zlib.decompressobj(_GZIP_WINDOW)
                self._members += 1
            data = self._member.decompress(self._pending)
            self._pending = self._member.unused_data
            if self._member.eof:
                self._member = None
            if data:
                return data
        return b""

    def _fill(self) -> bool:
        """Sees to it that there are compressed bytes; False at the end."""
        while not self._pending:
            self._pending = self._source.read(GZIP_READ_BYTES)
            if not self._pending:
                if self._member is not None or not self._members:
                    raise EOFError("the gzip stream ends early")
                return False
            if self._member is None and self._members:
                self._pending = self._pending.lstrip(b"\0")
        return True


def _decompressed(source: BinaryIO, compression: Compression) -> _Readable:
    match compression:
        case "gzip":
            return _Gunzip(source)
        case "zstd":
            return zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        case "none":
            return source


def _unpack(tar: _Readable, directory: LayerDirectory, whiteouts: bool) -> Unpacked:
    reader = _HashingReader(tar)
    try:
        _place_members(reader, directory, whiteouts)
        while reader.read(READ_BYTES):
            pass  # what follows the archive's end counts for the digest
    except (tarfile.TarError, EOFError, _IsalError, zstandard.ZstdError) as error:
        raise BuildError(f"the archive is damaged after {reader.size_bytes} bytes: {error}") from error
    directory.finish()
    return Unpacked(reader.digest(), reader.size_bytes, tuple(directory.skipped), frozenset(directory.implied))


def _place_members(reader: _HashingReader, directory: LayerDirectory, whiteouts: bool) -> None:
    stream = cast(IO[bytes], reader)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=READ_BYTES, errors="surrogateescape") as members:
        for member in members:
            change = _change(member) if whiteouts else _entry(member)
            if change is None:
                continue
            try:
                directory.apply(change, cast(BinaryIO | None, members.extractfile(member) if member.isreg() else None))
            except OSError as error:
                raise BuildError(f"cannot unpack {member.name!r}: {error.strerror}") from error


def _change(member: tarfile.TarInfo) -> Change | None:
    """What a layer's tar entry means; None for aufs' own notes, which old layers hold."""
    parent, _, name = clean(member.name).rpartition("/")
    if not name.startswith(WHITEOUT_PREFIX):
        return _entry(member)
    if name == OPAQUE_NAME:
        return Opaque(parent)
    if name.startswith(_AUFS_PREFIX):
        return None
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in {"", ".", ".."}:
        raise BuildError(f"{member.name!r} in the layer is not a whiteout: it names no file")
    return Whiteout(f"{parent}/{hidden}".lstrip("/"))


def _entry(member: tarfile.TarInfo) -> Entry:
    kind = stat.S_IFREG if member.isreg() or member.islnk() else _TYPES.get(member.type)
    if kind is None:
        raise BuildError(f"{member.name!r} in the archive has the unknown type {member.type!r}")
    if kind != stat.S_IFDIR and not clean(member.name):
        raise BuildError(f"{member.name!r} in the archive would replace the root by a file")
    return Entry(
        path=clean(member.name),
        mode=kind | stat.S_IMODE(member.mode),
        uid=member.uid,
        gid=member.gid,
        mtime_ns=int(member.mtime) * 1_000_000_000,
        size_bytes=member.size,
        link=clean(member.linkname) if member.islnk() else member.linkname,
        hardlink=member.islnk(),
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        xattrs=_xattrs(member),
    )


def _xattrs(member: tarfile.TarInfo) -> dict[str, bytes]:
    """The extended attributes in the PAX records; those that steer overlayfs or are the machine's own are left out."""
    records = {
        tag.removeprefix(XATTR_RECORD): value.encode("utf-8", "surrogateescape")
        for tag, value in member.pax_headers.items()
        if tag.startswith(XATTR_RECORD)
    }
    return {name: value for name, value in records.items() if keeps_xattr(name)}
