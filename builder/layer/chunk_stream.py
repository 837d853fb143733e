"""Bytes that come on the event loop, read from a thread: they are fetched ahead of it, as far as there is room."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from builder.errors import BuildError

AHEAD_BYTES = 8 << 20
"""So much may wait for the reader; more is fetched when half of it was read."""
T = TypeVar("T")


class Abortable(Protocol):
    """A stream whose reads can be ended from another thread: they raise BuildError then."""

    def read(self, size: int, /) -> bytes: ...
    def abort(self) -> None: ...


class ChunkStream:
    """Filled and aborted on the event loop, read from one thread."""

    def __init__(self, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._ahead_bytes = ahead_bytes
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._over = False
        self._error: Exception | None = None
        self._data = memoryview(b"")

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Gives the reader all ``chunks``, and then their end or the exception that ended them."""
        try:
            async for chunk in chunks:
                await self._put(chunk)
        except Exception as error:
            self._end(error)
        else:
            self._end(None)

    def read(self, size: int, /) -> bytes:
        """From 1 to ``size`` bytes, none at the end. Raises what the chunks have raised."""
        if not self._data:
            self._data = memoryview(self._next())
        data, self._data = self._data[:size], self._data[size:]
        return bytes(data)

    def abort(self) -> None:
        """Ends reads, also one that waits, with BuildError."""
        with self._changed:
            self._waiting.clear()
        self._end(BuildError("interrupted"))

    async def _put(self, chunk: bytes) -> None:
        with self._changed:
            self._waiting.append(chunk)
            self._waiting_bytes += len(chunk)
            self._changed.notify()
        if self._waiting_bytes >= self._ahead_bytes:
            self._room.clear()
            while self._waiting_bytes > self._ahead_bytes // 2:
                await self._room.wait()
                self._room.clear()

    def _end(self, error: Exception | None) -> None:
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify()

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if self._waiting:
                before = self._waiting_bytes
                chunk = self._waiting.popleft()
                self._waiting_bytes -= len(chunk)
                makes_room = self._waiting_bytes <= self._ahead_bytes // 2 < before
            elif self._error is not None:
                raise self._error
            else:
                return b""
        if makes_room:
            self._loop.call_soon_threadsafe(self._room.set)
        return chunk


@asynccontextmanager
async def streamed(chunks: AsyncIterator[bytes]) -> AsyncIterator[ChunkStream]:
    """The chunks as a stream, which is filled for as long as the block runs."""
    stream = ChunkStream()
    filling = asyncio.create_task(stream.fill(chunks))
    try:
        yield stream
    finally:
        stream.abort()
        filling.cancel()
        await asyncio.wait([filling])


async def read_in_thread(stream: Abortable, read: Callable[[], T], threads: Executor | None = None) -> T:
    """What ``read`` makes of the stream in a thread. It has ended when this returns or raises, or is cancelled."""
    reading = asyncio.get_running_loop().run_in_executor(threads, read)
    try:
        await asyncio.wait([reading])
    finally:
        stream.abort()
        await asyncio.wait([reading])  # it must not write where things are being removed
        reading.exception()  # to ask is to have seen it: who was cancelled does not
    return reading.result()
