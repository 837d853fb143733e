"""The file under a spool: where its bytes are on the disk. Everything here blocks.

A store whose blobs are files gives the file itself, so that a blob is written once and then only moved to its name.
Where it cannot, or its disk becomes full on the way, the bytes are in a file without a name elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from cache.disk import durable
from cache.errors import StoreUnavailable
from cache.oci.digest import Digest
from cache.store import IncomingFiles

COPY_BYTES = 1 << 20


class SpoolFile:
    """Bytes that are appended, hashed as they pass, and can be read again; at the end the store may take the file.

    ``home`` is the store when its blobs are files, ``spare`` the directory for files without a name (None = the
    system's). One thread at a time appends; any number read. The descriptor is closed when nobody holds this object
    any more, so that who reads needs no say in when the spool ends.
    """

    def __init__(self, home: IncomingFiles | None, spare: Path | None, algorithm: str) -> None:
        self._home = home
        self._spare = spare
        self._hash = hashlib.new(algorithm)
        self._path: Path | None = None
        self._left: StoreUnavailable | None = None
        self._lock = threading.Lock()
        self.size_bytes = 0
        self._fd = self._open()
        weakref.finalize(self, os.close, self._fd)

    def _open(self) -> int:
        if self._home is not None:
            try:
                with _translated("be opened"):
                    self._path = self._home.incoming()
                    return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except StoreUnavailable as error:
                self._leave_home(error)
        with _translated("be opened"):
            return _unnamed(self._spare)

    def append(self, pieces: Iterable[bytes]) -> None:
        """Adds the pieces. Raises StoreUnavailable, StoreFull when neither the store's disk nor another takes them."""
        with self._lock:
            for piece in pieces:
                self._write(piece)
                self._hash.update(piece)
                self.size_bytes += len(piece)

    def _write(self, piece: bytes) -> None:
        try:
            with _translated("write"):
                return _write_all(self._fd, piece, self.size_bytes)
        except StoreUnavailable as error:
            if self._path is None:
                raise
            self._leave_home(error)
        with _translated("write"):
            self._move()
            _write_all(self._fd, piece, self.size_bytes)

    def _move(self) -> None:
        """Goes on in a file without a name elsewhere; whoever reads notices nothing."""
        elsewhere = _unnamed(self._spare)
        try:
            for start in range(0, self.size_bytes, COPY_BYTES):
                _write_all(elsewhere, os.pread(self._fd, min(COPY_BYTES, self.size_bytes - start), start), start)
            os.dup2(elsewhere, self._fd, inheritable=False)
        finally:
            os.close(elsewhere)

    def _leave_home(self, error: StoreUnavailable) -> None:
        self._left = error
        self._unlink()

    def _unlink(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._path = None

    def read(self, start: int, size_bytes: int) -> bytes:
        """At most ``size_bytes`` from ``start`` on. Raises StoreUnavailable."""
        with _translated("read"):
            piece = os.pread(self._fd, size_bytes, start)
        if not piece:
            raise StoreUnavailable("spool", "read", f"the file ends at {start} of {self.size_bytes} bytes")
        return piece

    def fileno(self) -> int:
        """The descriptor, for sendfile(2); it stays the same whatever disk the file is on."""
        return self._fd

    def digest(self, algorithm: str) -> Digest:
        """The digest of all that was appended; an algorithm other than the first one reads it again."""
        with self._lock:
            if algorithm == self._hash.name:
                return Digest(algorithm, self._hash.hexdigest())
            hasher = hashlib.new(algorithm)
            for start in range(0, self.size_bytes, COPY_BYTES):
                hasher.update(self.read(start, COPY_BYTES))
            return Digest(algorithm, hasher.hexdigest())

    def keep(self, digest: Digest) -> bool:
        """Gives the file to the store as the blob ``digest``, which it has been shown to have. True when that is done.

        False when the store does not work with files. Raises StoreUnavailable, also when it failed on the way.
        """
        with self._lock:
            if self._left is not None:
                raise self._left
            if self._home is None or self._path is None:
                return False
            self._home.adopt(self._path, digest, self.size_bytes)
            self._path = None
            return True

    def discard(self) -> None:
        """Takes the file's name away; who reads it reads on. Nothing happens when the store has kept it."""
        with self._lock:
            self._unlink()


def _unnamed(directory: Path | None) -> int:
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        return os.dup(file.fileno())


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


@contextlib.contextmanager
def _translated(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise durable.store_failure("spool", operation, error) from error
