"""A blob that is being copied to the local disk, for readers that follow it meanwhile."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from cache.errors import CacheError

READ_BYTES = 1 << 19


class GrowingBlob:
    """A file that grows to ``size_bytes``. Its last byte is shown only when all of it has been verified.

    It can be read as long as anybody holds it, whatever has become of its name.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.written_bytes = 0
        self._fd = -1
        self._complete = False
        self._failure: CacheError | None = None
        self._changed = asyncio.Event()

    def attach(self, path: Path) -> None:
        """Takes ``path``, an empty file, as its own. Blocks."""
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)

    def write(self, data: bytes) -> None:
        """Appends to the file; to be followed by ``show``. Blocks."""
        rest, position = memoryview(data), self.written_bytes
        while rest:
            written = os.pwrite(self._fd, rest, position)
            rest, position = rest[written:], position + written

    def show(self, size_bytes: int) -> None:
        """Lets readers have what was written."""
        self.written_bytes += size_bytes
        self._notify()

    def complete(self) -> None:
        """Says that all is here and right."""
        self._complete = True
        self._notify()

    def fail(self, error: CacheError) -> None:
        """Says that no more will come: whoever needs more gets ``error``. Nothing happens when all is here."""
        if not self._complete:
            self._failure = error
            self._notify()

    async def read(
        self, start: int, stop: int, run: Callable[[Callable[[], bytes]], Awaitable[bytes]]
    ) -> AsyncGenerator[bytes, None]:
        """Bytes, each piece as soon as it is there. ``run`` does file work on a thread. Raises what ``fail`` got."""
        position = start
        while position < stop:
            shown_bytes = self.written_bytes if self._complete else min(self.written_bytes, self.size_bytes - 1)
            size_bytes = min(stop, shown_bytes, position + READ_BYTES) - position
            if size_bytes > 0:
                fd, place = self._fd, position
                piece = await run(lambda: os.pread(fd, size_bytes, place))  # noqa: B023 - awaited at once
                position += len(piece)
                yield piece
            elif self._failure is not None:
                raise self._failure
            else:
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
