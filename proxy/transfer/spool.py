"""A blob on its way in that many can read while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from cache.errors import StoreUnavailable
from cache.oci.digest import Digest
from proxy.transfer.spool_file import SpoolFile

BATCH_BYTES = 512 * 1024
"""So much is collected in memory before it is hashed and written, on a thread, in one go."""
READ_BYTES = 256 * 1024
"""The most that one reader holds in memory."""
PIECE_BYTES = 64 * 1024
"""Pieces are joined until they are this long: a source that drips must not make a list of thousands."""
PART_BYTES = 8 << 20
"""The most that is sent from the file before the reader looks again whether all is well."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InFile:
    """Bytes of a spool that are in its file, ``start`` to ``stop`` (exclusive)."""

    file: SpoolFile
    start: int
    stop: int


class Spool:
    """One blob on its way in: one appends, any number read and follow.

    ``size_bytes`` is None until it is known. Once it is, the last byte is shown only after ``seal``, that is when the
    whole has been verified: a follower of content that turns out to be wrong gets a short body, never a complete one.
    What has come last is read from memory, so that nobody waits for the disk.
    """

    def __init__(self, file: SpoolFile, size_bytes: int | None, threads: Executor) -> None:
        self.size_bytes = size_bytes
        self.received_bytes = 0
        self.sealed = False
        self._file: SpoolFile | None = file
        self._threads = threads
        self._recent: list[bytes] = []
        self._written_bytes = 0
        self._failure: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def buffered_bytes(self) -> int:
        """How much is in memory and not written yet."""
        return self.received_bytes - self._written_bytes

    @property
    def failed(self) -> bool:
        """Whether no more will come."""
        return self._failure is not None

    async def append(self, data: bytes) -> None:
        """Adds ``data`` and lets the readers have it. Raises StoreUnavailable when no disk takes it."""
        if self._recent and len(self._recent[-1]) + len(data) <= PIECE_BYTES:
            self._recent[-1] += data
        else:
            self._recent.append(data)
        self.received_bytes += len(data)
        self._notify()
        if self.buffered_bytes >= BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Returns when all that was appended is hashed and written. Raises StoreUnavailable."""
        if not self._recent:
            return
        try:
            await self._run(self._readable().append, self._recent)
        except BaseException as error:
            # How much of it was written is not known, also when we were cancelled: nothing more may follow.
            self.fail(error if isinstance(error, Exception) else StoreUnavailable("spool", "write", "it was given up"))
            raise
        self._recent = []
        self._written_bytes = self.received_bytes

    async def digest(self, algorithm: str) -> Digest:
        """The digest of all that was appended so far. Raises StoreUnavailable."""
        await self.flush()
        return await self._run(self._readable().digest, algorithm)

    async def keep(self, digest: Digest) -> bool:
        """Gives the file to the store (``SpoolFile.keep``); readers read on."""
        return await self._run(self._readable().keep, digest)

    def seal(self) -> None:
        """Says that all is here and right."""
        self.size_bytes = self.received_bytes
        self.sealed = True
        self._notify()

    def fail(self, error: Exception) -> None:
        """Says that no more will come: every reader raises ``error`` next, and the file goes."""
        if not self.sealed and self._failure is None:
            self._failure = error
            self._file = None
            self._recent = []
            self._notify()

    async def read(self, start: int, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes ``start`` to ``stop`` (exclusive; None = the end, wherever that will be), each as soon as it is
        there. Raises what ``fail`` was given.
        """
        async for part in self.parts(start, stop):
            if isinstance(part, bytes):
                yield part
                continue
            position = part.start
            while position < part.stop:
                piece = await self._run(part.file.read, position, min(READ_BYTES, part.stop - position))
                position += len(piece)
                yield piece

    async def parts(self, start: int, stop: int | None = None) -> AsyncIterator[bytes | InFile]:
        """As ``read``, but what is on the disk comes as a place in the file, from which the kernel can send it."""
        position = start
        while (end := self.size_bytes if stop is None else stop) is None or position < end:
            ready_bytes = min(self._visible_bytes, self._visible_bytes if end is None else end) - position
            if ready_bytes <= 0 or self._failure is not None:
                await self._wait()
                continue
            part = self._part(position, ready_bytes)
            position += len(part) if isinstance(part, bytes) else part.stop - part.start
            yield part
        if end == self.size_bytes:
            await self.wait_sealed()

    async def reaches(self, position: int) -> bool:
        """Whether there are so many bytes, as soon as that is known. Raises what ``fail`` was given."""
        while self._visible_bytes < position and not self.sealed:
            await self._wait()
        return self._visible_bytes >= position

    async def wait_sealed(self) -> None:
        """Returns when all is here and right. Raises what ``fail`` was given."""
        while not self.sealed:
            await self._wait()

    @property
    def _visible_bytes(self) -> int:
        if self.sealed or self.size_bytes is None:
            return self.received_bytes
        return min(self.received_bytes, self.size_bytes - 1)

    def _part(self, position: int, most_bytes: int) -> bytes | InFile:
        """Where to have what comes next from: from memory what is not written yet, the rest from the file."""
        offset = position - self._written_bytes
        for piece in self._recent if offset >= 0 else ():
            if offset < len(piece):
                whole = offset == 0 and len(piece) <= most_bytes
                return piece if whole else piece[offset : offset + most_bytes]
            offset -= len(piece)
        return InFile(
            self._readable(), position, min(position + most_bytes, position + PART_BYTES, self._written_bytes)
        )

    async def _wait(self) -> None:
        """Returns when something has changed. Raises what ``fail`` was given."""
        if self._failure is not None:
            raise self._failure
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _readable(self) -> SpoolFile:
        if self._file is None:
            raise self._failure or StoreUnavailable("spool", "read", "it has ended")
        return self._file

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))
