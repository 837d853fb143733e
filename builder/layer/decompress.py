"""Reading a compressed stream: decompressed, digested and counted as it goes by, in bounded memory."""

from __future__ import annotations

import bz2
import hashlib
import lzma
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import BinaryIO, Literal, Protocol, cast

import zstandard
from isal import isal_zlib

from builder.errors import BuildError
from builder.layer.tarformat import BLOCK_BYTES
from builder.layer.tarread import is_header
from cache.oci.digest import Digest

Compression = Literal["gzip", "zstd", "bzip2", "xz", "none"]

CHUNK_BYTES = 1 << 20
GZIP_CHUNK_BYTES = 1 << 16  # grow a thousandfold at most
ZSTD_CHUNK_BYTES = 1 << 11  # grow 32,768-fold at most (a block of 128 KiB in 4 bytes)
XZ_CHUNK_BYTES = 1 << 12  # grow 7,000-fold at most
XZ_MEMORY_BYTES = 256 << 20  # ``xz -9`` asks for 65 MiB

_GZIP_WINDOW = 31  # the largest window, in a gzip frame
_IsalError = cast(type[Exception], isal_zlib.IsalError)  # the package's stub takes the class for an instance
_DAMAGE = (EOFError, _IsalError, zstandard.ZstdError, lzma.LZMAError)


class Readable(Protocol):
    """What a stream is read from: nothing comes at its end."""

    def read(self, size: int, /) -> bytes: ...


_MAGICS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f (RFC 8878, 3.1.2): zstd:chunked starts so
START_BYTES = BLOCK_BYTES
"""What tells how a stream is compressed."""


def compression_of(start: bytes) -> Compression:
    """How a tar that starts with these ``START_BYTES`` bytes is compressed, whatever its name or media type says.

    Content comes first, as in containerd: there are layers that are called gzip and are not.
    """
    if is_header(start):
        return "none"  # also where the first name in it begins like a compressed stream
    if start[:1] and start[0] & 0xF0 == 0x50 and start[1:4] == _ZSTD_SKIPPABLE:
        return "zstd"
    return next((kind for magic, kind in _MAGICS if start.startswith(magic)), "none")


class DecompressingReader:
    """The uncompressed bytes of ``source``, however it is compressed, and no more than ``max_bytes``.

    The start is read at once. With ``ahead``, which must have a thread to spare, each piece is decompressed and
    digested there while the one before it is being read. Every method raises BuildError when the stream is damaged, cut
    off or longer.
    """

    def __init__(self, source: Readable, max_bytes: int | None = None, ahead: Executor | None = None) -> None:
        start = _read_start(source)
        self._source = _decompressed(_Resumed(start, source), compression_of(start))
        self._hash = hashlib.sha256()
        self._chunk = b""
        self._at = 0
        self._max_bytes = max_bytes
        self._ahead = ahead
        self._next: Future[bytes] | None = None
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
        self._chunk = self._next.result() if self._next is not None else self._read_chunk()
        self._at = 0
        self._next = self._ahead.submit(self._read_chunk) if self._ahead is not None and self._chunk else None

    def _read_chunk(self) -> bytes:
        try:
            chunk = self._source.read(CHUNK_BYTES)
        except _DAMAGE as error:
            raise BuildError(f"the archive is damaged after {self.size_bytes} bytes: {error}") from error
        except OSError as error:
            if error.errno is None:  # how bz2 reports bad data
                raise BuildError(f"the archive is damaged after {self.size_bytes} bytes: {error}") from error
            raise
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        if self._max_bytes is not None and self.size_bytes > self._max_bytes:
            raise BuildError(f"the archive has more than {self._max_bytes} bytes unpacked (--max-unpacked-bytes)")
        return chunk


def _read_start(source: Readable) -> bytes:
    start = b""
    while len(start) < START_BYTES and (more := source.read(START_BYTES - len(start))):
        start += more
    return start


class _Resumed:
    """A stream whose start has been read already."""

    def __init__(self, start: bytes, rest: Readable) -> None:
        self._start = start
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if not self._start:
            return self._rest.read(size)
        data, self._start = self._start[:size], self._start[size:]
        return data


class _Decoder(Protocol):
    """Of one frame: ``eof`` at its end, with what came after it in ``unused_data``."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Frames:
    """Reads what is in compressed frames, one after the other, with zeros after the last (as ``gzip`` allows).

    ``chunk_bytes`` are taken at once: so few that even those of a bomb fit into memory when they have grown.
    """

    def __init__(self, source: Readable, new_decoder: Callable[[], _Decoder], chunk_bytes: int) -> None:
        self._source = source
        self._new_decoder = new_decoder
        self._chunk_bytes = chunk_bytes
        self._pending = b""
        self._decoder: _Decoder | None = None
        self._frames = 0

    def read(self, _size: int) -> bytes:
        """The next bytes, how many is up to the stream; none at its end. Raises EOFError when it is cut off."""
        while self._fill():
            if self._decoder is None:
                self._decoder = self._new_decoder()
                self._frames += 1
            data = self._decoder.decompress(self._pending)
            self._pending = b""
            if self._decoder.eof:
                self._pending = self._decoder.unused_data
                self._decoder = None
            if data:
                return data
        return b""

    def _fill(self) -> bool:
        """Sees to it that there are compressed bytes; False at the end."""
        while True:
            if self._decoder is None and self._frames:
                self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                return True
            self._pending = self._source.read(self._chunk_bytes)
            if not self._pending:
                break
        if self._decoder is not None or not self._frames:
            raise EOFError("the compressed stream ends early")
        return False


def _decompressed(source: Readable, compression: Compression) -> Readable:
    match compression:
        case "gzip":
            return _Frames(source, lambda: isal_zlib.decompressobj(_GZIP_WINDOW), GZIP_CHUNK_BYTES)
        case "zstd":
            return _Frames(source, zstandard.ZstdDecompressor().decompressobj, ZSTD_CHUNK_BYTES)
        case "bzip2":
            return bz2.BZ2File(cast(BinaryIO, source))  # it only reads
        case "xz":
            return _Frames(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES), XZ_CHUNK_BYTES)
        case "none":
            return source
