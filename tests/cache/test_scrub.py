"""Damaged blobs are found, put aside and filled again; good ones are never touched."""

import errno
import os
import secrets

import pytest

from cache import paths
from cache.disk.filesystem import FilesystemStore
from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.errors import BlobNotFound, StoreUnavailable
from cache.memory import MemoryStore
from cache.oci import codec
from cache.oci.digest import Digest
from cache.s3.store import S3Store
from cache.store import Aside
from cache.upkeep.pace import Pace
from cache.upkeep.scrub import Checked, Damage, Health, check, check_all, check_copies, put_aside
from cache.upkeep.scrub_turns import CURSOR, PASS_S, Cursor, Scrub
from tests.cache.conftest import new_location
from tests.cache.s3_use import put, read
from tests.s3_servers import BUCKET

FAST = Pace(None)
GOOD, BAD = b"good " * 1000, b"bad!! " * 999


@pytest.fixture(params=["filesystem", "moto", "seaweedfs"])
async def damaged(request, tmp_path):
    """A store. ``damage`` puts other bytes under a blob's name, behind its back; ``left`` is what was put aside."""
    if request.param == "filesystem":
        store = FilesystemStore(tmp_path / "store")

        def write(digest, data):
            path = tmp_path / "store" / paths.blob(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        def left(digest):
            return (tmp_path / "store" / paths.quarantined(digest)).read_bytes()
    else:
        request.getfixturevalue("s3_credentials")
        server = request.getfixturevalue(f"{request.param}_server")
        location = new_location(server.endpoint_url)
        store, client = S3Store(location), server.client()
        await store.check()

        def write(digest, data):
            client.put_object(Bucket=BUCKET, Key=location.key(paths.blob(digest)), Body=data)

        def left(digest):
            return client.get_object(Bucket=BUCKET, Key=location.key(paths.quarantined(digest)))["Body"].read()

    store.damage, store.left = write, left
    yield store
    await store.close()


async def record_of(store, digest):
    record = await store.get(paths.damaged(digest))
    return codec.decode(record.value, Damage, "damage") if record is not None else None


@pytest.mark.parametrize("content", [BAD, b"", GOOD[:-1], GOOD + b"x"])
async def test_damage_is_found_and_put_aside(damaged, content):
    other = await put(damaged, b"another")
    digest = await put(damaged, GOOD)
    damaged.damage(digest, content)
    turn = await Scrub(damaged, FAST, now=lambda: 77.0).turn(lambda: False)
    assert (turn.blobs, turn.damaged, turn.refilled, turn.failed, turn.ended) == (2, 1, 0, 0, True)
    assert await damaged.stat(digest) is None
    assert await damaged.stat(other) == len(b"another")
    assert damaged.left(digest) == content
    found = await record_of(damaged, digest)
    assert (found.size_bytes, found.found_at, found.aside) == (len(content), 77.0, "kept")
    assert str(digest) in found.problem
    await put(damaged, GOOD)
    assert await read(damaged, digest) == GOOD
    await damaged.remove_aside(digest)
    await damaged.remove_aside(digest)
    with pytest.raises(Exception, match=r"NoSuchKey|No such file"):
        damaged.left(digest)


async def test_what_changes_between_the_looks_is_left(damaged):
    digest = await put(damaged, GOOD)
    damaged.damage(digest, BAD)
    found = await check(damaged, digest, FAST)
    assert (found.health, found.size_bytes) == (Health.DAMAGED, len(BAD))
    damaged.damage(digest, GOOD)
    assert await put_aside(damaged, found, FAST, 0.0) is None
    assert await damaged.put_aside(digest, found.version) is Aside.CHANGED
    assert await read(damaged, digest) == GOOD
    assert await record_of(damaged, digest) is None


async def test_what_is_gone_is_no_damage(damaged):
    digest = Digest.of(b"never there")
    assert await check(damaged, digest, FAST) == Checked(digest, Health.GONE)
    assert await damaged.put_aside(digest, "x") is Aside.CHANGED
    with pytest.raises(BlobNotFound):
        async with damaged.open_stored(digest):
            pass


async def test_a_good_file_that_takes_the_place_is_given_back(tmp_path, monkeypatch):
    store = FilesystemStore(tmp_path / "store")
    digest = await put(store, GOOD)
    (tmp_path / "store" / paths.blob(digest)).write_bytes(BAD)
    found = await check(store, digest, FAST)
    replace = os.replace

    def late(source, target):
        monkeypatch.setattr(os, "replace", replace)
        fresh = tmp_path / "fresh"
        fresh.write_bytes(GOOD)
        replace(fresh, source)  # a writer is quicker than the move
        replace(source, target)

    monkeypatch.setattr(os, "replace", late)
    assert await store.put_aside(digest, found.version) is Aside.CHANGED
    assert await read(store, digest) == GOOD
    assert not (tmp_path / "store" / paths.quarantined(digest)).exists()
    await store.close()


async def test_a_pass_goes_on_where_it_was_and_begins_again_in_time(tmp_path):
    store = FilesystemStore(tmp_path / "store")
    digests = sorted([await put(store, secrets.token_bytes(8)) for _ in range(10)])
    now = [1000.0]
    first = await Scrub(store, FAST, now=lambda: now[0]).turn(lambda: True)
    assert (first.blobs, first.ended) == (1, False)
    assert codec.decode((await store.get(CURSOR)).value, Cursor, "cursor") == Cursor(1000.0, digests[0])
    now[0] += 500
    second = await Scrub(store, FAST, now=lambda: now[0]).turn(lambda: False)
    assert (second.blobs, second.ended) == (9, True)
    assert (await Scrub(store, FAST, now=lambda: now[0]).turn(lambda: False)).blobs == 0
    now[0] = 1000.0 + PASS_S
    assert (await Scrub(store, FAST, now=lambda: now[0]).turn(lambda: False)).blobs == 10
    await store.put(CURSOR, b"nonsense")
    assert (await Scrub(store, FAST, now=lambda: now[0]).turn(lambda: False)).blobs == 10
    await store.close()


async def test_what_came_from_somewhere_is_asked_for_again(damaged):
    asked = []

    async def refetch(digest):
        asked.append(digest)
        return True

    digest = await put(damaged, GOOD)
    damaged.damage(digest, BAD)
    turn = await Scrub(damaged, FAST, refetch).turn(lambda: False)
    assert (turn.damaged, turn.refilled, asked) == (1, 1, [digest])


# Failures


def failing(monkeypatch, error):
    def pread(fd, size_bytes, start):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("cache.disk.blob_files.os.pread", pread)


async def test_what_the_disk_cannot_read_is_damaged(tmp_path, monkeypatch):
    store = FilesystemStore(tmp_path / "store")
    digest = await put(store, GOOD)
    failing(monkeypatch, errno.EIO)
    assert (await Scrub(store, FAST).turn(lambda: False)).damaged == 1
    assert await store.stat(digest) is None
    assert "Input/output error" in (await record_of(store, digest)).problem
    await store.close()


async def test_a_store_that_fails_is_no_damage_and_is_not_asked_for_ever(tmp_path, monkeypatch):
    store = FilesystemStore(tmp_path / "store")
    digests = [await put(store, secrets.token_bytes(8)) for _ in range(5)]
    failing(monkeypatch, errno.EACCES)
    with pytest.raises(StoreUnavailable, match="3 in a row"):
        await Scrub(store, FAST).turn(lambda: False)
    assert [await store.stat(digest) for digest in digests] == [8] * 5
    await store.close()


async def test_one_blob_that_a_bucket_does_not_give_is_left(fake, fake_store):
    digests = sorted([await put(fake_store, secrets.token_bytes(100)) for _ in range(3)])
    fake.faults.on = digests[1].hex
    fake.faults.errors = [(500, "InternalError")] * 100
    listed = (digest async for digest, _ in fake_store.blobs())
    found = [checked async for checked in check_all(fake_store, listed, FAST)]
    assert [checked.health for checked in found] == [Health.GOOD, Health.FAILED, Health.GOOD]
    fake.faults.errors = []
    assert await fake_store.stat(digests[1]) == 100


# Copies on the disk


@pytest.fixture
async def tiered(tmp_path):
    store = TieredStore(FilesystemStore(tmp_path / "lower"), DiskTier(tmp_path / "disk", 100 << 20))
    await store.check()
    await store.settled()
    yield store
    await store.close()


async def test_the_disk_gives_back_what_the_lower_store_has_lost(tiered, tmp_path):
    digest = await put(tiered, GOOD)
    await tiered.settled()
    (tmp_path / "lower" / paths.blob(digest)).write_bytes(BAD)
    turn = await Scrub(tiered, FAST).turn(lambda: False)
    assert (turn.damaged, turn.refilled) == (1, 1)
    assert (tmp_path / "lower" / paths.blob(digest)).read_bytes() == GOOD


async def test_a_damaged_copy_gives_nothing_back_and_is_dropped(tiered, tmp_path):
    digest, other = await put(tiered, GOOD), await put(tiered, b"other")
    await tiered.settled()
    for tier in ("lower", "disk"):
        (tmp_path / tier / paths.blob(digest)).write_bytes(BAD)
    assert await check_copies(tiered, FAST) == 1
    assert tiered.copies() == [other]
    turn = await Scrub(tiered, FAST).turn(lambda: False)
    assert (turn.damaged, turn.refilled) == (1, 0)
    assert await tiered.stat(digest) is None


async def test_a_tier_before_what_cannot_be_looked_after_says_so(tmp_path):
    store = TieredStore(MemoryStore(), DiskTier(tmp_path / "disk", 1 << 20))
    with pytest.raises(StoreUnavailable, match="cannot put any aside"):
        await store.put_aside(Digest.of(b""), "")
    await store.close()


# Rate


async def test_no_more_than_the_rate_passes():
    now, slept = [0.0], []

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += max(0.0, seconds)

    pace = Pace(1000, lambda: now[0], sleep)
    for _ in range(4):
        await pace.spend(500)
    assert now[0] == 2.0
    now[0] += 100.0  # what was not used is not saved up
    await pace.spend(3000)
    assert slept[-1] == 3.0
    with pytest.raises(ValueError, match="more than nothing"):
        Pace(0)
