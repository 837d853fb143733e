"""Reading a compressed stream: decompressed, digested and counted as it goes by, in bounded memory."""

from __future__ import annotations

import bz2
import hashlib
import lzma
from typing import BinaryIO, Literal, Protocol, cast

import zstandard
from isal import isal_zlib

from builder.errors import BuildError
from cache.oci.digest import Digest

Compression = Literal["gzip", "zstd", "bzip2", "xz", "none"]

CHUNK_BYTES = 1 << 20
GZIP_CHUNK_BYTES = 1 << 16
"""Compressed bytes taken at once: even those of a bomb, which grow a thousandfold, fit into memory then."""

_GZIP_WINDOW = 31  # the largest window, in a gzip frame
_IsalError = cast(type[Exception], isal_zlib.IsalError)  # the package's stub takes the class for an instance
_DAMAGE = (EOFError, _IsalError, zstandard.ZstdError, lzma.LZMAError)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class DecompressingReader:
    """The uncompressed bytes of ``source``. Every method raises BuildError when the stream is damaged or cut off."""

    def __init__(self, source: BinaryIO, compression: Compression) -> None:
        self._source = _decompressed(source, compression)
        self._hash = hashlib.sha256()
        self._chunk = b""
        self._at = 0
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        """From 1 to ``size`` bytes, or none at the end."""
        if self._at == len(self._chunk):
            self._fill()
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        return data

    def read_exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        data = self.read(size)
        while len(data) < size:
            more = self.read(size - len(data))
            if not more:
                raise BuildError(f"the archive ends early, after {self.size_bytes} bytes")
            data += more
        return data

    def drain(self) -> None:
        """Reads to the end, which the digest and the size need."""
        while self.read(CHUNK_BYTES):
            pass

    def digest(self) -> Digest:
        """The SHA-256 of what the stream has given."""
        return Digest("sha256", self._hash.hexdigest())

    def _fill(self) -> None:
        try:
            self._chunk = self._source.read(CHUNK_BYTES)
        except _DAMAGE as error:
            raise BuildError(f"the archive is damaged after {self.size_bytes} bytes: {error}") from error
        except OSError as error:
            if error.errno is None:  # how bz2 reports bad data
                raise BuildError(f"the archive is damaged after {self.size_bytes} bytes: {error}") from error
            raise
        self._at = 0
        self._hash.update(self._chunk)
        self.size_bytes += len(self._chunk)


class _Gunzip:
    """Reads what is in gzip members, one after the other, with zeros after the last (as ``gzip`` allows)."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._pending = b""
        self._member: isal_zlib.Decompress | None = None
        self._members = 0

    def read(self, _size: int) -> bytes:
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
        while True:
            if self._member is None and self._members:
                self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                return True
            self._pending = self._source.read(GZIP_CHUNK_BYTES)
            if not self._pending:
                break
        if self._member is not None or not self._members:
            raise EOFError("the gzip stream ends early")
        return False


def _decompressed(source: BinaryIO, compression: Compression) -> _Readable:
    match compression:
        case "gzip":
            return _Gunzip(source)
        case "zstd":
            return zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        case "bzip2":
            return bz2.BZ2File(source)
        case "xz":
            return lzma.LZMAFile(source)
        case "none":
            return source
