"""gc beside those who push and pull: every meeting of the two is forced, and nothing that was acknowledged is lost."""

import asyncio
import contextlib

import pytest

from cache import paths
from cache.disk.filesystem import FilesystemStore
from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.errors import CondemnedUnknown, RecordConflict, StoreUnavailable
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from cache.oci.manifest import make_manifest
from cache.s3.store import S3Store
from cache.upkeep import collect as collecting
from cache.upkeep import condemned
from cache.upkeep.condemned import Batch, Condemned, encode, read_batch, read_state
from cache.upkeep.retention import KNOWN_S
from tests.cache.conftest import new_location
from tests.cache.gc_world import DAY, GRACE_S, World


class HookedStore(MemoryStore):
    """Does something of the test's just before an operation."""

    def __init__(self):
        super().__init__()
        self.before = {}

    async def _hook(self, operation, subject):
        for (wanted, part), work in list(self.before.items()):
            if wanted == operation and part in str(subject):
                del self.before[(wanted, part)]
                await work()

    async def put(self, name, value, expected=None):
        await self._hook("put", name)
        return await super().put(name, value, expected)

    async def remove(self, name, expected=None):
        await self._hook("remove", name)
        await super().remove(name, expected)

    async def delete(self, digest):
        await self._hook("delete", digest)
        await super().delete(digest)


class Crash(Exception):
    """The collector dies."""


async def crash():
    raise Crash


@pytest.fixture
def world():
    return World(HookedStore())


async def condemn(world):
    """A blob that has been condemned, with its grace over, and a replica that knows."""
    stray = await world.blob("app", b"stray")
    await world.collect()
    replica = world.replica()
    await replica.reload()
    world.now += GRACE_S + 1
    return stray.digest, replica


async def test_a_reader_keeps_what_is_condemned(world):
    digest, replica = await condemn(world)
    assert await replica.keep(digest)
    report = await world.collect()
    assert (report.freed, report.rescued) == (0, 1)
    assert await world.has(digest) == [True]


async def test_what_is_reachable_again_is_kept_without_a_reader(world):
    image, blobs = await world.image("cache", "v1", b"layer")
    await world.catalog.remove_tag(paths.HOSTED, "cache", "v1")
    await world.collect("cache idle=1d")
    world.now += 2 * DAY
    await world.collect("cache idle=1d")
    world.now += GRACE_S + 1
    await world.point("cache", "v1", image.descriptor)  # by a replica that had looked before it knew
    report = await world.collect("cache idle=1d")
    assert (report.freed, report.rescued) == (0, 3)
    assert all(await world.has(image.digest, *blobs))


async def test_a_reader_who_comes_while_the_batch_is_closed_wins_or_is_told(world):
    digest, replica = await condemn(world)
    answers = []

    async def read():
        answers.append(await replica.keep(digest))

    state, _ = await read_state(world.store)
    world.store.before["put", paths.condemned(state.run, 0)] = read  # between gc's reading of the batch and its closing
    await world.collect()
    assert answers == [True]
    assert await world.has(digest) == [True]


async def test_a_reader_who_comes_after_the_decision_is_told_that_it_is_absent(world):
    digest, replica = await condemn(world)
    answers = []

    async def read():
        answers.append(await replica.keep(digest))

    world.store.before["delete", digest.hex] = read
    await world.collect()
    assert answers == [False]
    assert await world.has(digest) == [False]
    assert await replica.keep(digest)  # it is over: the store itself answers


async def test_a_push_of_what_is_being_deleted_waits_and_is_not_lost(world, monkeypatch):
    monkeypatch.setattr(condemned, "_POLL_S", 0.001)
    digest, replica = await condemn(world)
    pushes = []

    async def push():
        await replica.admit(digest)
        await world.blob("app", b"stray")

    async def begin():
        pushes.append(asyncio.create_task(push()))
        await asyncio.sleep(0.01)
        assert not pushes[0].done()

    world.store.before["delete", digest.hex] = begin
    await world.collect()
    await asyncio.wait_for(pushes[0], 10)
    assert await world.has(digest) == [True]
    assert await world.catalog.member(paths.HOSTED, "app", digest) is not None


async def test_a_push_does_not_wait_for_ever(world, monkeypatch):
    monkeypatch.setattr(condemned, "_POLL_S", 0.001)
    monkeypatch.setattr(condemned, "WAIT_S", 0.01)
    digest, replica = await condemn(world)
    world.store.before["delete", digest.hex] = crash
    with pytest.raises(Crash):
        await world.collect()
    with pytest.raises(StoreUnavailable, match="gc is deleting"):
        await replica.admit(digest)


async def test_a_push_of_a_tag_that_is_expiring_wins(world):
    await world.image("cache", "v1", b"old")
    await world.collect("cache idle=1d")
    world.now += 2 * DAY
    pushed = []

    async def push():
        pushed.append(await world.image("cache", "v1", b"new"))

    world.store.before["remove", "/_tags/v1"] = push
    await world.collect_twice("cache idle=1d")
    ((image, blobs),) = pushed
    assert (await world.catalog.tag(paths.HOSTED, "cache", "v1")).descriptor.digest == image.digest
    assert all(await world.has(image.digest, *blobs))


async def test_two_readers_of_one_batch_both_keep(world):
    first, second = await world.blob("app", b"first"), await world.blob("app", b"second")
    await world.collect()
    replicas = [world.replica(), world.replica()]
    for replica in replicas:
        await replica.reload()

    async def other():
        assert await replicas[1].keep(second.digest)

    state, _ = await read_state(world.store)
    world.store.before["put", paths.condemned(state.run, 0)] = other
    assert await replicas[0].keep(first.digest)
    world.now += GRACE_S + 1
    assert (await world.collect()).rescued == 2
    assert await world.has(first.digest, second.digest) == [True, True]


async def test_of_many_batches_the_right_one_is_asked(world, monkeypatch):
    for module in (condemned, collecting):
        monkeypatch.setattr(module, "BATCH", 3)
        monkeypatch.setattr(module, "MAX_BATCHES", 4)
    strays = sorted([(await world.blob("app", b"stray %d" % number)).digest for number in range(10, 23)])
    replica = world.replica()
    assert (await world.collect()).condemned == 12
    state, _ = await read_state(world.store)
    await world.store.remove(paths.condemned(state.run, 1))  # done with: nothing of it is condemned any more
    await replica.reload()
    kept = [strays[0], strays[2], strays[6], strays[11]]
    assert all([await replica.keep(digest) for digest in kept])
    spared = [digest for number in (0, 2, 3) for digest in (await batch(world, state, number)).spared]
    assert spared == list(map(str, kept))
    world.now += GRACE_S + 1
    report = await world.collect()
    assert (report.freed, report.freed_bytes, report.rescued) == (5, 5 * len(b"stray 10"), 4)


async def batch(world, state, number):
    return (await read_batch(world.store, paths.condemned(state.run, number)))[0]


async def test_nothing_is_asked_while_nothing_is_condemned(world):
    stray = await world.blob("app", b"stray")
    replica = world.replica()
    await replica.reload()

    async def asked(name):
        raise AssertionError(name)

    world.store.get = asked
    assert await replica.keep(stray.digest)


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        *[("put", "gc/condemned/"), ("put", "gc/state"), ("put", "gc/manifests/"), ("remove", "/_tags/")],
        *[("remove", "gc/condemned/"), ("remove", "/_members/"), ("delete", "")],
    ],
)
async def test_a_run_that_dies_anywhere_leaves_what_the_next_one_finishes(world, operation, part):
    """Every phase is met by one of the three runs; whichever dies there, the outcome is the same."""
    image, blobs = await world.image("app", "v1", b"kept")
    gone, of_gone = await world.image("cache", "v1", b"gone")
    stray = await world.blob("app", b"stray")
    world.store.before[operation, part] = crash
    crashes = 0
    for _ in range(6):
        try:
            await world.collect("cache idle=1d")
        except Crash:
            crashes += 1
        world.now += 2 * DAY
    assert crashes == 1
    assert not any(await world.has(gone.digest, stray.digest, *of_gone))
    assert all(await world.has(image.digest, *blobs))
    assert not [name async for name in world.store.names(paths.GC_CONDEMNED)]
    assert await world.catalog.member(paths.HOSTED, "app", stray.digest) is None


async def test_of_two_runs_at_once_one_condemns_and_the_other_gives_up(world):
    await world.blob("app", b"stray")

    async def other():
        await world.collect()

    world.store.before["put", "gc/state"] = other
    with pytest.raises(RecordConflict):
        await world.collect()
    state, _ = await read_state(world.store)
    names = [name async for name in world.store.names(paths.GC_CONDEMNED)]
    assert names == [paths.condemned(state.run, 0)]


async def test_a_batch_at_which_another_run_is_still_at_work_is_left_alone(world):
    digest, _ = await condemn(world)
    state, _ = await read_state(world.store)
    name = paths.condemned(state.run, 0)
    batch, version = await read_batch(world.store, name)
    await world.store.put(name, encode(Batch(batch.digests, (), True)), version)

    async def renew(seconds):
        batch, version = await read_batch(world.store, name)
        await world.store.put(name, encode(batch), version)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cache.upkeep.sweep.asyncio.sleep", renew)
        report = await world.collect()
    assert (report.freed, report.unfinished_batches) == (0, 1)
    assert await world.has(digest) == [True]


async def test_a_batch_without_its_records_condemns_nobody(world):
    digest, replica = await condemn(world)
    state, _ = await read_state(world.store)
    await world.store.remove(paths.condemned(state.run, 0))
    assert await replica.keep(digest)
    assert (await world.collect()).freed == 0


async def test_a_replica_that_cannot_reload_goes_on_with_what_it_knows(world):
    digest, replica = await condemn(world)

    async def failing(name):
        raise StoreUnavailable(world.store.url, "read")

    get, world.store.get = world.store.get, failing
    await replica.open()
    await replica.close()
    world.store.get = get
    assert await replica.keep(digest)
    assert (await world.collect()).rescued == 1


async def test_a_replica_that_cannot_read_what_is_condemned_acknowledges_no_push(world):
    now = 1000.0
    replica = world.replica(lambda: now)
    with pytest.raises(CondemnedUnknown):  # it has never known
        await unreadable(world, replica.require_known())
    await replica.reload()
    now += KNOWN_S
    await unreadable(world, replica.require_known())
    now += 1
    with pytest.raises(CondemnedUnknown, match="failed to say what gc has condemned"):
        await unreadable(world, replica.require_known())
    await world.store.put(paths.GC_STATE, b"from a later version")
    with pytest.raises(CondemnedUnknown, match="record gc/state is damaged"):
        await replica.require_known()


async def test_a_replica_that_can_read_again_knows_at_once(world):
    now = 1000.0
    replica = world.replica(lambda: now)
    await replica.reload()
    stray = await world.blob("app", b"stray")
    await world.collect()
    now += KNOWN_S + 1
    await replica.require_known()
    assert await replica.keep(stray.digest)
    world.now += GRACE_S + 1
    assert (await world.collect()).rescued == 1


async def unreadable(world, work):
    """Does something while gc's state cannot be read."""

    async def failing(name):
        raise StoreUnavailable(world.store.url, "read")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.store, "get", failing)
        await work


@pytest.mark.parametrize("reloads", [False, True])
async def test_a_disk_tier_does_not_vouch_for_what_gc_has_deleted(world, tmp_path, reloads):
    """The replica was asked for the blob by somebody who does not keep it, just before gc deleted it."""
    tiered = TieredStore(world.store, DiskTier(tmp_path, 1 << 20))
    stray = await world.blob("app", b"stray")
    await world.collect()
    replica = Condemned(tiered, tiered.url)
    await replica.reload()
    assert await tiered.stat(stray.digest) is not None
    world.now += GRACE_S + 1
    assert (await world.collect()).freed == 1
    assert await tiered.stat(stray.digest) is not None  # believed
    if reloads:
        await replica.reload()
    assert await replica.keep(stray.digest)
    assert await tiered.stat(stray.digest) is None
    await tiered.close()


class Replica:
    """Pushes and pulls over and over, as a registry's replica does, and knows what it has acknowledged."""

    def __init__(self, store, number):
        self._world = World(store)
        self._condemned = self._world.replica()
        self._repository = f"app{number}"
        self._number = number
        self.acknowledged = {}
        self.turns = 0

    async def run(self, ended):
        while not ended.is_set():
            self.turns += 1
            await self._condemned.reload()
            with contextlib.suppress(StoreUnavailable):
                await self._push(f"t{self.turns % 2}", b"layer %d" % ((self._number + self.turns) % 5))
            await self._pull()
            await self._delete(f"t{(self.turns + 1) % 2}")

    async def _push(self, tag, layer):
        world, repository = self._world, self._repository
        for data in (layer, b"config of " + layer):
            await self._condemned.admit(Digest.of(data))
        config, pushed = await world.blob(repository, b"config of " + layer), await world.blob(repository, layer)
        manifest = make_manifest(config, (pushed,))
        if all([await self._condemned.keep(blob.digest) for blob in (config, pushed)]):
            await self._condemned.admit(manifest.digest)
            await world.put(repository, tag, manifest)
            self.acknowledged[tag] = (manifest.digest, config.digest, pushed.digest)

    async def _pull(self):
        for digests in self.acknowledged.values():
            assert all([await self._condemned.keep(digest) for digest in digests])
            assert all(await self._world.has(*digests))

    async def _delete(self, tag):
        if tag in self.acknowledged:
            digest, *_ = self.acknowledged.pop(tag)
            await self._world.catalog.remove_tag(paths.HOSTED, self._repository, tag)
            if not any(digest in digests for digests in self.acknowledged.values()):
                await self._world.catalog.remove_member(paths.HOSTED, self._repository, digest)


async def collect_over_and_over(world, replicas, cycles):
    """Runs gc; the grace is over when every replica has begun a turn, and reloaded, since the blobs were condemned."""
    freed = 0
    for _ in range(cycles):
        freed += (await world.collect()).freed
        world.now += GRACE_S + 1
        began = [replica.turns for replica in replicas]
        async with asyncio.timeout(60):
            while any(replica.turns < turns + 2 for replica, turns in zip(replicas, began, strict=True)):
                await asyncio.sleep(0.001)
    return freed


@pytest.mark.parametrize(("kind", "cycles"), [("filesystem", 8), ("seaweedfs", 5)])
async def test_pushes_and_pulls_through_two_replicas_lose_nothing(request, tmp_path, monkeypatch, kind, cycles):
    monkeypatch.setattr(condemned, "_POLL_S", 0.002)
    if kind == "filesystem":
        stores = [FilesystemStore(tmp_path) for _ in range(3)]
    else:
        request.getfixturevalue("s3_credentials")
        location = new_location(request.getfixturevalue("seaweedfs_server").endpoint_url)
        stores = [S3Store(location) for _ in range(3)]
    ended = asyncio.Event()
    replicas = [Replica(store, number) for number, store in enumerate(stores[:2])]
    collector = World(stores[2])
    strays = [await collector.blob("app", b"stray %d" % number) for number in range(20)]
    running = [asyncio.create_task(replica.run(ended)) for replica in replicas]
    freed = await collect_over_and_over(collector, replicas, cycles)
    ended.set()
    await asyncio.gather(*running)
    assert freed >= len(strays)
    for replica in replicas:
        for digests in replica.acknowledged.values():
            assert all(await collector.has(*digests))
    assert not any(await collector.has(*(stray.digest for stray in strays)))
    for store in stores:
        await store.close()
