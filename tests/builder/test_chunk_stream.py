"""Bytes from the event loop to a thread: all of them, in order, no more ahead than allowed, and no wait without end."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from builder.errors import BuildError
from builder.layer.chunk_stream import ChunkStream, read_in_thread, streamed
from builder.layer.decompress import Readable

CHUNK = bytes(1000)


class Source:
    """Chunks of a thousand bytes without end; ``given`` says how many."""

    given = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            self.given += 1
            yield CHUNK
            await asyncio.sleep(0)


async def silence() -> AsyncIterator[bytes]:
    yield CHUNK
    await asyncio.Event().wait()


def read_all(stream: Readable, size: int = 777) -> str:
    digest = hashlib.sha256()
    while data := stream.read(size):
        assert len(data) <= size
        digest.update(data)
    return digest.hexdigest()


async def test_all_bytes_come_in_order():
    chance = random.Random(6)
    pieces = [chance.randbytes(chance.choice([1, 700, 70_000])) for _ in range(300)]

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            if chance.random() < 0.2:
                await asyncio.sleep(0.001)

    stream = ChunkStream(ahead_bytes=100_000)
    filling = asyncio.create_task(stream.fill(chunks()))
    assert await read_in_thread(stream, lambda: read_all(stream)) == hashlib.sha256(b"".join(pieces)).hexdigest()
    await filling


async def test_no_more_is_fetched_than_there_is_room_for():
    source = Source()
    stream = ChunkStream(ahead_bytes=10_000)
    filling = asyncio.create_task(stream.fill(source.chunks()))
    for read, given in [(0, 10), (4, 10), (1, 15), (4, 15), (1, 20)]:  # fetching goes on when half was read
        for _ in range(read):
            assert await asyncio.to_thread(stream.read, 1000) == CHUNK
        for _ in range(100):
            await asyncio.sleep(0)
        assert source.given == given
    filling.cancel()
    await asyncio.wait([filling])


async def test_what_breaks_the_chunks_reaches_the_reader_behind_what_came():
    async def chunks() -> AsyncIterator[bytes]:
        yield CHUNK
        raise LookupError("gone")

    async with streamed(chunks()) as stream:
        assert await asyncio.to_thread(stream.read, 2000) == CHUNK
        with pytest.raises(LookupError, match="gone"):
            await asyncio.to_thread(stream.read, 2000)


async def test_a_read_that_waits_is_ended():
    async with streamed(silence()) as stream:
        reading = asyncio.create_task(read_in_thread(stream, lambda: read_all(stream)))
        await asyncio.sleep(0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(BuildError, match="interrupted"):
            stream.read(1)
