"""What dead writers left goes; what somebody still writes to stays."""

import os
import time

import pytest

from cache import paths
from cache.disk.blob_files import LEFTOVER_AGE_S
from cache.disk.filesystem import FilesystemStore
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from cache.s3.store import S3Store
from cache.store import Unfinished
from cache.upkeep.pace import Pace
from cache.upkeep.reap import ASIDE_S, Reaped, reap
from cache.upkeep.rounds import ROUND, claim
from cache.upkeep.scrub_turns import Scrub
from tests.cache.conftest import new_location
from tests.cache.s3_use import put
from tests.s3_servers import BUCKET


def age(path):
    """Makes a file a little older than what is left alone."""
    old = time.time() - LEFTOVER_AGE_S - 60
    os.utime(path, (old, old))


async def test_files_go_a_day_after_the_last_write(tmp_path):
    store = FilesystemStore(tmp_path / "store")
    async with store.writer() as writer:
        await writer.write(bytes(2 << 20))
        incoming = tmp_path / "store" / paths.TEMPORARY
        (live,) = incoming.iterdir()
        age(live)
        await writer.write(bytes(1 << 20))  # however long ago it began
        left = incoming / "left"
        left.write_bytes(b"12345")
        age(left)
        young = incoming / "young"
        young.write_bytes(b"1")
        assert await store.unfinished() == Unfinished(files=3, files_bytes=(3 << 20) + 6)
        assert await reap(store, 0.0) == Reaped(Unfinished(files=1, files_bytes=5))
        assert set(incoming.iterdir()) == {live, young}
        await writer.commit(Digest.of(bytes(3 << 20)))
    assert await reap(store, 0.0) == Reaped(Unfinished())
    await store.close()


async def test_an_upload_to_which_somebody_adds_stays(bucket_store, s3_server):
    key = f"{bucket_store.url.removeprefix(f's3://{BUCKET}/')}/v1/blobs/x"
    client = s3_server.client()
    upload = {"Bucket": BUCKET, "Key": key}
    upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
    time.sleep(1.1)  # moments in S3 are whole seconds
    begun = int(time.time())
    client.upload_part(**upload, PartNumber=1, Body=b"x")
    assert await bucket_store.unfinished() == Unfinished(uploads=1)
    assert await bucket_store.sweep(time.time() - begun + 0.5) == Unfinished()
    assert await bucket_store.sweep(-5) == Unfinished(uploads=1)


async def test_what_was_put_aside_goes_after_a_month(tmp_path):
    store = FilesystemStore(tmp_path / "store")
    digest = await put(store, b"good")
    (tmp_path / "store" / paths.blob(digest)).write_bytes(b"bad")
    await Scrub(store, Pace(None), now=lambda: 1000.0).turn(lambda: False)
    aside = tmp_path / "store" / paths.quarantined(digest)
    assert (await reap(store, 1000.0 + ASIDE_S - 1)).put_aside == 0
    assert aside.exists()
    assert (await reap(store, 1000.0 + ASIDE_S)).put_aside == 1
    assert not aside.exists()
    assert await store.get(paths.damaged(digest)) is None
    await store.close()


async def test_a_store_without_leftovers_has_none():
    assert await reap(MemoryStore(), 0.0) == Reaped(Unfinished())


# Rounds


@pytest.fixture(params=["memory", "filesystem", "seaweedfs"])
async def shared(request, tmp_path):
    """A store that replicas share."""
    if request.param == "seaweedfs":
        request.getfixturevalue("s3_credentials")
        store = S3Store(new_location(request.getfixturevalue("seaweedfs_server").endpoint_url))
    else:
        store = MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path)
    yield store
    await store.close()


async def test_a_round_is_one_replicas(shared):
    assert await claim(shared, 1000.0, 100.0)
    assert not await claim(shared, 1000.0, 100.0)
    assert not await claim(shared, 1070.0, 100.0)
    assert await claim(shared, 1081.0, 100.0)
    assert not await claim(shared, 1100.0, 100.0)


async def test_of_replicas_at_the_same_moment_one_has_it(shared, monkeypatch):
    await shared.put(ROUND, b'{"begun_at": 0.0}')
    get = shared.get

    async def overtaken(name):
        found = await get(name)
        monkeypatch.setattr(shared, "get", get)
        assert await claim(shared, 1000.0, 100.0)
        return found

    monkeypatch.setattr(shared, "get", overtaken)
    assert not await claim(shared, 1000.0, 100.0)


@pytest.mark.parametrize("record", [b"nonsense", b'{"begun_at": 5000.0}'])
async def test_neither_damage_nor_a_clock_that_was_wrong_stops_the_rounds(shared, record):
    await shared.put(ROUND, record)
    assert await claim(shared, 1000.0, 100.0)
    assert not await claim(shared, 1001.0, 100.0)
