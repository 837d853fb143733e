"""Retention, marking and sweeping over a store: what stays, what goes and what is reported."""

import msgspec
import pytest

from cache import bulk, entry, paths
from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.layers import StoreLayerCache
from cache.memory import MemoryStore
from cache.oci.layer import Layer
from cache.oci.uploads import bytes_source
from cache.upkeep.collect import Collection
from cache.upkeep.digests import pack
from cache.upkeep.manifest_facts import ManifestFacts
from cache.upkeep.pace import Pace
from cache.upkeep.paced_store import PacedStore
from tests.cache.gc_world import DAY, GRACE_S, World

KEY = "ab" * 32


@pytest.fixture
def world():
    return World(MemoryStore())


async def test_what_nothing_leads_to_goes_after_the_grace_with_its_record(world):
    image, blobs = await world.image("app", "v1", b"layer")
    stray = await world.blob("app", b"stray")
    first = await world.collect()
    assert (first.unreachable, first.condemned, first.freed) == (1, 1, 0)
    assert await world.has(stray.digest) == [True]
    world.now += GRACE_S - 10
    waiting = await world.collect()
    assert (waiting.waiting, waiting.condemned, waiting.freed) == (True, 1, 0)
    world.now += 11
    second = await world.collect()
    assert (second.freed, second.freed_bytes, second.condemned) == (1, 5, 0)
    assert await world.has(stray.digest, image.digest, *blobs) == [False, True, True, True]
    assert await world.catalog.member(paths.HOSTED, "app", stray.digest) is None
    assert not [name async for name in world.store.names(paths.GC_CONDEMNED)]


async def test_without_a_retention_images_by_digest_stay_for_ever(world):
    image, blobs = await world.image("app", None, b"layer")
    await world.collect_twice()
    world.now += 1000 * DAY
    assert (await world.collect_twice()).freed == 0
    assert await world.has(image.digest, *blobs) == [True] * 3


async def test_children_of_an_index_and_referrers_of_what_stays_stay(world):
    child, blobs = await world.image("cache", None, b"amd64")
    index = await world.index("cache", "v1", child)
    signature, of_signature = await world.image("cache", None, b"signature", subject=index.descriptor)
    sbom, of_sbom = await world.image("cache", None, b"sbom", subject=signature.descriptor)
    world.now += 5 * DAY
    await world.used("cache", "v1")
    await world.collect("cache idle=1d")  # all are seen for the first time
    world.now += 5 * DAY
    await world.used("cache", "v1")
    report = await world.collect_twice("cache idle=2d")
    assert report.freed == 0
    kept = [index.digest, child.digest, signature.digest, sbom.digest, *blobs, *of_signature, *of_sbom]
    assert all(await world.has(*kept))


async def test_an_expired_tag_takes_its_image_and_what_refers_to_it(world):
    image, blobs = await world.image("cache", KEY, b"layer")
    signature, _ = await world.image("cache", None, b"signature", subject=image.descriptor)
    await world.collect("cache idle=1d")
    world.now += 2 * DAY
    report = await world.collect("cache idle=1d")
    assert report.prefixes["cache"].expired == {"idle": 1}
    assert await world.catalog.tag(paths.HOSTED, "cache", KEY) is None
    world.now += GRACE_S + 1
    assert (await world.collect("cache idle=1d")).freed == 6
    assert not any(await world.has(image.digest, signature.digest, *blobs))


async def test_the_last_use_counts(world):
    await world.image("cache", "a" * 64, b"used")
    await world.image("cache", "b" * 64, b"idle")
    world.now += 10 * DAY
    await world.used("cache", "a" * 64)
    await world.collect("cache idle=5d")
    assert await world.catalog.tags(paths.HOSTED, "cache") == ["a" * 64]
    assert not [name async for name in world.store.names(paths.USAGE)]  # merged
    world.now += 4 * DAY + GRACE_S
    await world.collect("cache idle=5d")
    assert await world.catalog.tags(paths.HOSTED, "cache") == ["a" * 64]
    world.now += 2 * DAY
    await world.collect("cache idle=5d")
    assert await world.catalog.tags(paths.HOSTED, "cache") == []


async def test_the_least_valuable_goes_when_bytes_bind_and_kanikos_entries_are_entries(world):
    await world.image("cache", "a" * 64, b"x" * 600_000, annotations={entry.SECONDS: "100.0"})
    await world.image("cache", "b" * 64, b"y" * 600_000, annotations={entry.SECONDS: "1.0"})
    await world.image("cache", "c" * 64, b"z" * 600_000)  # Kaniko's says nothing
    await world.image("app", "latest", b"w" * 600_000)
    report = await world.collect("cache bytes=1.3MB")
    assert await world.catalog.tags(paths.HOSTED, "cache") == ["a" * 64, "c" * 64]
    assert await world.catalog.tags(paths.HOSTED, "app") == ["latest"]
    assert (report.prefixes["cache"].kept, report.prefixes["cache"].expired) == (2, {"bytes": 1})


async def test_a_layer_that_another_image_has_too_stays(world):
    await world.image("cache", KEY, b"shared")
    _, blobs = await world.image("app", "v1", b"shared")
    world.now += 2 * DAY
    await world.collect_twice("cache idle=1d")
    assert all(await world.has(*blobs))


async def test_steps_of_a_local_cache_keep_their_layers_until_a_retention_takes_them(world):
    layer_blob = await world.blob("app", b"layer of a step")
    step = CachedStep(CacheKey(KEY), Layer(layer_blob, layer_blob.digest), 3.0)
    await StoreLayerCache(world.store).save(step, bytes_source(b"layer of a step"))
    await world.collect_twice()
    assert await world.has(layer_blob.digest) == [True]
    await world.collect_twice("layers idle=30d")
    assert await world.has(layer_blob.digest) == [True]
    world.now += 20 * DAY
    cache = StoreLayerCache(world.store)
    assert await cache.lookup([CacheKey(KEY)])
    await cache.note_uses()
    (name,) = [name async for name in world.store.names(paths.USAGE)]
    uses = msgspec.msgpack.decode((await world.store.get(name)).value)
    await world.store.put(name, msgspec.msgpack.encode(uses | {"at": world.now}))
    world.now += 20 * DAY
    await world.collect_twice("layers idle=30d")
    assert await world.has(layer_blob.digest) == [True]
    world.now += 11 * DAY
    report = await world.collect_twice("layers idle=30d")
    assert report.freed == 1
    assert await StoreLayerCache(world.store).lookup([CacheKey(KEY)]) == {}


async def test_pulled_content_has_its_retention_too(world):
    pulled = World(world.store, "docker.io")
    image, blobs = await pulled.image("library/alpine", "3.20", b"alpine")
    await pulled.collect_twice("docker.io idle=14d")
    assert all(await pulled.has(image.digest, *blobs))
    pulled.now += 20 * DAY
    assert (await pulled.collect_twice("docker.io idle=14d")).freed == 3
    assert not any(await pulled.has(image.digest, *blobs))


async def test_a_dry_run_says_the_same_and_writes_nothing(world):
    await world.image("cache", KEY, b"layer")
    await world.image("app", "v1", b"other")
    await world.blob("app", b"stray")
    await world.used("app", "v1")
    world.now += 2 * DAY
    before = await world.everything()
    dry = await world.collect("cache idle=1d", dry_run=True)
    assert await world.everything() == before
    real = await world.collect("cache idle=1d")
    assert dry.prefixes == real.prefixes
    assert (dry.unreachable, dry.condemned) == (real.unreachable, real.condemned)


async def test_offline_deletes_at_once(world):
    image, blobs = await world.image("app", "v1", b"layer")
    stray = await world.blob("app", b"stray")
    report = await world.collect(offline=True)
    assert (report.freed, report.condemned) == (1, 0)
    assert await world.has(stray.digest, image.digest, *blobs) == [False, True, True, True]


async def test_a_manifest_is_read_once_in_its_life(world):
    await world.image("app", "v1", b"layer")
    assert (await world.collect()).manifests_read == 1
    await world.image("app", "v2", b"another")
    report = await world.collect()
    assert (report.manifests_read, report.manifests) == (1, 2)


async def test_damaged_records_keep_what_they_were_about(world):
    image, blobs = await world.image("app", "v1", b"layer")
    await world.store.put(paths.member(paths.HOSTED, "app", image.digest), b"{")
    await world.collect_twice()
    assert all(await world.has(image.digest, *blobs))


async def test_what_another_repositorys_manifest_calls_a_layer_may_be_a_manifest(world):
    """Somebody's manifest names ours as if it were a layer, and gc reads theirs first."""
    ours, blobs = await world.image("app", None, b"ours")
    theirs, _ = await world.image("other", "v1", ours.raw)
    facts = ManifestFacts(world.store)
    shard = await facts.shard(pack(theirs.digest)[0])
    await shard.read([pack(theirs.digest)])
    await shard.save()
    await world.collect_twice()
    assert all(await world.has(ours.digest, *blobs))


async def test_a_manifest_that_is_damaged_is_not_remembered_as_it_is_now(world):
    image, blobs = await world.image("app", "v1", b"layer")
    whole, world.store._blobs[image.digest] = image.raw, image.raw.replace(b"sha256:", b"sha512:", 1)
    assert (await world.collect()).manifests_read == 0
    world.store._blobs[image.digest] = whole
    world.now += GRACE_S + 1
    assert (await world.collect()).rescued == len(blobs)
    assert all(await world.has(image.digest, *blobs))


async def test_where_what_was_used_cannot_be_read_nothing_is_idle(world):
    await world.image("cache", "a" * 64, b"used")
    world.now += 10 * DAY
    await world.used("cache", "a" * 64)
    await world.collect("cache idle=5d")
    async for name in world.store.names(paths.GC_USED):
        await world.store.put(name, b"damaged")
    world.now += 3 * DAY
    await world.collect("cache idle=1d")
    assert await world.catalog.tags(paths.HOSTED, "cache") == ["a" * 64]
    world.now += 2 * DAY
    await world.collect("cache idle=1d")
    assert await world.catalog.tags(paths.HOSTED, "cache") == []


async def test_what_is_known_of_a_manifest_goes_with_it(world):
    await world.image("cache", KEY, b"layer")
    await world.collect_twice("cache idle=1d")
    assert [name async for name in world.store.names(paths.GC_MANIFESTS)]
    world.now += 2 * DAY
    await world.collect_twice("cache idle=1d")
    await world.collect("cache idle=1d")
    known = [await world.store.get(name) async for name in world.store.names(paths.GC_MANIFESTS)]
    assert [msgspec.msgpack.decode(record.value) for record in known] == [{}]


async def test_a_referrer_that_goes_is_taken_from_its_subjects_record(world):
    subject, _ = await world.image("cache", "v1", b"subject")
    signature, _ = await world.image("cache", None, b"signature", subject=subject.descriptor)
    await world.catalog.change_referrers(paths.HOSTED, "cache", subject.digest, lambda _: (signature.descriptor,))
    await world.collect("cache idle=1d")
    world.now += 2 * DAY
    await world.collect_twice("cache idle=1d")
    assert await world.has(signature.digest) == [False]
    assert await world.catalog.referrers(paths.HOSTED, "cache", subject.digest) == ()


async def test_the_store_is_asked_at_a_pace(world):
    """A request for each record, blob and page, and one for a thousand deletions where the store has that."""
    amounts = []

    async def sleep(seconds):
        amounts.append(round(seconds))

    paced = PacedStore(world.store, Pace(1.0, lambda: 0.0, sleep))
    stray = await world.blob("app", b"stray")
    member = paths.member(paths.HOSTED, "app", stray.digest)
    for work in (
        paced.get(member),
        paced.stat(stray.digest),
        bulk.get_all(paced, [member] * 3),
        bulk.read_all(paced, [stray.digest] * 4, 10),
        paced.put("layers/ab/ab", b""),
        bulk.remove_all(paced, ["layers/ab/ab"] * 2),
        paced.remove("layers/ab/ab"),
        bulk.delete_all(paced, [stray.digest] * 5),
        all_of(paced.names("repositories/")),
        all_of(paced.blobs()),
    ):
        await work
    spent = [after - before for before, after in zip([0, *amounts], amounts, strict=False)]
    assert spent == [1, 1, 3, 4, 1, 2, 1, 5, 1, 1]


async def all_of(items):
    return [item async for item in items]


async def test_a_run_that_is_paced_does_what_one_does_that_is_not(world):
    image, blobs = await world.image("app", "v1", b"layer")
    stray = await world.blob("app", b"stray")
    await world.collect(requests_per_second=1e6)
    world.now += GRACE_S + 1
    assert (await world.collect(requests_per_second=1e6)).freed == 1
    assert await world.has(stray.digest, image.digest, *blobs) == [False, True, True, True]


def test_a_grace_that_replicas_cannot_keep_up_with_is_refused():
    with pytest.raises(ValueError, match="expected more than 90 s"):
        Collection(grace_s=60.0)
