"""Garbage collection and the running proxy: what is used stays, and no push is taken that gc might undo."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from cache import paths
from cache.catalog import Catalog
from cache.disk.filesystem import FilesystemStore
from cache.oci.errors import RegistryError
from cache.upkeep import condemned
from cache.upkeep.collect import Collection, collect
from cache.upkeep.retention import Retention
from tests.proxy.running import (
    UPSTREAM,
    Image,
    Proxy,
    client_of,
    get,
    head,
    make_image,
    push,
    running_proxy,
    scripted_upstream,
)
from tests.proxy.test_maintenance import SOON_S, until

DAY_S = 86400.0
RETENTIONS = (Retention.parse("cache idle=5d"), Retention.parse(f"{UPSTREAM} idle=5d"))


async def test_what_was_pulled_lately_stays_and_what_is_idle_goes(tmp_path: Path):
    """Through a hosted repository and an upstream's: by tag, by HEAD, by digest alone, or not at all."""
    images = {tag: make_image(seed, 1000) for seed, tag in enumerate(("pulled", "asked", "pinned", "idle"))}
    used = ("asked", "pinned", "pulled")
    async with scripted_upstream() as upstream:
        for tag, image in images.items():
            upstream.manifests |= {tag: image.manifest.raw, str(image.manifest.digest): image.manifest.raw}
            upstream.blobs |= {str(digest): data for digest, data in image.blobs.items()}
        async with (
            running_proxy(tmp_path, {UPSTREAM: upstream.url}, maintenance_interval_s=0.0) as proxy,
            client_of(proxy.url) as client,
        ):
            for tag, image in images.items():
                await push(client, "cache/app", tag, image)
                await pull(f"{proxy.url}/v2/org/app", tag, image)
        await make_old(tmp_path, images)
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, maintenance_interval_s=0.0) as proxy:
            for repository in ("cache/app", "org/app"):
                await use(f"{proxy.url}/v2/{repository}/manifests", images)
        settings = {"maintenance_interval_s": SOON_S, "scrub_bytes_per_second": 0, "retentions": RETENTIONS}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, **settings) as proxy:
            await until(proxy, 'proxy_maintenance_total{outcome="done",task="collect"}', lambda runs: runs >= 1)
    for namespace, repository in ((paths.HOSTED, "cache/app"), (UPSTREAM, "org/app")):
        assert await tags(tmp_path, namespace, repository) == sorted(used)
    await delete_what_is_condemned(tmp_path)
    assert await held(tmp_path, images["idle"]) == [False] * 3
    async with running_proxy(tmp_path, {}, maintenance_interval_s=0.0) as proxy:
        for tag in used:
            await pull(f"{proxy.url}/v2/cache/app", tag, images[tag])
        assert (await get(f"{proxy.url}/v2/cache/app/manifests/idle"))[0] == 404


async def pull(repository: str, tag: str, image: Image) -> None:
    assert (await get(f"{repository}/manifests/{tag}"))[2] == image.manifest.raw
    for digest, data in image.blobs.items():
        assert (await get(f"{repository}/blobs/{digest}"))[2] == data


async def use(manifests: str, images: dict[str, Image]) -> None:
    assert (await get(f"{manifests}/pulled"))[0] == 200
    assert (await head(f"{manifests}/asked"))[0] == 200
    assert (await get(f"{manifests}/{images['pinned'].manifest.digest}"))[0] == 200


async def make_old(tmp_path: Path, images: dict[str, Image]) -> None:
    """Makes it ten days since anything was pushed or used."""
    store = FilesystemStore(tmp_path / "store")
    catalog = Catalog(store)
    for namespace, repository in ((paths.HOSTED, "cache/app"), (UPSTREAM, "org/app")):
        for tag in images:
            entry = await catalog.tag(namespace, repository, tag)
            assert entry is not None
            old = replace(entry, checked_at=time.time() - 10 * DAY_S)
            await catalog.set_tag(namespace, repository, tag, old)
    async for name in store.names(paths.USAGE):
        await store.remove(name)
    await store.close()


async def tags(tmp_path: Path, namespace: str, repository: str) -> list[str]:
    store = FilesystemStore(tmp_path / "store")
    found = await Catalog(store).tags(namespace, repository)
    await store.close()
    return found


async def delete_what_is_condemned(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "store")
    await collect(store, Collection(RETENTIONS, offline=True))
    await store.close()


async def held(tmp_path: Path, image: Image) -> list[bool]:
    """Of each of its parts whether the store holds it."""
    store = FilesystemStore(tmp_path / "store")
    found = [await store.stat(digest) is not None for digest in (image.manifest.digest, *image.blobs)]
    await store.close()
    return found


async def test_no_push_is_taken_while_what_is_condemned_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Content that is hosted can be pulled all the same; as soon as it can be read, pushes are taken again."""
    monkeypatch.setattr(condemned, "KNOWN_S", 0.0)
    one, other = make_image(1, 1000), make_image(2, 1000)
    async with running_proxy(tmp_path, {}) as proxy, client_of(proxy.url) as client:
        await push(client, "cache/app", "v1", one)
        await proxy.store.put(paths.GC_STATE, b"of a later version")
        for refused in (
            push(client, "cache/app", "v1", other),
            client.put_manifest("cache/app", "v2", one.manifest.raw, one.manifest.media_type),
            mount(proxy, one),
        ):
            with pytest.raises(RegistryError, match="no push is taken now") as caught:
                await refused
            assert caught.value.status == 503
        await pull(f"{proxy.url}/v2/cache/app", "v1", one)
        await proxy.store.remove(paths.GC_STATE)
        await push(client, "cache/app", "v1", other)
        await pull(f"{proxy.url}/v2/cache/app", "v1", other)


async def mount(proxy: Proxy, image: Image) -> None:
    async with client_of(proxy.url) as client:
        await client.mount_blob("cache/other", image.layer, "cache/app")
