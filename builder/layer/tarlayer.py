"""Writes changes as a layer: tar, digest, compression and digest again, in one pass and in bounded memory.

The tar is cut into chunks of one size whatever the files are, so that compression, too, always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import zstandard
from isal import isal_zlib

from builder.errors import BuildError
from builder.layer.changes import Change, Entry
from builder.layer.decompress import DecompressingReader, Readable
from builder.layer.tarformat import BLOCK_BYTES, UnfitForLayer, header, padding
from builder.outputs.exports import LayerFormat
from cache.oci.digest import Digest
from cache.oci.media_types import Compression

CHUNK_BYTES = 1 << 20
RECORD_BYTES = 20 * BLOCK_BYTES
"""A tar ends with two empty blocks and is filled up to whole records, as every tar program does."""

_GZIP_LEVEL = isal_zlib.ISAL_DEFAULT_COMPRESSION
_MOST_ISAL_LEVEL = 3
_ZSTD_LEVEL = 3
_GZIP_WINDOW = 31  # the largest window, in a gzip frame (its header has no time and no name)


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer that was written: digests and sizes of its tar and of the blob."""

    diff_id: Digest
    digest: Digest
    size_bytes: int
    tar_bytes: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A regular file whose bytes are read from a stream, and not from this machine's disk."""

    entry: Entry
    content: Readable


def write_layer(
    changes: Iterable[Change | Filled],
    out: BinaryIO,
    *,
    clamp_mtime_s: int | None = None,
    compression: Compression = "gzip",
    level: int | None = None,
) -> WrittenLayer:
    """Writes ``changes`` as a layer blob to ``out``; the same changes always give the same bytes.

    Times are whole seconds; later ones than ``clamp_mtime_s`` become it. Raises BuildError for what a tar cannot hold
    and for a file that changes while it is read.
    """
    blob = _Blob(out, compression, level)
    tar = _Tar(blob)
    for item in changes:
        change = item.entry if isinstance(item, Filled) else item
        try:
            tar.write(header(change, clamp_mtime_s))
        except UnfitForLayer as error:
            raise BuildError(str(error)) from error
        if isinstance(item, Filled):
            _copy_exactly(item.entry, item.content.read, tar.write)
            tar.write(padding(item.entry.size_bytes))
        elif isinstance(change, Entry) and change.is_file and change.content is not None:
            _write_content(tar, change, change.content)
    tar.write(bytes(2 * BLOCK_BYTES))
    tar.write(bytes(-tar.size_bytes % RECORD_BYTES))
    return tar.finish()


def recompress_layer(source: Readable, out: BinaryIO, wanted: LayerFormat) -> WrittenLayer:
    """Writes a layer blob in another format: the bytes that ``write_layer`` would have given at once.

    Raises BuildError when ``source`` is damaged.
    """
    reader = DecompressingReader(source)
    tar = _Tar(_Blob(out, wanted.compression, wanted.level))
    while data := reader.read(CHUNK_BYTES):
        tar.write(data)
    return tar.finish()


class _Compressor(Protocol):
    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    """No compression, with the face of a compressor."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


def _compressor(compression: Compression, level: int | None) -> _Compressor:
    match compression:
        case "gzip" if level is None or 1 <= level <= _MOST_ISAL_LEVEL:
            made: _Compressor = isal_zlib.compressobj(
                _GZIP_LEVEL if level is None else level, isal_zlib.DEFLATED, _GZIP_WINDOW
            )
            return made
        case "gzip":  # what isal has no level for: stored, and smaller but slower
            return zlib.compressobj(_GZIP_LEVEL if level is None else level, zlib.DEFLATED, _GZIP_WINDOW)
        case "zstd":
            return zstandard.ZstdCompressor(level=_ZSTD_LEVEL if level is None else level).compressobj()
        case "none":
            return _Plain()


class _Blob:
    """The compressed end: compresses chunks of the tar, digests both sides, writes the blob."""

    def __init__(self, out: BinaryIO, compression: Compression, level: int | None) -> None:
        self._out = out
        self._compressor = _compressor(compression, level)
        self._tar_hash = hashlib.sha256()
        self._blob_hash = hashlib.sha256()
        self._tar_bytes = 0
        self._size_bytes = 0

    def add(self, chunk: bytes | bytearray | memoryview) -> None:
        self._tar_hash.update(chunk)
        self._tar_bytes += len(chunk)
        self._write(self._compressor.compress(chunk))

    def finish(self) -> WrittenLayer:
        self._write(self._compressor.flush())
        return WrittenLayer(
            Digest("sha256", self._tar_hash.hexdigest()),
            Digest("sha256", self._blob_hash.hexdigest()),
            self._size_bytes,
            self._tar_bytes,
        )

    def _write(self, data: bytes) -> None:
        if data:
            self._blob_hash.update(data)
            self._size_bytes += len(data)
            self._out.write(data)


class _Tar:
    """The uncompressed end: gathers headers and contents into chunks of exactly ``CHUNK_BYTES``."""

    def __init__(self, blob: _Blob) -> None:
        self._blob = blob
        self._chunk = bytearray()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self._chunk += data
        if len(self._chunk) >= CHUNK_BYTES:
            self._flush()

    def finish(self) -> WrittenLayer:
        self._blob.add(self._chunk)
        return self._blob.finish()

    def _flush(self) -> None:
        whole = len(self._chunk) // CHUNK_BYTES * CHUNK_BYTES
        with memoryview(self._chunk) as view:
            for start in range(0, whole, CHUNK_BYTES):
                self._blob.add(view[start : start + CHUNK_BYTES])
        del self._chunk[:whole]


def _write_content(tar: _Tar, entry: Entry, content: str) -> None:
    """Writes a file's bytes and their padding. Raises BuildError when there are not ``size_bytes`` of them."""
    try:
        file = os.open(content, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BuildError(f"cannot read {entry.path!r} for its layer: {error.strerror}") from error
    try:
        _copy_exactly(entry, lambda size: os.read(file, size), tar.write)
    finally:
        os.close(file)
    tar.write(padding(entry.size_bytes))


def _copy_exactly(entry: Entry, read: Callable[[int], bytes], write: Callable[[bytes], None]) -> None:
    """Copies ``size_bytes``; every read asks for one byte more than is due, which tells whether the file has grown."""
    due = entry.size_bytes
    while True:
        data = read(min(due + 1, CHUNK_BYTES))
        due -= len(data)
        if due < 0 or (due > 0 and not data):
            raise BuildError(
                f"{entry.path!r} changed while it was read for its layer: expected {entry.size_bytes} bytes, "
                f"{'there are more' if due < 0 else f'got {entry.size_bytes - due}'}"
            )
        if not data:
            return
        write(data)
