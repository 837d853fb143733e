"""What replicas remember of an upstream's tags: others soon show what one has noted, and nothing older comes back."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from cache.catalog import Catalog
from cache.errors import StoreUnavailable
from cache.memory import MemoryStore
from cache.oci import media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import NotFound
from cache.store import Record
from proxy.config import Freshness, Upstream
from proxy.requests.routing import Proxied
from proxy.upstream.held import LOOK_S, HeldManifests
from tests.peers import Registry
from tests.proxy.running import client_of, make_image, push, running_proxy

ROUTE = Proxied(Upstream("up.test", "http://127.0.0.1:1", freshness=Freshness(tag_ttl_s=60.0)), "team/app")
OLD, NEW = (
    Descriptor(media_type=media_types.OCI_MANIFEST, digest=Digest.of(content), size=3) for content in (b"old", b"new")
)


class World:
    """Two replicas over one store that can fail, and their clock."""

    def __init__(self, *, alone: bool = False) -> None:
        self.now = 1000.0
        self.store = MemoryStore()
        self.one, self.two = (HeldManifests(Catalog(self.store), alone=alone, now=lambda: self.now) for _ in range(2))

    async def shown(self, replica: HeldManifests) -> Descriptor | None:
        entry = await replica.tag(ROUTE, "1")
        return entry.descriptor if entry is not None else None


async def fail(*_: object) -> Record | None:
    raise StoreUnavailable("memory:", "work", "it is away")


async def test_what_one_replica_notes_another_shows_at_its_next_look() -> None:
    world = World()
    await world.one.point(ROUTE, "1", OLD)
    assert await world.shown(world.two) == OLD
    await world.one.point(ROUTE, "1", NEW)
    assert (await world.shown(world.one), await world.shown(world.two)) == (NEW, OLD)
    world.now += LOOK_S
    assert await world.shown(world.two) == NEW
    await world.one.forget(ROUTE, "1")
    world.now += LOOK_S
    assert await world.shown(world.two) is None


async def test_who_is_alone_reads_the_store_when_the_tag_is_no_longer_fresh() -> None:
    world = World(alone=True)
    await world.one.point(ROUTE, "1", OLD)
    assert await world.shown(world.two) == OLD
    await world.one.point(ROUTE, "1", NEW)
    world.now += 59.0
    assert await world.shown(world.two) == OLD
    world.now += 1.0
    assert await world.shown(world.two) == NEW


async def test_a_store_that_cannot_be_read_costs_nothing_while_a_tag_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.one.point(ROUTE, "1", OLD)
    monkeypatch.setattr(world.store, "get", fail)
    world.now += 59.0
    assert await world.shown(world.one) == OLD
    world.now += 1.0
    with pytest.raises(StoreUnavailable):
        await world.shown(world.one)


async def test_what_could_not_be_stored_is_not_followed_by_what_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.one.point(ROUTE, "1", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put", fail)
        world.now += 1.0
        await world.one.point(ROUTE, "1", NEW)
    for world.now in (1059.0, 1061.0):
        assert await world.shown(world.one) == NEW
    await world.two.point(ROUTE, "1", OLD)
    assert await world.shown(world.one) == OLD


async def test_what_is_noted_while_the_store_is_read_is_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.one.point(ROUTE, "1", OLD)
    world.now += LOOK_S
    get = world.store.get

    async def slow(name: str) -> Record | None:
        read = await get(name)
        monkeypatch.undo()
        await world.one.point(ROUTE, "1", NEW)
        return read

    monkeypatch.setattr(world.store, "get", slow)
    assert await world.shown(world.one) == NEW
    assert await world.shown(world.one) == NEW


async def test_a_tag_that_is_pushed_or_deleted_through_one_replica(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.upstream.held.LOOK_S", 0.0)
    store, images = MemoryStore(), [make_image(seed, 1000) for seed in (1, 2)]
    replica = partial(running_proxy, tmp_path, {"up.test": registry.url}, store=store, replica_url="http://127.0.0.1:1")
    async with replica() as one, replica() as two, client_of(one.url) as here, client_of(two.url) as there:
        for image in images:
            await push(here, "team/app", "1", image)
            assert (await there.get_manifest("team/app", "1")).digest == image.manifest.digest
        await here.delete_manifest("team/app", images[1].manifest.digest)
        with pytest.raises(NotFound):
            await there.get_manifest("team/app", "1")
