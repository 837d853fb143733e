"""What a store knows of repositories."""

import asyncio

import pytest

from cache import paths
from cache.catalog import Catalog, TagEntry
from cache.disk.filesystem import FilesystemStore
from cache.errors import DamagedRecord, DigestMismatch, RecordConflict
from cache.memory import MemoryStore
from cache.oci import media_types
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.manifest import make_manifest
from cache.oci.referrers import with_referrer, without_referrer

HUB = "docker.io"
DEBIAN = "library/debian"


def blob(data, media_type=media_types.OCI_LAYER_GZIP):
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


MANIFEST = make_manifest(blob(b"{}", media_types.OCI_CONFIG), (blob(b"layer"),), annotations={"a": "b"})


@pytest.fixture(params=["memory", "filesystem"])
async def store(request, tmp_path):
    made = MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path / "store")
    yield made
    await made.close()


@pytest.fixture
def catalog(store):
    return Catalog(store)


async def test_a_tag(catalog):
    assert await catalog.tag(HUB, DEBIAN, "stable") is None
    entry = TagEntry(MANIFEST.descriptor, 1795424400.25)
    await catalog.set_tag(HUB, DEBIAN, "stable", entry)
    assert await catalog.tag(HUB, DEBIAN, "stable") == entry
    later = TagEntry(blob(b"other", media_types.OCI_INDEX), 1795424500.0)
    await catalog.set_tag(HUB, DEBIAN, "stable", later)
    assert await catalog.tag(HUB, DEBIAN, "stable") == later
    await catalog.remove_tag(HUB, DEBIAN, "stable")
    assert await catalog.tag(HUB, DEBIAN, "stable") is None
    await catalog.remove_tag(HUB, DEBIAN, "stable")


async def test_tags_are_listed_in_order_and_only_the_repositorys_own(catalog):
    entry = TagEntry(MANIFEST.descriptor, 0.0)
    for name in ("v2", "V1", "latest", "1.10", "1.9"):
        await catalog.set_tag(HUB, "a", name, entry)
    for namespace, repository in ((HUB, "a/b"), (HUB, "ab"), (paths.HOSTED, "a"), ("localhost:5000", "a")):
        await catalog.set_tag(namespace, repository, "other", entry)
    assert await catalog.tags(HUB, "a") == ["1.10", "1.9", "V1", "latest", "v2"]
    assert await catalog.tags(paths.HOSTED, "a") == ["other"]
    assert await catalog.tags(HUB, "nothing") == []


async def test_members_belong_to_one_repository(catalog):
    layer = blob(b"layer")
    await catalog.add_member(HUB, "a", layer)
    assert await catalog.member(HUB, "a", layer.digest) == layer
    for namespace, repository in ((HUB, "a/b"), (HUB, "b"), (paths.HOSTED, "a")):
        assert await catalog.member(namespace, repository, layer.digest) is None
    await catalog.remove_member(HUB, "a", layer.digest)
    assert await catalog.member(HUB, "a", layer.digest) is None
    await catalog.remove_member(HUB, "a", layer.digest)


async def test_descriptors_come_back_whole(catalog):
    descriptor = Descriptor(
        media_type=media_types.OCI_MANIFEST,
        digest=Digest.of(b"x", "sha512"),
        size=7,
        annotations={"org.example": "é"},
        platform=Platform(os="linux", architecture="arm", variant="v7"),
    )
    await catalog.add_member(HUB, "a", descriptor)
    assert await catalog.member(HUB, "a", descriptor.digest) == descriptor


async def test_a_manifest(catalog, store):
    assert await catalog.manifest(HUB, DEBIAN, MANIFEST.digest) is None
    await catalog.put_manifest(HUB, DEBIAN, MANIFEST)
    assert await catalog.manifest(HUB, DEBIAN, MANIFEST.digest) == (MANIFEST.raw, media_types.OCI_MANIFEST)
    assert await catalog.member(HUB, DEBIAN, MANIFEST.digest) == MANIFEST.descriptor
    assert await catalog.manifest(HUB, "other", MANIFEST.digest) is None
    await store.delete(MANIFEST.digest)
    assert await catalog.manifest(HUB, DEBIAN, MANIFEST.digest) is None


async def test_a_blob_is_not_served_as_a_manifest(catalog):
    data = b"may be huge"
    await catalog.put_blob_bytes(HUB, "a", blob(data), data)
    assert await catalog.member(HUB, "a", Digest.of(data)) == blob(data)
    assert await catalog.manifest(HUB, "a", Digest.of(data)) is None


async def test_bytes_of_another_digest_become_no_member(catalog):
    with pytest.raises(DigestMismatch):
        await catalog.put_blob_bytes(HUB, "a", blob(b"expected"), b"other")
    assert await catalog.member(HUB, "a", Digest.of(b"expected")) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"descriptor": 3}', b'{"checked_at": 1.0}', b"\xff\xfe"])
async def test_a_damaged_record_is_not_an_absent_one(catalog, store, damage):
    tag = paths.tag(HUB, "a", "v1")
    member = paths.member(HUB, "a", MANIFEST.digest)
    await store.put(tag, damage)
    await store.put(member, damage)
    with pytest.raises(DamagedRecord, match=tag):
        await catalog.tag(HUB, "a", "v1")
    with pytest.raises(DamagedRecord, match=member):
        await catalog.manifest(HUB, "a", MANIFEST.digest)


@pytest.mark.parametrize(
    ("namespace", "repository", "tag"), [("a/b", "c", "v1"), ("a", "../c", "v1"), ("a", "c", "..")]
)
async def test_names_that_are_none_are_refused(catalog, namespace, repository, tag):
    with pytest.raises(ValueError, match="is not a"):
        await catalog.tag(namespace, repository, tag)


async def test_repositories_are_listed_once_and_in_order(catalog):
    for name in ("b/a", "a", "a/b/c", "a-b", "b/a"):
        await catalog.list_repository(paths.HOSTED, name)
    assert await catalog.repositories(paths.HOSTED) == ["a", "a-b", "a/b/c", "b/a"]
    assert await catalog.repositories(HUB) == []
    assert await catalog.is_listed(paths.HOSTED, "a/b/c")
    assert not await catalog.is_listed(paths.HOSTED, "a/b")


async def test_referrers_are_noted_by_all_who_write_at_once(catalog):
    subject, blobs = Digest.of(b"subject"), sorted((blob(b"%d" % number) for number in range(20)), key=digest_of)
    assert await catalog.referrers(HUB, DEBIAN, subject) == ()

    async def add(referring):
        await catalog.change_referrers(HUB, DEBIAN, subject, lambda noted: with_referrer(noted, referring))

    async def remove(referring):
        await catalog.change_referrers(HUB, DEBIAN, subject, lambda noted: without_referrer(noted, referring.digest))

    await asyncio.gather(*map(add, reversed(blobs)), *map(add, blobs))
    assert await catalog.referrers(HUB, DEBIAN, subject) == tuple(blobs)
    await asyncio.gather(*map(remove, blobs[1:]))
    assert await catalog.referrers(HUB, DEBIAN, subject) == (blobs[0],)
    await remove(blobs[0])
    assert await catalog.referrers(HUB, DEBIAN, subject) == ()


async def test_a_conflict_that_does_not_end_is_told(store, monkeypatch):
    async def lose(*_):
        raise RecordConflict("taken")

    monkeypatch.setattr("cache.catalog.CONFLICT_PAUSE_S", 0)
    monkeypatch.setattr(store, "put", lose)
    with pytest.raises(RecordConflict):
        await Catalog(store).change_referrers(HUB, DEBIAN, Digest.of(b"x"), lambda _: (blob(b"y"),))


def digest_of(descriptor):
    return descriptor.digest


async def test_a_tag_is_removed_only_while_it_points_to_the_manifest(catalog):
    old, new = TagEntry(MANIFEST.descriptor, 0.0), TagEntry(blob(b"other", media_types.OCI_INDEX), 0.0)
    await catalog.set_tag(HUB, DEBIAN, "stable", new)
    await catalog.remove_tag_of(HUB, DEBIAN, "stable", old.descriptor.digest)
    assert await catalog.tag(HUB, DEBIAN, "stable") == new
    await catalog.remove_tag_of(HUB, DEBIAN, "stable", new.descriptor.digest)
    assert await catalog.tag(HUB, DEBIAN, "stable") is None
    await catalog.remove_tag_of(HUB, DEBIAN, "stable", new.descriptor.digest)


@pytest.mark.parametrize("meanwhile", ["other", "same"])
async def test_a_tag_that_is_pointed_while_it_is_removed_is_judged_anew(catalog, store, monkeypatch, meanwhile):
    """Another replica writes between our reading and our removing."""
    old, new = TagEntry(MANIFEST.descriptor, 0.0), TagEntry(blob(b"other", media_types.OCI_INDEX), 1.0)
    await catalog.set_tag(HUB, DEBIAN, "stable", old)
    remove, written = store.remove, []

    async def late(name, expected=None):
        if not written:
            written.append(name)
            await catalog.set_tag(HUB, DEBIAN, "stable", new if meanwhile == "other" else old)
        await remove(name, expected)

    monkeypatch.setattr(store, "remove", late)
    await catalog.remove_tag_of(HUB, DEBIAN, "stable", old.descriptor.digest)
    assert await catalog.tag(HUB, DEBIAN, "stable") == (new if meanwhile == "other" else None)
