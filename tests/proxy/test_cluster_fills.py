"""Several replicas, one cold blob: the upstream is asked for it once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cache.oci.digest import Digest
from tests.peers import free_port
from tests.proxy.cluster import Replica, replicas

BLOB = random.Random(9).randbytes(6_000_000)
DIGEST = Digest.of(BLOB)
PATH = f"/v2/team/app/blobs/{DIGEST}"


@dataclass
class Upstream:
    """A registry with one blob, which it sends in pieces; ``go_on`` lets it go past the first half."""

    url: str = ""
    gets: list[str] = field(default_factory=list)
    heads: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    allowed: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != PATH:
            return web.Response(body=b"{}")
        if self.allowed and request.headers.get("Authorization") not in self.allowed:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="upstream"'})
        if request.method == "HEAD":
            self.heads += 1
            return web.Response(headers={"Content-Length": str(len(BLOB))})
        self.gets.append(request.headers.get("Range", ""))
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(BLOB) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
        await response.prepare(request)
        for position in range(start, len(BLOB), 500_000):
            if position >= 3_000_000:
                await self.go_on.wait()
            await response.write(BLOB[position : position + 500_000])
        return response


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    upstream, port = Upstream(), free_port()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", upstream.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    upstream.url = f"http://127.0.0.1:{port}"
    try:
        yield upstream
    finally:
        upstream.go_on.set()
        await runner.cleanup()


def options(upstream: Upstream) -> tuple[str, ...]:
    return (f"--upstream=up.test={upstream.url}", "--default-upstream=up.test")


async def read(replica: Replica, *, begun: asyncio.Event | None = None, **headers: str) -> bytes:
    """The blob through one replica, on a connection of its own."""
    got = bytearray()
    async with aiohttp.ClientSession() as session, session.get(replica.url + PATH, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        async for chunk in reply.content.iter_any():
            got += chunk
            if begun is not None and len(got) > 1_000_000:
                begun.set()
    return bytes(got)


async def until_led(started: list[Replica]) -> Replica:
    """The replica that fills, once there is one."""
    for _ in range(200):
        for replica in started:
            async with aiohttp.ClientSession() as session, session.get(replica.url + "/metrics") as reply:
                if 'proxy_cluster_fills_total{role="led"}' in await reply.text():
                    return replica
        await asyncio.sleep(0.05)
    raise TimeoutError("no replica fills the blob")


def left(tmp: Path) -> list[str]:
    """What should be gone: leases, and blobs on their way in."""
    kept = tmp / "store/v1"
    files = [*kept.glob("records/leases/**/*"), *kept.glob("incoming/*")]
    return [str(path) for path in files if path.is_file()]


async def settle(tmp: Path) -> None:
    for _ in range(100):
        if not left(tmp):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(left(tmp))


async def test_the_upstream_is_asked_once_for_all_replicas(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        with replicas(tmp_path, 3, *options(upstream)) as started:
            begun = [asyncio.Event() for _ in started]
            clients = [asyncio.create_task(read(started[n % 3], begun=begun[n % 3])) for n in range(30)]
            async with asyncio.timeout(20):
                for event in begun:  # every replica's clients have bytes while the upstream holds the rest back
                    await event.wait()
            upstream.go_on.set()
            async with asyncio.timeout(30):
                assert set(await asyncio.gather(*clients)) == {BLOB}
            assert upstream.gets == [""]
            await settle(tmp_path)


async def test_when_the_leader_dies_another_goes_on_where_it_stands(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        with replicas(tmp_path, 3, *options(upstream)) as started:
            first = asyncio.create_task(read(started[0]))
            leader = await until_led(started)
            others = [replica for replica in started if replica is not leader]
            begun = [asyncio.Event() for _ in others]
            clients = [asyncio.create_task(read(replica, begun=begun[n])) for n, replica in enumerate(others)]
            async with asyncio.timeout(20):
                for event in begun:
                    await event.wait()
            leader.process.kill()
            with pytest.raises(aiohttp.ClientError):
                await first
            upstream.go_on.set()
            async with asyncio.timeout(30):
                assert set(await asyncio.gather(*clients)) == {BLOB}
            assert len(upstream.gets) == 2
            assert int(upstream.gets[1].removeprefix("bytes=").rstrip("-")) > 1_000_000
            await settle_but_incoming(tmp_path)


async def settle_but_incoming(tmp: Path) -> None:
    """What a killed replica was writing stays until it is swept; leases do not."""
    for _ in range(100):
        if not [path for path in left(tmp) if "/leases/" in path]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(left(tmp))


async def test_who_may_not_read_gets_nothing_from_another_replicas_fill(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        good, bad = (aiohttp.encode_basic_auth("ann", word) for word in ("right", "wrong"))
        upstream.allowed = {good}
        with replicas(tmp_path, 2, *options(upstream)) as (one, two):
            begun = asyncio.Event()
            client = asyncio.create_task(read(one, begun=begun, Authorization=good))
            async with asyncio.timeout(20):
                await begun.wait()
            async with aiohttp.ClientSession() as session:
                async with session.get(two.url + PATH, headers={"Authorization": bad}) as reply:
                    assert reply.status in (401, 403, 404)
                for path in (PATH, f"/_crossdock/v1/fills/{DIGEST}"):
                    async with session.get(one.url + path.replace("/v2/team", "/v2/team")) as reply:
                        assert reply.status in (401, 403)
            upstream.go_on.set()
            assert await client == BLOB
            assert await read(two, Authorization=good) == BLOB
            assert len(upstream.gets) == 1


async def test_a_bucket_that_takes_no_lease_costs_only_the_sharing(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        upstream.go_on.set()
        with replicas(tmp_path, 2, *options(upstream)) as (one, _):
            records = tmp_path / "store/v1/records"
            records.mkdir(parents=True, exist_ok=True)
            (records / "leases").write_text("no directory")
            assert await read(one) == BLOB
            assert upstream.gets == [""]
