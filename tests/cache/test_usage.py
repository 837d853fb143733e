"""Uses, counted in memory and written in batches."""

import asyncio

import pytest

from cache import paths
from cache.errors import DamagedRecord, StoreUnavailable
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from cache.upkeep import usage
from cache.upkeep.usage import Usage
from cache.upkeep.uses import read_uses

DIGEST = Digest.of(b"manifest")


class CountingStore(MemoryStore):
    """Counts writes, and fails when told to."""

    def __init__(self):
        super().__init__()
        self.puts = 0
        self.fails = False

    async def put(self, name, value, expected=None):
        self.puts += 1
        if self.fails:
            raise StoreUnavailable(self.url, "write")
        return await super().put(name, value, expected)


async def written(store):
    names = [name async for name in store.names(paths.USAGE)]
    return [read_uses(name, (await store.get(name)).value) for name in names]


async def test_a_thousand_uses_are_one_write():
    store = CountingStore()
    counted = Usage(store, now=lambda: 7.0)
    for _ in range(999):
        counted.note("_hosted", "cache", "a")
    counted.note("docker.io", "library/alpine", DIGEST)
    assert store.puts == 0
    await counted.flush()
    await counted.flush()
    assert store.puts == 1
    (flushed,) = await written(store)
    assert flushed.at == 7.0
    assert flushed.uses == {
        paths.tag("_hosted", "cache", "a"): 999,
        paths.member("docker.io", "library/alpine", DIGEST): 1,
    }


async def test_a_flush_that_fails_loses_nothing():
    store = CountingStore()
    counted = Usage(store)
    counted.note("_hosted", "cache", "a")
    store.fails = True
    with pytest.raises(StoreUnavailable):
        await counted.flush()
    counted.note("_hosted", "cache", "a")
    store.fails = False
    await counted.flush()
    assert [flushed.uses for flushed in await written(store)] == [{paths.tag("_hosted", "cache", "a"): 2}]


async def test_memory_is_bounded_and_a_flush_comes_before(monkeypatch):
    monkeypatch.setattr(usage, "MAX_NAMES", 10)
    store = CountingStore()
    counted = Usage(store)
    counted.start()
    for number in range(4):
        counted.note("_hosted", "cache", f"t{number}")
    await asyncio.sleep(0)
    assert store.puts == 0
    for number in range(20):
        counted.note("_hosted", "cache", f"t{number}")
    assert len(counted) == 10
    async with asyncio.timeout(10):
        while not store.puts:
            await asyncio.sleep(0.001)
    await counted.close()
    assert len((await written(store))[0].uses) == 10


async def test_what_is_left_is_written_at_the_end_and_a_failure_is_only_told():
    store = CountingStore()
    counted = Usage(store)
    counted.start()
    counted.note("_hosted", "cache", "a")
    await counted.close()
    assert store.puts == 1
    store.fails = True
    counted.note("_hosted", "cache", "a")
    await counted.close()


def test_what_is_no_flush_is_damaged():
    with pytest.raises(DamagedRecord):
        read_uses("usage/x", b"\xc1")
