"""The first pull of a blob: one fetch for all, whoever leaves, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import aiohttp
import pytest

from cache.disk.filesystem import FilesystemStore
from cache.errors import StoreFull
from cache.oci.digest import Digest
from proxy.transfer.fills import SLOW_BYTES, Progress
from proxy.transfer.intake import Intake
from proxy.transfer.spool_file import SpoolFile
from tests.peers import Registry
from tests.proxy.leaks import nothing_left, until
from tests.proxy.running import UPSTREAM, chunks_of, client_of, get, running_proxy, scripted_upstream

DATA = random.Random(7).randbytes(3_000_000)
DIGEST = Digest.of(DATA)
PATH = f"/v2/org/app/blobs/{DIGEST}"


async def test_fifty_cold_pulls_are_one_fetch_by_the_upstreams_own_log(registry: Registry, tmp_path: Path):
    data = random.Random(1).randbytes(64 << 20)
    digest = Digest.of(data)
    async with client_of(registry.url) as client:
        await client.upload_blob("org/app", digest, len(data), chunks_of(data))
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, aiohttp.ClientSession() as session:

        async def pull() -> tuple[int, str]:
            async with session.get(f"{proxy.url}/v2/org/app/blobs/{digest}") as response:
                hasher = digest.hasher()
                async for chunk in response.content.iter_any():
                    hasher.update(chunk)
                return response.status, hasher.hexdigest()

        assert set(await asyncio.gather(*(pull() for _ in range(50)))) == {(200, digest.hex)}
    assert registry.count("GET", f"/blobs/{digest}") == 1


async def test_the_fetch_goes_on_when_the_first_client_leaves(tmp_path: Path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs, upstream.pause_at = {str(DIGEST): DATA}, 1_000_000
        async with aiohttp.ClientSession() as session, session.get(proxy.url + PATH) as response:
            await response.content.readexactly(1000)
        upstream.go_on.set()
        async with asyncio.timeout(10):
            while await proxy.store.stat(DIGEST) is None:
                await asyncio.sleep(0.01)
        assert (await get(proxy.url + PATH))[2] == DATA
        assert upstream.count("GET", PATH) == 1


async def test_followers_get_bytes_and_ranges_before_the_fetch_has_ended(tmp_path: Path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs, upstream.pause_at = {str(DIGEST): DATA}, 1_000_000
        async with (
            aiohttp.ClientSession() as session,
            session.get(proxy.url + PATH) as leader,
            session.get(proxy.url + PATH) as follower,
        ):
            assert await leader.content.readexactly(900_000) == DATA[:900_000]
            assert await follower.content.readexactly(900_000) == DATA[:900_000]
            status, headers, part = await get(proxy.url + PATH, Range="bytes=500000-599999")
            assert (status, part, headers["X-Cache"]) == (206, DATA[500_000:600_000], "miss")
            assert await proxy.store.stat(DIGEST) is None
            upstream.go_on.set()
            assert await leader.read() == await follower.read() == DATA[900_000:]
        assert upstream.count("GET", PATH) == 1


@pytest.mark.parametrize("sent", [DATA[:-1] + b"x", DATA[:-1], DATA + b"x"])
async def test_wrong_content_cuts_the_connection_and_is_not_stored(tmp_path: Path, sent: bytes):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs = {str(DIGEST): sent}
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(proxy.url + PATH)
        assert await proxy.store.stat(DIGEST) is None
        upstream.blobs = {str(DIGEST): DATA}
        assert (await get(proxy.url + PATH))[2] == DATA
        assert (await get(proxy.url + PATH))[1]["X-Cache"] == "hit"


async def test_a_fill_that_has_failed_is_not_joined_while_it_is_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    discard = SpoolFile.discard
    monkeypatch.setattr(SpoolFile, "discard", lambda file: (go_on.wait(10), discard(file)))
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs = {str(DIGEST): DATA[:-1] + b"x"}
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(proxy.url + PATH)
        upstream.blobs = {str(DIGEST): DATA}
        assert (await get(proxy.url + PATH))[2] == DATA
        go_on.set()


async def test_what_has_come_whole_is_stored_though_the_proxy_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Intake.store

    async def slowly(intake: Intake, digest: Digest) -> bool:
        await asyncio.sleep(0.1)
        return await store(intake, digest)

    monkeypatch.setattr(Intake, "store", slowly)
    async with scripted_upstream() as upstream:
        upstream.blobs = {str(DIGEST): DATA}
        for _ in range(2):
            async with running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
                assert (await get(proxy.url + PATH))[2] == DATA
        assert upstream.count("GET", PATH) == 1


async def test_a_connection_that_breaks_is_taken_up_where_it_broke(tmp_path: Path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs, upstream.cut_at, upstream.cuts = {str(DIGEST): DATA}, 800_000, 2
        async with nothing_left(tmp_path / "store"):
            assert (await get(proxy.url + PATH))[2] == DATA
        assert await proxy.store.stat(DIGEST) == len(DATA)
        assert upstream.count("GET", PATH) == 3


async def test_a_connection_that_always_breaks_cuts_the_clients(tmp_path: Path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs, upstream.cut_at, upstream.cuts = {str(DIGEST): DATA}, 0, 100
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(proxy.url + PATH)
        assert await proxy.store.stat(DIGEST) is None
        upstream.cuts = 0
        assert (await get(proxy.url + PATH))[2] == DATA


async def test_an_empty_blob(registry: Registry, tmp_path: Path):
    empty = Digest.of(b"")
    async with client_of(registry.url) as client:
        await client.upload_blob("org/app", empty, 0, chunks_of(b""))
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        for outcome in ("miss", "hit"):
            status, headers, data = await get(f"{proxy.url}/v2/org/app/blobs/{empty}")
            assert (status, data, headers["X-Cache"]) == (200, b"", outcome)


@pytest.mark.parametrize("fails", ["incoming", "adopt"])
async def test_a_store_that_is_full_costs_the_caching_and_not_the_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
):
    def full(*_: object) -> None:
        raise StoreFull("file:///store", "be written")

    store = FilesystemStore(tmp_path / "store")
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}, store=store) as proxy:
        with monkeypatch.context() as patch:
            patch.setattr(store, fails, full)
            for _ in range(2):
                upstream.blobs = {str(DIGEST): DATA}
                async with nothing_left(tmp_path / "store"):
                    assert (await get(proxy.url + PATH))[2] == DATA
                upstream.blobs = {str(DIGEST): DATA[:-1] + b"x"}
                with pytest.raises(aiohttp.ClientPayloadError):
                    await get(proxy.url + PATH)
        upstream.blobs = {str(DIGEST): DATA}
        async with nothing_left(tmp_path / "store"):
            assert (await get(proxy.url + PATH))[2] == DATA
        assert await store.stat(DIGEST) == len(DATA)
        assert upstream.count("GET", PATH) == 5


async def test_what_is_here_and_not_stored_yet_is_a_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store that takes its time holds up neither the first client nor the next one."""
    slow, store = threading.Event(), FilesystemStore(tmp_path / "store")
    adopt = store.adopt

    def wait(path: Path, digest: Digest, size_bytes: int) -> None:
        assert slow.wait(10)
        adopt(path, digest, size_bytes)

    monkeypatch.setattr(store, "adopt", wait)
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}, store=store) as proxy:
        upstream.blobs = {str(DIGEST): DATA}
        async with nothing_left(tmp_path / "store"):
            assert (await get(proxy.url + PATH))[2] == DATA
            status, headers, data = await get(proxy.url + PATH)
            assert (status, headers["X-Cache"], data) == (200, "hit", DATA)
            slow.set()
        assert await store.stat(DIGEST) == len(DATA)
        assert upstream.count("GET", PATH) == 1


async def test_an_upstream_that_is_slow_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("proxy.transfer.fills.FILLS_PER_UPSTREAM", 2)
    blobs = {str(Digest.of(data)): data for data in (bytes([number]) * 50_000 for number in range(3))}
    async with scripted_upstream() as slow, scripted_upstream() as quick:
        slow.blobs, slow.pause_at, quick.blobs = blobs, 10, {str(DIGEST): DATA}
        async with running_proxy(tmp_path, {UPSTREAM: slow.url, "quick.test": quick.url}) as proxy:
            pulls = [asyncio.create_task(get(f"{proxy.url}/v2/org/app/blobs/{name}")) for name in blobs]
            await until(lambda: slow.count("GET", "/blobs/") == 2)
            assert (await get(f"{proxy.url}/v2/quick.test/org/app/blobs/{DIGEST}"))[2] == DATA
            assert slow.count("GET", "/blobs/") == 2
            slow.go_on.set()
            assert [answer[2] for answer in await asyncio.gather(*pulls)] == list(blobs.values())


@pytest.mark.parametrize(
    ("arrivals", "goes_on"),
    [
        ([(59.0, 1), (1.0, SLOW_BYTES)], True),
        ([(60.0, SLOW_BYTES)], True),
        ([(60.0, SLOW_BYTES - 1)], False),
        ([(30.0, 1)] * 2, False),
        ([(60.0, SLOW_BYTES), (30.0, 1), (30.0, 1)], False),
        ([(60.0, SLOW_BYTES)] * 100, True),
    ],
)
def test_what_only_drips_is_given_up(arrivals: list[tuple[float, int]], goes_on: bool):
    now, progress = 1000.0, Progress(1000.0)
    verdicts = []
    for after_s, size_bytes in arrivals:
        now += after_s
        verdicts.append(progress.enough(size_bytes, now))
    assert verdicts[-1] is goes_on
    assert all(verdicts[:-1])
