"""SIGTERM: what runs may end, nothing new begins, and the load balancer is told; then, or when told twice, all ends."""

from __future__ import annotations

import signal
from pathlib import Path

import aiohttp
import pytest

from cache.oci.digest import Digest
from proxy.drain import BALANCER_S, PROBED_S, Drain
from tests.proxy.processes import Process, started
from tests.proxy.running import Script, get, make_image, scripted_upstream

OPTIONS = ("--default-upstream", "up.test", "--log-format", "json")


async def told_to_stop(process: Process) -> None:
    process.popen.send_signal(signal.SIGTERM)
    await process.logged("proxy_draining")


def paused(upstream: Script) -> tuple[str, bytes]:
    """The path of a blob that stops on its way, and its content."""
    image = make_image(layer_bytes=400_000)
    upstream.blobs, upstream.pause_at = {str(image.layer): image.blobs[image.layer]}, 100_000
    return f"/v2/org/app/blobs/{image.layer}", image.blobs[image.layer]


async def test_what_runs_ends_and_nothing_new_begins(tmp_path: Path):
    async with scripted_upstream() as upstream, aiohttp.ClientSession() as session:
        path, data = paused(upstream)
        options = ("--upstream", f"up.test={upstream.url}", "--drain", "10s", *OPTIONS)
        with started(tmp_path, *options) as process:
            assert (await get(f"{process.url}/readyz"))[0] == 200
            begun = await session.post(f"{process.url}/v2/cache/app/blobs/uploads/")
            upload = process.url + begun.headers["Location"]
            async with session.get(process.url + path) as following:
                start = await following.content.readexactly(50_000)
                await told_to_stop(process)

                status, headers, body = await get(f"{process.url}/readyz")
                assert (status, body, headers["Connection"]) == (503, b"draining\n", "close")
                assert (await get(f"{process.url}/healthz"))[0] == 200
                refused = await session.post(f"{process.url}/v2/cache/app/blobs/uploads/")
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")

                chunk = await session.patch(upload, data=b"x")
                assert (chunk.status, "Connection" in chunk.headers) == (202, False)
                finished = await session.put(f"{upload}?digest={Digest.of(b'x')}")
                assert (finished.status, finished.headers["Connection"]) == (201, "close")
                upstream.go_on.set()
                assert start + await following.read() == data
            assert await process.ended() == 0
            assert process.lines("proxy_stopping")[0]["cut_short"] == 0


async def test_what_does_not_end_in_time_is_cut(tmp_path: Path):
    async with scripted_upstream() as upstream, aiohttp.ClientSession() as session:
        path, _ = paused(upstream)
        options = ("--upstream", f"up.test={upstream.url}", "--drain", "200ms", *OPTIONS)
        with started(tmp_path, *options) as process:
            async with session.get(process.url + path) as following:
                await following.content.readexactly(50_000)
                await told_to_stop(process)
                with pytest.raises(aiohttp.ClientError):
                    await following.read()
            assert await process.ended() == 0
            assert process.lines("proxy_stopping")[0]["cut_short"] == 1


async def test_told_a_second_time_it_stops_at_once(tmp_path: Path):
    async with scripted_upstream() as upstream, aiohttp.ClientSession() as session:
        path, _ = paused(upstream)
        options = ("--upstream", f"up.test={upstream.url}", "--drain", "1h", *OPTIONS)
        with started(tmp_path, *options) as process:
            async with session.get(process.url + path) as following:
                await following.content.readexactly(50_000)
                await told_to_stop(process)
                process.popen.send_signal(signal.SIGHUP)
                await process.logged("config_refused")
                assert process.popen.poll() is None
                process.popen.send_signal(signal.SIGINT)
                assert await process.ended() == 0
                with pytest.raises(aiohttp.ClientError):
                    await following.read()


async def test_an_open_upload_is_waited_for(tmp_path: Path):
    async with aiohttp.ClientSession() as session:
        with started(tmp_path, "--drain", "1h", *OPTIONS, "--upstream", "up.test=http://127.0.0.1:1") as process:
            begun = await session.post(f"{process.url}/v2/cache/app/blobs/uploads/")
            await told_to_stop(process)
            with pytest.raises(aiohttp.ClientConnectorError):
                await get(f"{process.url}/healthz")  # nobody balances: no new connections
            place = f"{process.url}{begun.headers['Location']}?digest={Digest.of(b'x')}"
            assert (await session.put(place, data=b"x")).status == 201
            assert await process.ended() == 0


def test_new_connections_are_taken_for_a_while_only_where_a_balancer_asks():
    now = 1000.0
    drain = Drain(lambda: now)
    assert drain.balancer_s(60.0) == 0.0
    drain.probed()
    assert (drain.balancer_s(60.0), drain.balancer_s(4.0)) == (BALANCER_S, 1.0)
    now += PROBED_S
    assert drain.balancer_s(60.0) == 0.0
