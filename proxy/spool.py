"""A file that grows while many read it: the bytes of a blob that is being fetched right now."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

from cache.errors import StoreFull, StoreUnavailable
from cache.oci.digest import Digest

READ_BYTES = 512 * 1024


class Spool:
    """One blob on its way in: one appends, any number read and follow.

    The last byte is shown only after ``seal``, that is when the whole has been verified: a follower of content that
    turns out to be wrong gets a short body, never a complete one. The file has no name, so nothing is left behind
    whatever happens; it goes when the last reader has let go of the spool.
    """

    def __init__(self, directory: Path | None, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.written_bytes = 0
        self._sealed = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)

    async def append(self, data: bytes) -> None:
        """Adds ``data`` and lets the readers have it. Raises StoreUnavailable when the disk does not take it."""
        try:
            await asyncio.to_thread(_write_all, self._fd, data, self.written_bytes)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StoreFull if full else StoreUnavailable)("spool", "write", error.strerror or "") from error
        self.written_bytes += len(data)
        self._notify()

    def seal(self) -> None:
        """Says that all is here and right."""
        self._sealed = True
        self._notify()

    def fail(self, error: Exception) -> None:
        """Says that no more will come: every reader's next wait raises ``error``."""
        if not self._sealed:
            self._failure = error
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def _visible_bytes(self) -> int:
        return self.written_bytes if self._sealed else min(self.written_bytes, self.size_bytes - 1)

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes ``start`` to ``stop`` (exclusive), each piece as soon as it is there.

        Raises what ``fail`` was given.
        """
        position = start
        while position < stop:
            available = min(stop, self._visible_bytes) - position
            if available > 0:
                piece = await asyncio.to_thread(os.pread, self._fd, min(available, READ_BYTES), position)
                position += len(piece)
                yield piece
            elif self._failure is not None:
                raise self._failure
            else:
                await self._changed.wait()
        if stop == self.size_bytes:
            await self.sealed()

    async def sealed(self) -> None:
        """Returns when all is here and right. Raises what ``fail`` was given."""
        while not self._sealed:
            if self._failure is not None:
                raise self._failure
            await self._changed.wait()

    async def digest(self, algorithm: str) -> Digest:
        """The digest of what has been written so far."""
        return await asyncio.to_thread(_digest_of, self._fd, algorithm)


def _digest_of(fd: int, algorithm: str) -> Digest:
    hasher = hashlib.new(algorithm)
    position = 0
    while piece := os.pread(fd, READ_BYTES, position):
        hasher.update(piece)
        position += len(piece)
    return Digest(algorithm, hasher.hexdigest())


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]
