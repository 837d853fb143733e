"""Several replicas over one bucket, one cold blob: the upstream is asked once, whoever dies or stalls meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from cache import paths
from cache.oci.digest import Digest
from cache.store import Store, Sweepable, Unfinished
from cache.stores import open_store
from tests.peers import free_port
from tests.proxy.cluster import BucketTrio, Replica, bucket_of, replicas
from tests.s3_servers import S3Server

PIECE_BYTES = 500_000
BEGUN_BYTES = 2 * PIECE_BYTES


class Blob:
    """A blob of the upstream, which it sends in pieces; the second half only when ``go_on`` lets it."""

    def __init__(self, data: bytes, repository: str) -> None:
        self.data = data
        self.digest = Digest.of(data)
        self.path = f"/v2/{repository}/blobs/{self.digest}"
        self.gets: list[str] = []
        self.heads = 0
        self.allowed: set[str] = set()
        self.go_on = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.allowed and request.headers.get("Authorization") not in self.allowed:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="upstream"'})
        if request.method == "HEAD":
            self.heads += 1
            return web.Response(headers={"Content-Length": str(len(self.data))})
        self.gets.append(request.headers.get("Range", ""))
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(self.data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        await response.prepare(request)
        for position in range(start, len(self.data), PIECE_BYTES):
            if position >= len(self.data) // 2:
                await self.go_on.wait()
            await response.write(self.data[position : position + PIECE_BYTES])
        return response


@dataclass
class Upstream:
    """A registry with the blobs that it is given."""

    url: str = ""
    blobs: dict[str, Blob] = field(default_factory=dict)

    def add(self, seed: int, size_mib: int = 6, repository: str = "team/app") -> Blob:
        """A new blob."""
        blob = Blob(random.Random(seed).randbytes(1 << 20) * size_mib, repository)
        self.blobs[blob.path] = blob
        return blob

    async def answer(self, request: web.Request) -> web.StreamResponse:
        blob = self.blobs.get(request.path)
        return web.Response(body=b"{}") if blob is None else await blob.answer(request)


@asynccontextmanager
async def running_upstream(port: int) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", upstream.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    upstream.url = f"http://127.0.0.1:{port}"
    try:
        yield upstream
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Cluster:
    """Three replicas that soon see when one of them stands still, their upstream, and a view of their store."""

    upstream: Upstream
    replicas: list[Replica]
    store: Store

    async def leader(self, blob: Blob) -> Replica:
        """The replica that fetches the blob, once there is one."""
        for _ in range(400):
            record = await self.store.get(paths.lease(paths.fill_lease(blob.digest)))
            if record is not None:
                holder = json.loads(record.value)["holder"]
                return next(replica for replica in self.replicas if replica.url == holder)
            await asyncio.sleep(0.05)
        raise TimeoutError("no replica fills the blob")

    async def left(self) -> tuple[list[str], Unfinished]:
        """Leases, and blobs on their way in."""
        assert isinstance(self.store, Sweepable)
        return [name async for name in self.store.names("leases/fill/")], await self.store.unfinished()

    async def settle(self) -> None:
        """Returns when all is done and nothing is left behind."""
        for _ in range(200):
            if (left := await self.left()) == ([], Unfinished()):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(left)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(bucket_trio: BucketTrio, seaweedfs_server: S3Server) -> AsyncIterator[Cluster]:
    async with running_upstream(bucket_trio.upstream_port) as upstream:
        with bucket_of(seaweedfs_server):
            store = open_store(bucket_trio.store_url, os.environ)
            yield Cluster(upstream, bucket_trio.replicas, store)
        await store.close()


async def read(replica: Replica, blob: Blob, *, begun: asyncio.Event | None = None, **headers: str) -> Digest:
    """The digest of the blob through one replica, on a connection of its own."""
    got, size_bytes = hashlib.sha256(), 0
    async with aiohttp.ClientSession() as session, session.get(replica.url + blob.path, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        async for chunk in reply.content.iter_any():
            got.update(chunk)
            size_bytes += len(chunk)
            if begun is not None and size_bytes > BEGUN_BYTES:
                begun.set()
    return Digest("sha256", got.hexdigest())


async def begin_to_read(started: list[Replica], blob: Blob) -> list[asyncio.Task[Digest]]:
    """A client of each replica, once all have got some of the blob."""
    begun = [asyncio.Event() for _ in started]
    clients = [asyncio.create_task(read(replica, blob, begun=begun[n])) for n, replica in enumerate(started)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(event.wait() for event in begun))
    return clients


@pytest.mark.asyncio(loop_scope="module")
async def test_the_upstream_is_asked_once_for_all_replicas(cluster: Cluster) -> None:
    """The blob is larger than all that may wait in memory, and goes into the bucket in many parts."""
    blob = cluster.upstream.add(1, size_mib=104)
    clients = await begin_to_read(cluster.replicas[:2], blob)
    blob.go_on.set()
    async with asyncio.timeout(60):
        assert set(await asyncio.gather(*clients)) == {blob.digest}
    assert (blob.gets, blob.heads) == ([""], 1)
    await cluster.settle()
    assert await cluster.store.stat(blob.digest) == len(blob.data)


@pytest.mark.asyncio(loop_scope="module")
async def test_when_the_leader_dies_another_goes_on_where_it_stands(cluster: Cluster) -> None:
    blob = cluster.upstream.add(2)
    clients = await begin_to_read(cluster.replicas, blob)
    leader = await cluster.leader(blob)
    leader.kill()
    with pytest.raises(aiohttp.ClientError):
        await clients.pop(cluster.replicas.index(leader))
    blob.go_on.set()
    async with asyncio.timeout(30):
        assert set(await asyncio.gather(*clients)) == {blob.digest}
    assert len(blob.gets) == 2
    assert int(blob.gets[1].removeprefix("bytes=").rstrip("-")) > BEGUN_BYTES
    await cluster.settle()
    leader.restart()
    await asyncio.to_thread(leader.wait)


@pytest.mark.asyncio(loop_scope="module")
async def test_when_the_leader_stalls_another_goes_on_and_the_leader_harms_nobody(cluster: Cluster) -> None:
    """One follows it already, another's client comes only when it stands still. Then it goes on where it was."""
    blob = cluster.upstream.add(3)
    first, second, third = cluster.replicas
    stalled = await begin_to_read([first], blob)
    clients = await begin_to_read([second], blob)
    assert await cluster.leader(blob) is first
    first.freeze()
    try:
        blob.go_on.set()
        async with asyncio.timeout(30):
            clients.append(asyncio.create_task(read(third, blob)))
            assert set(await asyncio.gather(*clients)) == {blob.digest}
        assert len(blob.gets) == 2
    finally:
        first.thaw()
    async with asyncio.timeout(30):
        assert await stalled[0] == blob.digest
    await cluster.settle()
    async with asyncio.timeout(30):
        assert {await read(replica, blob) for replica in cluster.replicas} == {blob.digest}
    assert len(blob.gets) == 2
    assert first.lines("blob_fetch_broke") == first.lines("blob_fetch_failed") == []


@pytest.mark.asyncio(loop_scope="module")
async def test_who_may_not_read_gets_nothing_from_another_replicas_fill(cluster: Cluster) -> None:
    blob = cluster.upstream.add(4, repository="team/secret")
    good, bad = (aiohttp.encode_basic_auth("ann", word) for word in ("right", "wrong"))
    blob.allowed = {good}
    one, two, _ = cluster.replicas
    begun = asyncio.Event()
    client = asyncio.create_task(read(one, blob, begun=begun, Authorization=good))
    async with asyncio.timeout(20):
        await begun.wait()
    async with aiohttp.ClientSession() as session:
        async with session.get(two.url + blob.path, headers={"Authorization": bad}) as reply:
            assert reply.status in (401, 403, 404)
        for path in (blob.path, f"/_crossdock/v1/fills/{blob.digest}"):
            async with session.get(one.url + path) as reply:
                assert reply.status in (401, 403)
    blob.go_on.set()
    assert await client == blob.digest
    assert await read(two, blob, Authorization=good) == blob.digest
    assert len(blob.gets) == 1


async def test_a_store_that_takes_no_lease_costs_only_the_sharing(tmp_path: Path) -> None:
    async with running_upstream(free_port()) as upstream:
        blob = upstream.add(5)
        blob.go_on.set()
        options = (f"--upstream=up.test={upstream.url}", "--default-upstream=up.test")
        with replicas(tmp_path, 1, *options) as (one,):
            records = tmp_path / "store/v1/records"
            records.mkdir(parents=True, exist_ok=True)
            (records / "leases").write_text("no directory")
            assert await read(one, blob) == blob.digest
            assert blob.gets == [""]
