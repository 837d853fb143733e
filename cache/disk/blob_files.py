"""Blobs as files.

A blob is written to ``v1/incoming``, hashed as it passes, synced, and only then moved to its name: at no moment,
whatever is killed, is there a blob that does not match its digest.

Everything here blocks, and lets ``OSError`` through to the store that uses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cache import paths
from cache.disk import durable
from cache.errors import BlobNotFound, DigestMismatch, SizeMismatch
from cache.oci.digest import Digest
from cache.oci.errors import InvalidDigest
from cache.store import Unfinished
from cache.verify import check_expected

LEFTOVER_AGE_S = 24 * 3600
"""Files in ``v1/incoming`` that have not been written to for so long belong to nobody any more."""


class BlobFiles:
    """The blobs below a store's root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept = False

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._root / paths.blob(digest)

    def size_bytes(self, digest: Digest) -> int | None:
        """The blob's size, or None when it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, digest: Digest) -> OpenBlob:
        """The blob, to be read. Raises BlobNotFound."""
        try:
            return OpenBlob(io.FileIO(self.path(digest)))
        except FileNotFoundError as error:
            raise BlobNotFound(digest) from error

    def delete(self, digest: Digest) -> None:
        """Removes the blob if it is there."""
        self.path(digest).unlink(missing_ok=True)

    def incoming(self) -> Path:
        """A new, empty file for a blob on its way in. The first call also removes what dead writers have left."""
        if not self._swept:
            self.sweep(LEFTOVER_AGE_S)
            self._swept = True
        return durable.new_file(self._root / paths.TEMPORARY)

    def adopt(self, path: Path, digest: Digest, size_bytes: int) -> None:
        """Moves a finished file into place, trusting that it has this digest. Raises SizeMismatch."""
        with path.open("rb") as file:
            actual_bytes = os.fstat(file.fileno()).st_size
            if actual_bytes != size_bytes:
                raise SizeMismatch(digest, size_bytes, actual_bytes)
            os.fsync(file.fileno())
        durable.publish(path, self.path(digest))

    def directories(self, under: str = "", after: Digest | None = None) -> list[Path]:
        """The directories that hold blobs, in order: those that begin so (``sha256:ab``), and come after that one."""
        algorithm, _, hexadecimal = under.partition(":")
        first = self.path(after).parent if after is not None else self._root
        found = (self._root / paths.BLOBS).glob(f"{algorithm}*/{hexadecimal[:2]}*")
        return sorted(path for path in found if path >= first and path.is_dir())

    def in_directory(self, directory: Path) -> list[tuple[Digest, int]]:
        """The blobs of one of ``directories`` with their sizes in bytes, in order."""
        algorithm, found = directory.parent.name, []
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(InvalidDigest, FileNotFoundError):
                    digest = Digest(algorithm, entry.name)
                    if digest.hex.startswith(directory.name):
                        found.append((digest, entry.stat().st_size))
        return sorted(found)

    def read_all(self, digests: Iterable[Digest], limit_bytes: int) -> list[bytes | None]:
        """The first ``limit_bytes`` of each blob, None for one that is not there."""
        return [self._read(digest, limit_bytes) for digest in digests]

    def _read(self, digest: Digest, limit_bytes: int) -> bytes | None:
        try:
            with self.path(digest).open("rb") as file:
                return file.read(min(limit_bytes, os.fstat(file.fileno()).st_size))
        except FileNotFoundError:
            return None

    def delete_all(self, digests: Iterable[Digest]) -> None:
        """Removes these blobs."""
        for digest in digests:
            self.delete(digest)

    def unfinished(self) -> Unfinished:
        """What is in ``v1/incoming`` now."""
        sizes_bytes = [size_bytes for _, size_bytes in self._incoming_before(math.inf)]
        return Unfinished(files=len(sizes_bytes), files_bytes=sum(sizes_bytes))

    def sweep(self, older_than_s: float) -> Unfinished:
        """Removes files from ``v1/incoming`` that were not written to for so long.

        Younger ones may be those of another process at work.
        """
        files = files_bytes = 0
        for path, size_bytes in self._incoming_before(time.time() - older_than_s):
            path.unlink(missing_ok=True)
            files += 1
            files_bytes += size_bytes
        return Unfinished(files=files, files_bytes=files_bytes)

    def _incoming_before(self, moment: float) -> Iterator[tuple[Path, int]]:
        """The files that were last written to before a moment (unix seconds), with their sizes in bytes."""
        try:
            with os.scandir(self._root / paths.TEMPORARY) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # committed this very moment
                    if status.st_mtime < moment:
                        yield Path(entry.path), status.st_size
        except FileNotFoundError:
            return  # a new store


def version_of(status: os.stat_result) -> str:
    """What tells a file from another that takes its name."""
    return f"{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"


class OpenBlob:
    """A blob being read. A cancelled reader may close it while a thread still reads: the lock keeps them apart."""

    def __init__(self, file: io.FileIO) -> None:
        self._lock = threading.Lock()
        self._file = file
        status = os.fstat(file.fileno())
        self.size_bytes = status.st_size
        self.version = version_of(status)

    def read(self, start: int, size_bytes: int) -> bytes:
        """At most ``size_bytes`` from ``start`` on, at least one."""
        with self._lock:
            chunk = os.pread(self._file.fileno(), size_bytes, start)
        if not chunk:
            raise OSError(0, f"the file ends at {start} of {self.size_bytes} bytes", self._file.name)
        return chunk

    def close(self) -> None:
        with self._lock:
            self._file.close()


class IncomingBlob:
    """A blob being written. The lock orders a discard behind a write whose caller was cancelled meanwhile."""

    def __init__(self, blobs: BlobFiles, expected: Digest | None) -> None:
        self._expected = expected
        self._blobs = blobs
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._hash = hashlib.new(expected.algorithm if expected else "sha256")
        self._size_bytes = 0
        self._ended = False

    def write(self, data: bytes) -> None:
        """Appends ``data``; the first write makes the file."""
        with self._lock:
            self._append(data)

    def commit(self, data: bytes, digest: Digest) -> int:
        """Appends ``data``, moves the blob into place and returns its size in bytes. Raises DigestMismatch."""
        with self._lock:
            check_expected(self._expected, digest)
            path = self._append(data)
            actual = self._digest(path, digest.algorithm)
            if actual != digest:
                raise DigestMismatch(digest, actual, self._size_bytes)
            self._blobs.adopt(path, digest, self._size_bytes)
            self._end()
        return self._size_bytes

    def discard(self) -> None:
        """Ends the writing; removes what was not committed."""
        with self._lock:
            if self._file is not None and not self._ended:
                Path(self._file.name).unlink(missing_ok=True)
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._file is not None:
            self._file.close()

    def _append(self, data: bytes) -> Path:
        if self._ended:
            raise RuntimeError("the blob's writer has ended: nothing more can be written")
        if self._file is None:
            self._file = io.FileIO(self._blobs.incoming(), "wb")
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)
        self._size_bytes += len(data)
        return Path(self._file.name)

    def _digest(self, path: Path, algorithm: str) -> Digest:
        """The digest of what was written; algorithms other than the one expected read it again."""
        if algorithm == self._hash.name:
            return Digest(algorithm, self._hash.hexdigest())
        with path.open("rb") as file:
            return Digest(algorithm, hashlib.file_digest(file, algorithm).hexdigest())
