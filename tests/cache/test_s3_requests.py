"""How many requests S3 gets for what clients do. They cost money, time and a place in its rate limits."""

import asyncio
import os
from datetime import timedelta

import pytest

from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.errors import BlobNotFound
from cache.oci.digest import Digest
from cache.s3.store import S3Store
from cache.store import ABSENT, Unfinished
from tests.cache.conftest import new_location
from tests.cache.s3_use import MIB, NAME, put, read
from tests.fakes.s3 import Faults
from tests.s3_servers import BUCKET

LARGE_BYTES = 17 * MIB
UPLOAD = ["POST?uploads", *["PUT?partNumber&uploadId"] * 3, "POST?uploadId"]


@pytest.fixture
def counted(fake):
    """What a piece of work asks of S3."""

    async def count(work):
        fake.requests.clear()
        result = await work
        return result, fake.kinds

    return count


async def test_a_hit_is_two_requests_and_a_miss_one(fake_store, counted):
    small = await put(fake_store, b"content")
    assert await counted(fake_store.stat(small)) == (7, ["GET"])
    assert await counted(read(fake_store, small)) == (b"content", ["GET"])
    assert await counted(read(fake_store, small, 2, 4)) == (b"nt", ["GET"])
    assert await counted(fake_store.stat(Digest.of(b"x"))) == (None, ["GET"])
    with pytest.raises(BlobNotFound):
        await read(fake_store, Digest.of(b"x"))


async def test_a_push_of_a_small_blob_is_one_request(fake_store, counted):
    _, kinds = await counted(put(fake_store, b"content"))
    assert kinds == ["PUT"]
    _, kinds = await counted(put(fake_store, b"content"))
    assert kinds == ["PUT", "GET"]  # refused, and looked whether it is the same


@pytest.mark.parametrize("known", [True, False])
async def test_a_push_of_a_large_blob_is_one_request_per_part_and_two(fake_store, counted, known):
    data = os.urandom(LARGE_BYTES)
    expected = Digest.of(data) if known else None
    _, kinds = await counted(put(fake_store, data, expected=expected))
    assert sorted(kinds) == sorted(UPLOAD if known else ["GET", *UPLOAD])
    _, kinds = await counted(put(fake_store, data))
    assert kinds == ["GET"]  # it is there: nothing is uploaded


async def test_records_are_one_request_each(fake_store, counted):
    version, kinds = await counted(fake_store.put(NAME, b"1", ABSENT))
    assert kinds == ["PUT"]
    _, kinds = await counted(fake_store.get(NAME))
    assert kinds == ["GET"]
    _, kinds = await counted(fake_store.put(NAME, b"2", version))
    assert kinds == ["PUT"]
    _, kinds = await counted(fake_store.remove(NAME))
    assert kinds == ["DELETE"]


async def test_a_health_check_is_two_requests_but_for_the_first(fake_store, counted):
    _, kinds = await counted(fake_store.check())
    assert len(kinds) <= 20
    _, kinds = await counted(fake_store.check())
    assert kinds == ["PUT", "GET"]


async def test_behind_a_disk_a_warm_hit_asks_nothing(fake_store, counted, tmp_path):
    small = await put(fake_store, b"content")
    tiered = TieredStore(fake_store, DiskTier(tmp_path / "disk", 20 * MIB))
    await tiered.check()
    await tiered.settled()

    async def hit():
        assert await tiered.stat(small) == 7
        content = await read(tiered, small)
        await tiered.settled()
        return content

    assert await counted(hit()) == (b"content", ["GET", "GET"])
    assert await counted(hit()) == (b"content", [])
    await tiered._disk.close()


# What dead writers leave


async def test_a_thousand_deletions_are_one_request(fake, fake_store, counted):
    location = "some/prefix/v1/records/"
    fake.objects |= {f"/{BUCKET}/{location}layers/ab/{number}": b"x" for number in range(2100)}
    _, kinds = await counted(fake_store.remove_all([f"layers/ab/{number}" for number in range(2050)]))
    assert kinds == ["POST?delete"] * 3
    assert len(fake.objects) == 50


async def test_a_server_without_bulk_deletion_is_asked_once(fake, fake_store, counted):
    fake.faults = Faults(on="POST .*delete", errors=[(501, "NotImplemented")])
    digests = [await put(fake_store, b"%d" % number) for number in range(4)]
    _, kinds = await counted(fake_store.delete_all(digests[:2]))
    assert kinds == ["POST?delete", "DELETE", "DELETE"]
    _, kinds = await counted(fake_store.delete_all(digests[2:]))
    assert kinds == ["DELETE", "DELETE"]
    assert fake.objects == {}


@pytest.mark.parametrize(
    "answer", ["<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>", "<Other/>"]
)
async def test_what_bulk_deletion_leaves_is_deleted_one_by_one(fake, fake_store, counted, monkeypatch, answer):
    digests = [await put(fake_store, b"%d" % number) for number in range(2)]
    monkeypatch.setattr("tests.fakes.s3._Handler._delete_all", lambda handler, _: handler._xml(200, answer))
    _, kinds = await counted(fake_store.delete_all(digests))
    assert kinds == ["POST?delete", "DELETE", "DELETE"]
    assert fake.objects == {}


async def test_what_is_old_is_swept(fake, fake_store):
    data = os.urandom(LARGE_BYTES)
    begun = fake.now
    async with fake_store.writer(Digest.of(data)) as writer:
        await writer.write(data)
        while not fake.uploads:
            await asyncio.sleep(0.01)
        (upload,) = fake.uploads.values()
        abandoned = type(upload)(upload.path, begun - timedelta(days=2))
        elsewhere = type(upload)(f"/{BUCKET}/others/v1/x", begun - timedelta(days=2))
        fake.uploads |= {"abandoned": abandoned, "elsewhere": elsewhere}
        for name, age in [("old", timedelta(days=2)), ("young", timedelta(hours=1))]:
            place = f"/{BUCKET}/some/prefix/v1/incoming/{name}"
            fake.objects[place], fake.modified[place] = b"12345", begun - age
        assert await fake_store.sweep(24 * 3600) == Unfinished(uploads=1, files=1, files_bytes=5)
        assert "abandoned" not in fake.uploads
        assert "elsewhere" in fake.uploads
        assert [place.rpartition("/")[2] for place in fake.objects] == ["young"]
        await writer.commit(Digest.of(data))
    assert await fake_store.stat(Digest.of(data)) == LARGE_BYTES


async def test_what_is_young_is_left(seaweedfs_server, s3_credentials):
    store = S3Store(new_location(seaweedfs_server.endpoint_url))
    key = f"{store.url.removeprefix(f's3://{BUCKET}/')}/v1/blobs/x"
    seaweedfs_server.client().create_multipart_upload(Bucket=BUCKET, Key=key)
    assert await store.sweep(3600) == Unfinished()
    assert await store.sweep(-3600) == Unfinished(uploads=1)
    assert await store.sweep(-3600) == Unfinished()
    await store.close()
