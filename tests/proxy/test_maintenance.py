"""The proxy keeps its store in order: one replica at a time, while it serves, and never at the price of serving."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from cache import paths
from cache.disk.blob_files import LEFTOVER_AGE_S
from cache.disk.filesystem import FilesystemStore
from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.errors import StoreUnavailable
from cache.leases import Held, Leases
from cache.oci.digest import Digest
from cache.upkeep.retention import Retention
from cache.upkeep.scrub_turns import CURSOR
from tests.proxy.running import (
    UPSTREAM,
    Image,
    Proxy,
    client_of,
    get,
    make_image,
    push,
    running_proxy,
    scripted_upstream,
)

SOON_S = 0.2
PATIENCE_S = 20.0


async def counted(proxy: Proxy, name: str) -> float:
    """The value of a metric; 0 when it is not there."""
    _, _, body = await get(f"{proxy.url}/metrics")
    found = [line.rpartition(" ")[2] for line in body.decode().splitlines() if line.startswith(f"{name} ")]
    return float(found[0]) if found else 0.0


async def until(proxy: Proxy, name: str, true: Callable[[float], bool]) -> None:
    """Returns as soon as the metric is as it should be."""
    async with asyncio.timeout(PATIENCE_S):
        while not true(await counted(proxy, name)):
            await asyncio.sleep(0.02)


def blob_file(tmp: Path, digest: Digest) -> Path:
    return tmp / "store" / paths.blob(digest)


async def pull(proxy: Proxy, image: Image) -> None:
    """Pulls all of it by its digests, and checks it."""
    status, _, raw = await get(f"{proxy.url}/v2/org/app/manifests/{image.manifest.digest}")
    assert (status, raw) == (200, image.manifest.raw)
    for digest, data in image.blobs.items():
        assert (await get(f"{proxy.url}/v2/org/app/blobs/{digest}"))[2] == data


async def test_what_is_damaged_is_fetched_again_from_its_upstream(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as upstream:
        upstream.manifests["1"] = upstream.manifests[str(image.manifest.digest)] = image.manifest.raw
        upstream.blobs |= {str(digest): data for digest, data in image.blobs.items()}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, maintenance_interval_s=0.0) as proxy:
            await pull(proxy, image)
            assert "<td>off</td>" in (await get(f"{proxy.url}/"))[2].decode()
        damaged = [image.layer, image.manifest.digest]
        for digest in damaged:
            blob_file(tmp_path, digest).write_bytes(b"rotten")
        settings = {"maintenance_interval_s": SOON_S, "scrub_bytes_per_second": 10**9}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, **settings) as proxy:
            await until(proxy, "proxy_damaged_blobs_total", lambda found: found == 2)
            assert {digest: Digest.of(blob_file(tmp_path, digest).read_bytes()) for digest in damaged} == {
                digest: digest for digest in damaged
            }
            assert await counted(proxy, "proxy_scrubbed_bytes_total") > 0
            await pull(proxy, image)
    for digest in damaged:
        assert (tmp_path / "store" / paths.quarantined(digest)).read_bytes() == b"rotten"


async def test_a_manifest_that_memory_still_has_comes_back_into_the_store(tmp_path: Path):
    image = make_image()
    settings = {"maintenance_interval_s": SOON_S, "scrub_bytes_per_second": 10**9}
    async with scripted_upstream() as upstream:
        upstream.manifests[str(image.manifest.digest)] = image.manifest.raw
        upstream.blobs |= {str(digest): data for digest, data in image.blobs.items()}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, **settings) as proxy:
            await pull(proxy, image)
            stored = blob_file(tmp_path, image.manifest.digest)
            stored.write_bytes(b"rotten")
            await proxy.store.remove(CURSOR)  # the next round begins a pass
            await until(proxy, "proxy_damaged_blobs_total", lambda found: found == 1)
            await pull(proxy, image)
        assert stored.read_bytes() == image.manifest.raw


async def test_a_damaged_manifest_is_never_served_nor_remembered(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as upstream:
        upstream.manifests[str(image.manifest.digest)] = image.manifest.raw
        upstream.blobs |= {str(digest): data for digest, data in image.blobs.items()}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, maintenance_interval_s=0.0) as proxy:
            await pull(proxy, image)
        stored = blob_file(tmp_path, image.manifest.digest)
        stored.write_bytes(b"rotten")
        with structlog.testing.capture_logs() as logs:
            async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, maintenance_interval_s=0.0) as proxy:
                await pull(proxy, image)
        assert [line["digest"] for line in logs if line["event"] == "manifest_damaged"] == [str(image.manifest.digest)]
        assert stored.read_bytes() == image.manifest.raw


async def test_what_lives_only_here_is_a_miss_and_can_be_pushed_again(tmp_path: Path):
    image = make_image()
    async with running_proxy(tmp_path, {}, maintenance_interval_s=0.0) as proxy, client_of(proxy.url) as client:
        await push(client, "cache/app", "v1", image)
    blob_file(tmp_path, image.layer).write_bytes(b"rotten")
    async with running_proxy(tmp_path, {}, maintenance_interval_s=SOON_S) as proxy, client_of(proxy.url) as client:
        await until(proxy, "proxy_damaged_blobs_total", lambda found: found == 1)
        url = f"{proxy.url}/v2/cache/app/blobs/{image.layer}"
        assert (await get(url))[0] == 404
        await push(client, "cache/app", "v1", image)
        assert (await get(url))[2] == image.blobs[image.layer]


async def test_leftovers_go_and_uploads_stay(tmp_path: Path):
    incoming = tmp_path / "store" / paths.TEMPORARY
    incoming.mkdir(parents=True)
    for name in ("old", "young"):
        (incoming / name).write_bytes(b"x")
    os.utime(incoming / "old", (0, time.time() - LEFTOVER_AGE_S - 60))
    store = FilesystemStore(tmp_path / "store")
    await Leases(store, "dead").take("fill", 0.01)
    async with running_proxy(tmp_path, {}, store=store, maintenance_interval_s=SOON_S) as proxy:
        for kind in ("file", "lease"):
            await until(proxy, f'proxy_reaped_total{{kind="{kind}"}}', lambda found: found == 1)
        assert [name async for name in store.names(paths.LEASES)] == []
    assert [path.name for path in incoming.iterdir()] == ["young"]


async def test_one_of_two_replicas_does_the_round(tmp_path: Path):
    settings = {"maintenance_interval_s": 30.0}
    done = 'proxy_maintenance_total{outcome="done",task="reap"}'
    async with (
        running_proxy(tmp_path, {}, **settings) as one,
        running_proxy(tmp_path, {}, **settings) as two,
    ):
        rounds = 'proxy_maintenance_total{outcome="done",task="round"}'
        for proxy in (one, two):
            await until(proxy, rounds, lambda found: found == 1)  # asked whether there is something to do
        assert await counted(one, done) + await counted(two, done) == 1


async def test_failures_are_counted_and_the_next_round_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = FilesystemStore(tmp_path / "store")
    times = iter([StoreUnavailable("here", "be swept"), RuntimeError("a fault of ours")])
    sweep = store.sweep

    async def failing(older_than_s: float) -> object:
        error = next(times, None)
        if error is not None:
            raise error
        return await sweep(older_than_s)

    monkeypatch.setattr(store, "sweep", failing)
    with structlog.testing.capture_logs() as logs:
        async with running_proxy(tmp_path, {}, store=store, maintenance_interval_s=SOON_S) as proxy:
            await until(proxy, 'proxy_maintenance_total{outcome="done",task="reap"}', lambda found: found >= 1)
            assert await counted(proxy, 'proxy_maintenance_total{outcome="failed",task="reap"}') == 2
            assert (await get(f"{proxy.url}/healthz"))[0] == 200
    assert {"maintenance_failed", "maintenance_broke"} <= {line["event"] for line in logs}


async def test_damaged_copies_on_the_disk_are_dropped(tmp_path: Path):
    lower = FilesystemStore(tmp_path / "store")
    image = make_image()
    async with (
        running_proxy(tmp_path, {}, store=lower, maintenance_interval_s=0.0) as proxy,
        client_of(proxy.url) as client,
    ):
        await push(client, "cache/app", "v1", image)
    tiered = TieredStore(FilesystemStore(tmp_path / "store"), DiskTier(tmp_path / "disk", 50_000_000))
    await tiered.check()
    await tiered.settled()
    async with tiered.open(image.layer) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == image.blobs[image.layer]
    await tiered.settled()
    copy = tmp_path / "disk" / paths.blob(image.layer)
    copy.write_bytes(b"rotten")
    async with running_proxy(tmp_path, {}, store=tiered, maintenance_interval_s=SOON_S) as proxy:
        await until(proxy, "proxy_damaged_blobs_total", lambda found: found == 1)
        assert not copy.exists()
        assert (await get(f"{proxy.url}/v2/cache/app/blobs/{image.layer}"))[2] == image.blobs[image.layer]


async def test_while_another_replica_collects_nobody_else_does(tmp_path: Path):
    retentions = (Retention.parse("cache/app entries=1"),)
    settings = {"maintenance_interval_s": SOON_S, "scrub_bytes_per_second": 0, "retentions": retentions}
    done = 'proxy_maintenance_total{outcome="done",task="collect"}'
    store = FilesystemStore(tmp_path / "store")
    other = Leases(store, "another replica")
    lease = await other.take(paths.GC_LEASE, 1e6)  # so that nobody waits for it to be renewed
    assert isinstance(lease, Held)
    async with running_proxy(tmp_path, {}, store=store, **settings) as proxy, client_of(proxy.url) as client:
        for number in (1, 2):
            await push(client, "cache/app", f"{number}", make_image(number, 1000))
        before = await counted(proxy, done)
        await until(proxy, done, lambda runs: runs >= before + 2)
        assert await statuses(proxy) == [200, 200]
        await other.release(lease)
        await until(proxy, done, lambda runs: runs >= before + 4)
        assert sorted(await statuses(proxy)) == [200, 404]


async def statuses(proxy: Proxy) -> list[int]:
    return [(await get(f"{proxy.url}/v2/cache/app/manifests/{number}"))[0] for number in (1, 2)]


async def test_what_no_retention_keeps_goes_by_itself(tmp_path: Path):
    settings = {"maintenance_interval_s": SOON_S, "scrub_bytes_per_second": 0}
    async with running_proxy(tmp_path, {}, **settings) as proxy:
        async with client_of(proxy.url) as client:
            for number in (1, 2):
                await push(client, "cache/app", f"{number}", make_image(number, 1000))
                await push(client, "cache/kept", f"{number}", make_image(number, 1000))
        await until(proxy, 'proxy_maintenance_total{outcome="done",task="round"}', lambda rounds: rounds >= 2)
        assert await counted(proxy, 'proxy_maintenance_total{outcome="done",task="collect"}') == 0
    settings["retentions"] = (Retention.parse("cache/app entries=1"),)
    async with running_proxy(tmp_path, {}, **settings) as proxy:
        await until(proxy, 'proxy_maintenance_total{outcome="done",task="collect"}', lambda runs: runs >= 1)
        assert sorted(await statuses(proxy)) == [200, 404]
        assert [(await get(f"{proxy.url}/v2/cache/kept/manifests/{number}"))[0] for number in (1, 2)] == [200, 200]
