"""The sessions of uploads: whose they are, in which order they take bytes, and when they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cache.errors import StoreFull
from cache.oci.digest import Digest
from proxy.errors import BodyBroken, InvalidRequest, OutOfOrder, TooLarge, Unknown
from proxy.requests.ranges import ByteRange
from proxy.requests.routing import Hosted
from proxy.transfer.uploads import IDLE_S, Body, UploadSessions

HERE, THERE, DIGEST = Hosted("cache/here"), Hosted("cache/there"), Digest.of(b"")


class Blob:
    """An upload that only counts."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.finished = self.closed = 0

    async def append(self, body: Body) -> None:
        async for chunk in body.chunks:
            self.received_bytes += len(chunk)

    async def finish(self, digest: Digest, body: Body) -> None:
        await self.append(body)
        self.finished += 1

    async def close(self) -> None:
        self.closed += 1


def as_it_is(upload: str) -> str:
    return upload


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def body(*pieces: bytes | Exception, start: int | None = None) -> Body:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    size_bytes = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
    place = ByteRange(start, start + size_bytes) if start is not None else None
    return Body(chunks(), size_bytes, place)


async def test_an_upload_belongs_to_a_repository_and_to_who_began_it():
    sessions, blob = UploadSessions(as_it_is), Blob()
    upload = await sessions.add(blob, HERE, "one")
    for route, owner in ((THERE, "one"), (HERE, "other")):
        with pytest.raises(Unknown):
            sessions.received_bytes(upload, route, owner)
        with pytest.raises(Unknown):
            await sessions.finish(upload, route, owner, DIGEST, body())
    await sessions.finish(upload, HERE, "one", DIGEST, body())
    with pytest.raises(Unknown):
        sessions.received_bytes(upload, HERE, "one")
    assert (blob.finished, blob.closed) == (1, 1)


async def test_a_chunk_out_of_order_leaves_the_upload_as_it_was():
    sessions = UploadSessions(as_it_is)
    upload = await sessions.add(Blob(), HERE, "one")
    assert await sessions.append(upload, HERE, "one", body(b"abc", start=0)) == 3
    for start in (0, 2, 4):
        with pytest.raises(OutOfOrder) as refused:
            await sessions.append(upload, HERE, "one", body(b"def", start=start))
        assert refused.value.received_bytes == 3
        with pytest.raises(OutOfOrder):
            await sessions.finish(upload, HERE, "one", DIGEST, body(b"def", start=start))
    contradiction = Body(body(b"de").chunks, 2, ByteRange(3, 6))
    with pytest.raises(InvalidRequest):
        await sessions.append(upload, HERE, "one", contradiction)
    assert await sessions.append(upload, HERE, "one", body(b"def", start=3)) == 6


async def test_who_leaves_in_the_middle_can_come_back_and_a_failure_ends_it():
    sessions, blob = UploadSessions(as_it_is), Blob()
    upload = await sessions.add(blob, HERE, "one")
    with pytest.raises(BodyBroken):
        await sessions.append(upload, HERE, "one", body(b"ab", BodyBroken("gone")))
    with pytest.raises(BodyBroken):
        await sessions.finish(upload, HERE, "one", DIGEST, body(b"c", BodyBroken("gone")))
    assert sessions.received_bytes(upload, HERE, "one") == 3
    with pytest.raises(StoreFull):
        await sessions.append(upload, HERE, "one", body(StoreFull("file:///store", "write")))
    assert blob.closed == 1
    with pytest.raises(Unknown):
        sessions.received_bytes(upload, HERE, "one")


async def test_what_is_left_alone_for_long_is_given_up():
    clock = Clock()
    sessions, idle, busy = UploadSessions(as_it_is, clock), Blob(), Blob()
    await sessions.add(idle, HERE, "one")
    upload = await sessions.add(busy, HERE, "one")
    clock.now = IDLE_S - 1
    await sessions.append(upload, HERE, "one", body(b"a"))
    clock.now = IDLE_S + 1
    await sessions.sweep()
    assert (idle.closed, busy.closed) == (1, 0)


async def test_there_are_only_so_many_and_all_end_with_the_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("proxy.transfer.uploads.MAX_SESSIONS", 3)
    sessions, blobs = UploadSessions(as_it_is), [Blob() for _ in range(3)]
    for blob in blobs:
        await sessions.add(blob, HERE, "one")
    with pytest.raises(TooLarge):
        await sessions.add(Blob(), HERE, "one")
    await sessions.close()
    assert {blob.closed for blob in blobs} == {1}


async def test_one_request_at_a_time():
    sessions, go_on = UploadSessions(as_it_is), asyncio.Event()
    upload = await sessions.add(Blob(), HERE, "one")

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await go_on.wait()
        yield b"b"

    first = asyncio.create_task(sessions.append(upload, HERE, "one", Body(slow(), None, None)))
    await asyncio.sleep(0)
    second = asyncio.create_task(sessions.append(upload, HERE, "one", body(b"c")))
    await asyncio.sleep(0.01)
    assert not second.done()
    go_on.set()
    assert (await first, await second) == (2, 3)
