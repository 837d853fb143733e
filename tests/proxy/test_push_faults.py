"""Pushing through to an upstream that fails: what it had to take, it has in the end, and the client hears the truth."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cache.disk.filesystem import FilesystemStore
from cache.errors import StoreFull
from cache.oci import media_types
from cache.oci.digest import Digest
from proxy.transfer.spool import BATCH_BYTES
from tests.fakes.tokens import start_token_server
from tests.proxy.leaks import nothing_left, until
from tests.proxy.running import UPSTREAM, Proxy, get, make_image, running_proxy
from tests.proxy.upload_upstream import (
    Fault,
    UploadUpstream,
    answer,
    lose_answer,
    lose_session,
    reset,
    upload_upstream,
    wait,
)

DATA = random.Random(11).randbytes(3_000_000)
DIGEST = Digest.of(DATA)
UPLOADS = "/v2/org/app/blobs/uploads/"
WAYS = ["stream", "chunks", "whole", "post"]


@pytest.fixture
async def upstream() -> AsyncIterator[UploadUpstream]:
    async with upload_upstream() as running:
        yield running


@pytest.fixture
async def proxy(upstream: UploadUpstream, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with running_proxy(tmp_path, {UPSTREAM: upstream.url}) as running, nothing_left(tmp_path / "store"):
        yield running


async def push(proxy: Proxy, way: str, data: bytes = DATA, digest: Digest | None = None) -> tuple[int, str]:
    """Pushes the blob; the status of the last reply, and the code when it is an error."""
    asked = digest or Digest.of(data)
    async with aiohttp.ClientSession(proxy.url) as session:
        if way == "post":
            async with session.post(f"{UPLOADS}?digest={asked}", data=io.BytesIO(data)) as response:
                return await said(response)
        async with session.post(UPLOADS) as response:
            if response.status != 202:
                return await said(response)
            location = response.headers["Location"]
        step = (len(data) // 3 if way == "chunks" else len(data)) + 1
        for start in range(0, len(data), step) if way != "whole" else ():
            part = data[start : start + step]
            headers = {"Content-Range": f"{start}-{start + len(part) - 1}"} if way == "chunks" else {}
            body = io.BytesIO(part) if way == "chunks" else pieces(part)
            async with session.patch(location, data=body, headers=headers) as response:
                if response.status != 202:
                    return await said(response)
                assert response.headers["Range"] == f"0-{start + len(part) - 1}"
                location = response.headers["Location"]
        async with session.put(
            f"{location}?digest={asked}", data=io.BytesIO(data if way == "whole" else b"")
        ) as response:
            return await said(response)


async def said(response: aiohttp.ClientResponse) -> tuple[int, str]:
    assert "session-" not in str(response.headers)
    return response.status, (await response.json())["errors"][0]["code"] if response.status >= 400 else ""


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def assert_pushed(proxy: Proxy, upstream: UploadUpstream, data: bytes = DATA) -> None:
    """The upstream has exactly these bytes, and the proxy serves them without it."""
    digest = Digest.of(data)
    assert upstream.blobs == {str(digest): data}
    assert not upstream.sessions
    assert (await get(f"{proxy.url}/v2/org/app/blobs/{digest}"))[2] == data
    assert not upstream.count("GET", f"/blobs/{digest}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size_bytes", [0, 1, 2, 3_000_000])
async def test_every_way_to_push(proxy: Proxy, upstream: UploadUpstream, way: str, size_bytes: int):
    assert await push(proxy, way, DATA[:size_bytes]) == (201, "")
    assert upstream.blobs == {str(Digest.of(DATA[:size_bytes])): DATA[:size_bytes]}
    assert not upstream.sessions
    assert upstream.received_bytes == size_bytes
    assert upstream.count("POST") == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reports", [True, False])
async def test_a_connection_that_breaks_on_the_way(proxy: Proxy, upstream: UploadUpstream, way: str, reports: bool):
    """It goes on where the upstream says that it stands; else it begins anew."""
    upstream.reports = reports
    method = "PUT" if way in ("whole", "post") else "PATCH"
    upstream.faults[method] = [reset(1_000_000)]
    assert await push(proxy, way) == (201, "")
    assert upstream.received_bytes == len(DATA) + (0 if reports else 1_000_000)
    assert upstream.count("POST") == (1 if reports else 2)
    upstream.sessions.clear()  # the one that broke without a report
    await assert_pushed(proxy, upstream)


TEMPORARY: dict[str, list[Fault]] = {
    "burst": [answer(503), answer(500)],
    "asked to wait": [answer(429, "TOOMANYREQUESTS", Retry_After="0")],
    "session lost": [lose_session()],
    "reset at once": [reset(0), reset(0)],
}


@pytest.mark.parametrize(
    ("method", "way", "fault"),
    [
        *itertools.product(["POST", "PUT"], ["stream", "whole"], ["burst", "asked to wait"]),
        *itertools.product(["PUT"], ["stream", "whole"], ["session lost", "reset at once"]),
        *itertools.product(["PATCH"], ["stream"], TEMPORARY),
    ],
)
async def test_what_is_temporary_is_not_the_clients_business(
    proxy: Proxy, upstream: UploadUpstream, method: str, way: str, fault: str
):
    upstream.faults[method] = list(TEMPORARY[fault])
    assert await push(proxy, way) == (201, "")
    upstream.sessions.clear()
    await assert_pushed(proxy, upstream)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_failure_that_does_not_end_is_told(proxy: Proxy, upstream: UploadUpstream, method: str):
    upstream.faults[method] = [answer(503, Retry_After="0")] * 20
    assert (await push(proxy, "whole"))[0] == 502
    assert upstream.count(method) == 5
    upstream.faults.clear()
    assert await push(proxy, "whole") == (201, "")


async def test_asked_to_wait_longer_than_anybody_would(proxy: Proxy, upstream: UploadUpstream):
    upstream.faults["PUT"] = [answer(429, "TOOMANYREQUESTS", Retry_After="3600")]
    assert await push(proxy, "whole") == (429, "TOOMANYREQUESTS")
    assert upstream.count("PUT") == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("status", "code"), [(403, "DENIED"), (413, "SIZE_INVALID"), (400, "BLOB_UPLOAD_INVALID")])
async def test_a_refusal_is_the_clients(proxy: Proxy, upstream: UploadUpstream, way: str, status: int, code: str):
    upstream.faults = {method: [answer(status, code)] * 10 for method in ("PATCH", "PUT")}
    assert await push(proxy, way) == (status, code)
    assert not upstream.blobs
    assert (await get(f"{proxy.url}/v2/org/app/blobs/{DIGEST}"))[0] == 404
    await until(lambda: not upstream.sessions)


async def test_a_refusal_is_heard_before_all_was_sent(proxy: Proxy, upstream: UploadUpstream):
    upstream.faults["PATCH"] = [answer(403, "DENIED")]

    async def slowly() -> AsyncIterator[bytes]:
        while True:  # for ever, unless the reply comes
            yield DATA[:1000]
            await asyncio.sleep(0.001)

    async with aiohttp.ClientSession(proxy.url) as session:
        async with session.post(UPLOADS) as response:
            location = response.headers["Location"]
        async with asyncio.timeout(10), session.patch(location, data=slowly()) as response:
            assert await said(response) == (403, "DENIED")
        async with session.get(location) as response:
            assert response.status == 404


async def test_a_token_that_ends_on_the_way(proxy: Proxy, upstream: UploadUpstream):
    async with start_token_server() as tokens:
        challenge = f'Bearer realm="{tokens.url}",service="registry.tests"'
        upstream.faults["PATCH"] = [answer(401, "UNAUTHORIZED", WWW_Authenticate=challenge)]
        assert await push(proxy, "stream") == (201, "")
        await assert_pushed(proxy, upstream)
        upstream.faults["PATCH"] = [answer(401, "UNAUTHORIZED", WWW_Authenticate=challenge)] * 9
        assert await push(proxy, "stream", DATA[1:]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("way", ["stream", "chunks"])
@pytest.mark.parametrize("least", [None, 700_000])
async def test_an_upstream_that_takes_small_chunks_only(
    proxy: Proxy, upstream: UploadUpstream, way: str, least: int | None
):
    upstream.streams, upstream.chunk_limit, upstream.least_chunk = False, 1_100_000, least
    assert await push(proxy, way) == (201, "")
    upstream.sessions.clear()
    await assert_pushed(proxy, upstream)
    sessions = upstream.count("POST")
    assert await push(proxy, way, DATA[::-1]) == (201, "")
    assert upstream.count("POST") == sessions + 1, "what was learned is used"
    assert upstream.blobs[str(Digest.of(DATA[::-1]))] == DATA[::-1]


async def test_the_upload_runs_beside_the_clients_and_is_acknowledged_when_it_is_done(
    proxy: Proxy, upstream: UploadUpstream, tmp_path: Path
):
    reading, taking = asyncio.Event(), asyncio.Event()
    upstream.faults = {"PATCH": [wait(reading)], "PUT": [wait(taking)]}
    async with aiohttp.ClientSession(proxy.url) as session:
        async with session.post(UPLOADS) as response:
            location = response.headers["Location"]
        async with session.patch(location, data=DATA[:1000]) as response:
            assert response.status == 202
        (spool,) = (tmp_path / "store/v1/incoming").iterdir()
        assert spool.read_bytes() == DATA[:1000], "what was acknowledged is not in memory any more"
        await until(lambda: upstream.count("PATCH") == 1)
        async with session.patch(location, data=io.BytesIO(DATA[1000:])) as response:
            assert response.status == 202
        assert upstream.received_bytes == 0
        put = asyncio.create_task(finish(session, location))
        reading.set()
        await until(lambda: upstream.count("PUT") == 1)
        assert upstream.received_bytes == len(DATA)
        await asyncio.sleep(0.05)
        assert not put.done()
        assert (await get(f"{proxy.url}/v2/org/app/blobs/{DIGEST}"))[0] == 404
        taking.set()
        assert await put == 201
    assert upstream.count("PATCH") == 1
    await assert_pushed(proxy, upstream)


async def finish(session: aiohttp.ClientSession, location: str, digest: Digest = DIGEST, data: bytes = b"") -> int:
    async with session.put(f"{location}?digest={digest}", data=data) as response:
        return response.status


@pytest.mark.parametrize("way", WAYS)
async def test_a_wrong_digest(proxy: Proxy, upstream: UploadUpstream, way: str):
    assert await push(proxy, way, DATA, Digest.of(b"other")) == (400, "DIGEST_INVALID")
    await until(lambda: not upstream.sessions)
    assert not upstream.blobs


@pytest.mark.parametrize("way", WAYS)
async def test_sha512(proxy: Proxy, upstream: UploadUpstream, way: str):
    digest = Digest.of(DATA, "sha512")
    assert await push(proxy, way, DATA, digest) == (201, "")
    assert upstream.blobs == {str(digest): DATA}
    assert (await get(f"{proxy.url}/v2/org/app/blobs/{digest}"))[2] == DATA


async def test_a_cancelled_upload_is_cancelled_upstream(proxy: Proxy, upstream: UploadUpstream):
    async with aiohttp.ClientSession(proxy.url) as session:
        async with session.post(UPLOADS) as response:
            location = response.headers["Location"]
        async with session.patch(location, data=io.BytesIO(DATA)) as response:
            assert response.status == 202
        async with session.delete(location) as response:
            assert response.status == 204
        assert not upstream.sessions
        assert await finish(session, location) == 404


async def leave(proxy: Proxy, method: str, target: str) -> None:
    """Sends a part of a body, then breaks the connection."""
    _, writer = await asyncio.open_connection(*proxy.host.split(":"))
    head = f"{method} {target} HTTP/1.1\r\nHost: {proxy.host}\r\nContent-Length: {len(DATA)}\r\n\r\n"
    writer.write(head.encode() + DATA[:1_200_000])
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_client_that_leaves_comes_back(proxy: Proxy, upstream: UploadUpstream, method: str):
    async with aiohttp.ClientSession(proxy.url) as session:
        async with session.post(UPLOADS) as response:
            location = response.headers["Location"]
        await leave(proxy, method, f"{location}?digest={DIGEST}")

        async def held() -> int:
            async with session.get(location) as response:
                assert response.status == 204
                return int(response.headers["Range"].partition("-")[2]) + 1

        async with asyncio.timeout(10):
            while (received := await held()) < 1_000_000 or received != await held():
                await asyncio.sleep(0.01)
        async with session.patch(
            location,
            data=io.BytesIO(DATA[received - 1 :]),
            headers={"Content-Range": f"{received - 1}-{len(DATA) - 1}"},
        ) as response:
            assert response.status == 416
        async with session.patch(
            location, data=io.BytesIO(DATA[received:]), headers={"Content-Range": f"{received}-{len(DATA) - 1}"}
        ) as response:
            assert response.status == 202
        assert await finish(session, location) == 201
    await until(lambda: not upstream.sessions)
    assert upstream.received_bytes < 2 * len(DATA), "the upload that broke is not carried to its end as well"
    await assert_pushed(proxy, upstream)


@pytest.mark.parametrize("fails", ["incoming", "adopt"])
async def test_a_store_that_is_full_costs_the_caching_and_not_the_push(
    upstream: UploadUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
):
    def full(*_: object) -> None:
        raise StoreFull("file:///store", "be written")

    store = FilesystemStore(tmp_path / "store")
    monkeypatch.setattr(store, fails, full)
    async with (
        running_proxy(tmp_path, {UPSTREAM: upstream.url}, store=store) as proxy,
        nothing_left(tmp_path / "store"),
    ):
        assert await push(proxy, "stream") == (201, "")
        assert upstream.blobs == {str(DIGEST): DATA}
        assert await store.stat(DIGEST) is None


async def test_many_pushes_at_a_slow_upstream_stay_in_bounded_memory(proxy: Proxy, upstream: UploadUpstream):
    """What the upstream has not taken yet is on the disk: four pushes of six megabytes each hold little."""
    go_on, size_bytes, count = asyncio.Event(), 12 * BATCH_BYTES, 4
    upstream.faults["PATCH"] = [wait(go_on)] * count
    blobs = [bytes([seed]) * size_bytes for seed in range(count)]

    async def one(session: aiohttp.ClientSession, blob: bytes) -> str:
        async with session.post(UPLOADS) as response:
            location = response.headers["Location"]
        async with session.patch(location, data=pieces(blob)) as response:
            assert response.status == 202
            return location

    async with aiohttp.ClientSession(proxy.url) as session:
        tracemalloc.start()
        try:
            locations = [await one(session, blob) for blob in blobs]
            assert tracemalloc.get_traced_memory()[1] < (count + 1) * 3 * BATCH_BYTES
        finally:
            tracemalloc.stop()
            go_on.set()
        for location, blob in zip(locations, blobs, strict=True):
            assert await finish(session, location, Digest.of(blob)) == 201
    assert upstream.blobs == {str(Digest.of(blob)): blob for blob in blobs}


async def test_an_upstream_that_does_not_mount_is_not_asked_for_ever(proxy: Proxy, upstream: UploadUpstream):
    async with aiohttp.ClientSession(proxy.url) as session:
        for number in range(5):
            upstream.faults["POST"] = [answer(405, "UNSUPPORTED")] if number < 3 else []
            async with session.post(f"{UPLOADS}?mount={DIGEST}&from=org/base") as response:
                assert response.status == 202
            async with session.delete(response.headers["Location"]) as response:
                assert response.status == 204
    assert sum(method == "POST" and "mount=" in path for method, path in upstream.seen) == 3


async def put_manifest(proxy: Proxy, tag: str, raw: bytes) -> tuple[int, str]:
    headers = {"Content-Type": media_types.OCI_MANIFEST}
    url = f"{proxy.url}/v2/org/app/manifests/{tag}"
    async with aiohttp.ClientSession() as session, session.put(url, data=raw, headers=headers) as response:
        return await said(response)


async def test_a_manifest_is_sent_again_when_the_failure_is_temporary(proxy: Proxy, upstream: UploadUpstream):
    upstream.faults["PUT"] = [answer(503), answer(429, "TOOMANYREQUESTS", Retry_After="0")]
    raw = make_image().manifest.raw
    assert await put_manifest(proxy, "1", raw) == (201, "")
    assert upstream.manifests == {"1": raw}
    assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[2] == raw


async def test_after_a_push_of_unknown_outcome_the_old_tag_is_not_served(proxy: Proxy, upstream: UploadUpstream):
    old, new = make_image(1).manifest.raw, make_image(2).manifest.raw
    assert await put_manifest(proxy, "1", old) == (201, "")
    upstream.faults["PUT"] = [answer(503)] * 9
    assert (await put_manifest(proxy, "1", new))[0] == 502
    upstream.manifests["1"] = new  # it was taken all the same
    assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[2] == new


async def test_blobs_that_the_upstream_has_lost_are_given_back_to_it(proxy: Proxy, upstream: UploadUpstream):
    upstream.misses_blobs, image = True, make_image()
    for data in image.blobs.values():
        assert await push(proxy, "whole", data) == (201, "")
    held, upstream.blobs = upstream.blobs, {}
    assert await put_manifest(proxy, "1", image.manifest.raw) == (201, "")
    assert upstream.blobs == held
    assert await put_manifest(proxy, "2", make_image(2).manifest.raw) == (400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_is_lost(proxy: Proxy, upstream: UploadUpstream, way: str):
    """The upstream has taken the blob: it is not sent again."""
    upstream.faults["PUT"] = [lose_answer()]
    assert await push(proxy, way) == (201, "")
    assert upstream.received_bytes == len(DATA)
    assert upstream.count("POST") == 1
    await assert_pushed(proxy, upstream)


async def test_a_session_that_is_always_lost_is_given_up(proxy: Proxy, upstream: UploadUpstream):
    """That every session gets as far as the last one is no progress."""

    async def taken_and_lost(running: UploadUpstream, request: web.Request) -> web.StreamResponse:
        done = await running._upload(request, request.path.rpartition("/")[2])
        running.sessions.clear()
        return done

    upstream.streams, upstream.chunk_limit = False, 1_100_000
    upstream.faults["PATCH"] = [answer(411), answer(413), *[taken_and_lost, answer(404, "BLOB_UPLOAD_UNKNOWN")] * 20]
    assert await push(proxy, "stream") == (404, "BLOB_UPLOAD_UNKNOWN")
    assert upstream.count("PATCH") < 20


async def test_an_upstream_that_tires_of_a_client_that_pauses(
    proxy: Proxy, upstream: UploadUpstream, monkeypatch: pytest.MonkeyPatch
):
    """It breaks more often than the back-off schedule allows failures, but never while there was something to send."""
    monkeypatch.setattr("proxy.transfer.sender.QUIET_S", -1.0)
    upstream.reports = False
    async with aiohttp.ClientSession(proxy.url) as session:
        async with session.post(UPLOADS) as response:
            location = response.headers["Location"]
        for number in range(1, 9):
            upstream.faults["PATCH"] = [reset(number * 1000)]
            async with session.patch(location, data=DATA[(number - 1) * 1000 : number * 1000]) as response:
                assert response.status == 202
            await until(lambda: not upstream.faults["PATCH"])
            await asyncio.sleep(0.02)
        assert await finish(session, location, Digest.of(DATA[:8000])) == 201
    upstream.sessions.clear()
    await assert_pushed(proxy, upstream, DATA[:8000])
