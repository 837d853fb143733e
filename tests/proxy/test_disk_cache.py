"""A proxy whose store has a disk in front of it, and blobs that go between looking and reading."""

from __future__ import annotations

import os
from pathlib import Path

import aiohttp
import pytest

from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from tests.proxy.running import client_of, make_image, push, running_proxy


async def test_blobs_come_from_the_bucket_once_and_then_from_the_disk(tmp_path: Path):
    image, bucket = make_image(layer_bytes=3_000_000), MemoryStore()
    async with running_proxy(tmp_path, {}, store=bucket) as proxy, client_of(proxy.url) as client:
        await push(client, "cache/app", "v1", image)
    tiered = TieredStore(bucket, DiskTier(tmp_path / "disk", 50_000_000))
    await tiered.check()
    await tiered.settled()
    async with running_proxy(tmp_path, {}, store=tiered) as proxy, aiohttp.ClientSession() as http:
        url = f"{proxy.url}/v2/cache/app/blobs/{image.layer}"
        for _ in range(2):
            async with http.get(url) as reply:
                assert Digest.of(await reply.read()) == image.layer
            await tiered.settled()
        path = tiered.local_path(image.layer)
        assert path is not None
        async with http.get(url, headers={"Range": "bytes=10-19"}) as reply:
            assert (reply.status, await reply.read()) == (206, image.blobs[image.layer][10:20])
        os.unlink(path)
        async with http.get(url) as reply:
            assert Digest.of(await reply.read()) == image.layer


async def test_a_blob_that_goes_between_looking_and_reading_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    image, bucket = make_image(), MemoryStore()
    async with running_proxy(tmp_path, {}, store=bucket) as proxy, client_of(proxy.url) as client:
        await push(client, "cache/app", "v1", image)
        stat = bucket.stat

        async def look_and_lose(digest: Digest) -> int | None:
            size_bytes = await stat(digest)
            await bucket.delete(digest)
            return size_bytes

        monkeypatch.setattr(bucket, "stat", look_and_lose)
        async with aiohttp.ClientSession() as http, http.get(f"{proxy.url}/v2/cache/app/blobs/{image.layer}") as reply:
            assert reply.status == 404
            assert (await reply.json())["errors"][0]["code"] == "BLOB_UNKNOWN"
