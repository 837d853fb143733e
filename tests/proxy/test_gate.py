"""What only replicas may ask for, and how they ask each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from cache.memory import MemoryStore
from proxy.cluster.gate import ReplicaGate, replicas_only
from proxy.cluster.replica_key import KEY_BYTES, ReplicaKey
from proxy.cluster.replicas import INTERNAL_PATH, REPLICA_HEADER, Replicas
from proxy.errors import ReplicaGone
from proxy.requests.middleware import answer_errors

PATH = f"{INTERNAL_PATH}echo"


async def echo(request: web.Request) -> web.Response:
    return web.Response(status=202, text=f"{request.method} {request.raw_path} {await request.text()}")


async def broken(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 10
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(0.4)
    return web.Response()


@asynccontextmanager
async def listening(replicas: Replicas) -> AsyncIterator[str]:
    """An application with internal endpoints; gives its URL."""
    gate = ReplicaGate(replicas)
    app = web.Application(middlewares=[answer_errors, gate.know])
    app.on_response_prepare.append(gate.prepare)
    app.router.add_route("*", PATH, replicas_only(replicas, echo))
    app.router.add_get(f"{PATH}/broken", replicas_only(replicas, broken))
    app.router.add_get(f"{PATH}/slow", replicas_only(replicas, slow))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(store: MemoryStore, url: str | None) -> AsyncIterator[Replicas]:
    replicas = Replicas(store, url)
    await replicas.open()
    try:
        yield replicas
    finally:
        await replicas.close()


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Replicas, str]]:
    """A replica, and the URL of another one over the same store."""
    store = MemoryStore()
    async with opened(store, "http://1.test") as one, opened(store, "http://2.test") as other, listening(other) as url:
        yield one, url


async def test_replicas_ask_each_other_and_nobody_else_may():
    async def body() -> AsyncIterator[bytes]:
        yield b"hello"

    async with two() as (asking, url), aiohttp.ClientSession() as stranger:
        async with asking.ask(url, "PUT", f"{PATH}?a=%2F", {}, body()) as reply:
            assert (reply.status, await reply.text()) == (202, f"PUT {PATH}?a=%2F hello")
        forged = ReplicaKey(b"x" * KEY_BYTES).sign("GET", PATH, 1.0)
        for headers in ({}, {REPLICA_HEADER: "no signature"}, {REPLICA_HEADER: forged}):
            async with stranger.get(url + PATH, headers=headers) as reply:
                assert reply.status == 403
                assert (await reply.json())["errors"][0]["code"] == "DENIED"
                assert REPLICA_HEADER not in reply.headers


async def test_a_proxy_that_is_alone_has_no_internal_endpoints():
    async with (
        opened(MemoryStore(), None) as alone,
        listening(alone) as url,
        aiohttp.request("GET", url + PATH, headers={REPLICA_HEADER: "1"}) as reply,
    ):
        assert reply.status == 404
        assert (await reply.json())["errors"]


async def test_a_replica_that_breaks_off_is_gone():
    async with two() as (asking, url):
        with pytest.raises(ReplicaGone):
            async with asking.ask(url, "GET", f"{PATH}/broken", {}) as reply:
                await reply.read()


async def test_a_replica_that_refuses_or_says_nothing_is_gone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("proxy.cluster.replicas.SILENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with two() as (asking, _):
            with pytest.raises(ReplicaGone):
                async with asking.ask(url, "GET", PATH, {}):
                    pass
    async with two() as (asking, _):
        with pytest.raises(ReplicaGone):
            async with asking.ask(url, "GET", PATH, {}):
                pass


async def test_a_replica_that_stands_still_is_gone_and_one_that_is_slow_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("proxy.cluster.replicas.CHECKED_EACH_S", 0.05)
    monkeypatch.setattr("proxy.cluster.replicas.ALIVE_WITHIN_S", 0.5)
    async with two() as (asking, url):
        async with asking.ask(url, "GET", f"{PATH}/slow", {}) as reply:
            assert reply.status == 200
        # For a process that stands still the kernel goes on taking connections.
        with socket.create_server(("127.0.0.1", 0)) as still, pytest.raises(ReplicaGone):
            async with asking.ask(f"http://127.0.0.1:{still.getsockname()[1]}", "GET", PATH, {}):
                pass


async def test_somebody_else_at_a_replicas_address_is_not_believed():
    """Addresses of pods are used again: what answers there may be anything, or a replica of another store."""
    async with two() as (asking, _), two() as (_, elsewhere):
        with pytest.raises(ReplicaGone, match="no replica"):
            async with asking.ask(elsewhere, "GET", PATH, {}):
                pass


async def test_what_fails_in_the_body_is_raised_as_it_is():
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("mine")

    async with two() as (asking, url):
        with pytest.raises(ValueError, match="mine"):
            async with asking.ask(url, "PUT", PATH, {}, body()):
                pass
