"""What only the store in a bucket does: real servers' traps, faults on the way, and what it leaves in the bucket."""

import os
import subprocess
import sys
import tracemalloc

import pytest

from cache import paths, s3_client, s3_writing
from cache.errors import BlobNotFound, DigestMismatch, RecordConflict, StoreFull, StoreUnavailable
from cache.oci.digest import Digest
from cache.s3 import S3Store
from cache.s3_client import S3Location
from cache.store import ABSENT, Enumerable, LocalPaths
from tests.fakes.s3 import run_fake_s3
from tests.s3_servers import BUCKET, SECRET_KEY

MIB = 1 << 20
NAME = "repositories/docker.io/library/debian/_tags/stable"


@pytest.fixture
def fake(s3_credentials):
    with run_fake_s3() as server:
        yield server


@pytest.fixture
async def fake_store(fake, monkeypatch):
    """A store on the fake, with quick retries."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *args: 0.0)
    made = S3Store(S3Location(BUCKET, "some/prefix", fake.endpoint_url))
    yield made
    await made.close()


async def put(store, data, digest=None, expected=None):
    digest = digest or Digest.of(data)
    async with store.writer(expected) as writer:
        for start in range(0, len(data), MIB):
            await writer.write(data[start : start + MIB])
        await writer.commit(digest)
    return digest


async def read(store, digest, start=0, stop=None):
    async with store.open(digest, start, stop) as chunks:
        return b"".join([chunk async for chunk in chunks])


def keys(server, store):
    listed = server.client().list_objects_v2(Bucket=BUCKET, Prefix=store.url.removeprefix(f"s3://{BUCKET}/"))
    return [found["Key"] for found in listed.get("Contents", [])]


def uploads(server):
    return server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])


# On real servers


async def test_optional_protocols(bucket_store):
    assert isinstance(bucket_store, Enumerable)
    assert not isinstance(bucket_store, LocalPaths)


async def test_objects_lie_where_paths_says(s3_server, bucket_store):
    digest = await put(bucket_store, b"content")
    await bucket_store.put(NAME, b"x")
    prefix = bucket_store.url.removeprefix(f"s3://{BUCKET}/")
    assert keys(s3_server, bucket_store) == [f"{prefix}/{paths.blob(digest)}", f"{prefix}/{paths.record(NAME)}"]


async def test_nothing_unfinished_stays_in_the_bucket(s3_server, bucket_store):
    data = os.urandom(33 * MIB)
    for expected in (None, Digest.of(b"wrong")):
        with pytest.raises(DigestMismatch):
            await put(bucket_store, data, Digest.of(b"wrong"), expected)
    with pytest.raises(DigestMismatch):
        await put(bucket_store, data, Digest.of(b"wrong", "sha512"))
    async with bucket_store.writer() as writer:
        await writer.write(data)
    assert keys(s3_server, bucket_store) == []
    await put(bucket_store, data)
    await put(bucket_store, data, expected=Digest.of(data))
    assert len(keys(s3_server, bucket_store)) == 1
    assert uploads(s3_server) == []


async def test_a_copy_of_several_parts(s3_server, bucket_store, monkeypatch):
    monkeypatch.setattr(s3_writing, "COPY_PART_BYTES", 7 * MIB)
    data = os.urandom(17 * MIB)
    digest = await put(bucket_store, data)
    assert await read(bucket_store, digest) == data
    assert len(keys(s3_server, bucket_store)) == 1


async def test_the_server_knows_the_checksum_of_a_small_blob(seaweedfs_server, bucket_store, s3_server):
    if s3_server is not seaweedfs_server:
        assert s3_server.kind == "moto"  # moto takes checksums and forgets them
        return
    await put(bucket_store, b"content")
    (key,) = keys(s3_server, bucket_store)
    head = s3_server.client().head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == s3_writing.checksum(b"content")


async def test_more_than_one_page_of_names(s3_server, bucket_store, monkeypatch):
    client = s3_server.client()
    prefix = bucket_store.url.removeprefix(f"s3://{BUCKET}/")
    listed = [f"layers/00/{number:04}" for number in range(1005)]
    for name in listed:
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{paths.record(name)}", Body=b"")
    assert sorted([name async for name in bucket_store.names("layers/")]) == listed


async def test_memory_is_bounded(seaweedfs_server, s3_credentials):
    """Three parts of 16 MiB, and what boto3 needs besides; not the 160 MiB of the blob."""
    store = S3Store(S3Location(BUCKET, "tests/memory", seaweedfs_server.endpoint_url))
    await store.check()
    chunk = os.urandom(MIB)
    digest = Digest.of(chunk * 160)
    tracemalloc.start()
    try:
        async with store.writer(digest) as writer:
            for _ in range(160):
                await writer.write(chunk)
            await writer.commit(digest)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        async with store.open(digest) as chunks:
            assert sum([len(chunk) async for chunk in chunks]) == 160 * MIB
        read_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written < 70 * MIB
    assert read_peak < 16 * MIB
    await store.close()


async def test_a_missing_bucket_is_not_a_missing_blob(s3_server):
    store = S3Store(S3Location("no-such-bucket", "x", s3_server.endpoint_url))
    digest = Digest.of(b"x")
    failing = [store.check(), store.stat(digest), store.get(NAME), store.put(NAME, b"x"), store.put(NAME, b"x", ABSENT)]
    failing += [put(store, b"x"), put(store, os.urandom(17 * MIB)), read(store, digest), read(store, digest, 5, 9)]
    failing += [anext(store.blobs()), anext(store.names("layers/"))]
    for operation in failing:
        with pytest.raises(StoreUnavailable, match=r"store s3://no-such-bucket/x failed to .*NoSuchBucket"):
            await operation
    await store.close()


async def test_a_wrong_secret(seaweedfs_server, s3_credentials, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quitewrong")
    store = S3Store(S3Location(BUCKET, "", seaweedfs_server.endpoint_url))
    for operation in (store.check(), store.stat(Digest.of(b"x")), store.get(NAME), put(store, b"x")):
        with pytest.raises(StoreUnavailable, match="answered 403") as caught:
            await operation
        assert "quitewrong" not in str(caught.value)
        assert "testaccess" not in str(caught.value)
    await store.close()


# Without a server


async def test_no_credentials(s3_credentials, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store(S3Location(BUCKET, "", "http://127.0.0.1:9"))
    with pytest.raises(StoreUnavailable, match="no AWS credentials were found"):
        await store.check()
    await store.close()


async def test_nobody_listens(s3_credentials, monkeypatch):
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    store = S3Store(S3Location(BUCKET, "", "http://user:password@127.0.0.1:9"))
    with pytest.raises(StoreUnavailable, match=r"no usable answer from 127\.0\.0\.1:9 \(") as caught:
        await store.stat(Digest.of(b"x"))
    assert "password" not in str(caught.value)
    await store.close()


async def test_an_endpoint_that_is_no_url(s3_credentials):
    store = S3Store(S3Location(BUCKET, "", "not a url"))
    with pytest.raises(StoreUnavailable, match="failed to be opened"):
        await store.check()
    await store.close()


def test_boto3_is_not_imported_before_it_is_needed():
    program = "import cache.stores, cache.s3, sys; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=os.getcwd(), check=False).returncode == 0


@pytest.mark.parametrize(("bucket", "prefix"), [("", ""), ("a/b", ""), ("a", "/b"), ("a", "b/")])
def test_locations_are_checked(bucket, prefix):
    with pytest.raises(ValueError, match=r"bucket|prefix"):
        S3Location(bucket, prefix)


def test_keys_and_names_are_inverses():
    for prefix in ("", "some/prefix"):
        location = S3Location("bucket", prefix)
        assert location.name(location.key("v1/probe")) == "v1/probe"
    assert S3Location("bucket").url == "s3://bucket"
    assert S3Location("bucket", "some/prefix").url == "s3://bucket/some/prefix"


# On a server that misbehaves


@pytest.mark.parametrize("ignored", [{"If-None-Match"}, {"If-Match"}, {"If-None-Match", "If-Match"}])
async def test_a_server_that_ignores_conditions_is_refused(fake, fake_store, ignored):
    fake.faults.ignored_conditions = frozenset(ignored)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"does not honour If-.*Match on writes"):
            await fake_store.check()
    assert list(fake.objects) == [f"/{BUCKET}/some/prefix/{paths.PROBE}"]


async def test_a_server_whose_if_match_never_matches_is_refused(fake, fake_store):
    fake.faults.never_matching = True
    with pytest.raises(StoreUnavailable, match="does not honour If-Match"):
        await fake_store.check()


async def test_conditions_are_checked_once(fake, fake_store):
    await fake_store.check()
    fake.requests.clear()
    await fake_store.check()
    probe = f"/{BUCKET}/some/prefix/{paths.PROBE}"
    assert fake.requests == [f"PUT {probe}", f"GET {probe}"]


async def test_a_record_whose_answer_was_lost_is_no_conflict(fake, fake_store):
    fake.faults.lost_answers = 1
    version = await fake_store.put(NAME, b"1", ABSENT)
    assert (await fake_store.get(NAME)).version == version
    fake.faults.lost_answers = 1
    second = await fake_store.put(NAME, b"2", version)
    with pytest.raises(RecordConflict):
        await fake_store.put(NAME, b"3", version)
    fake.faults.lost_answers = 1
    await fake_store.remove(NAME, second)
    assert await fake_store.get(NAME) is None


async def test_a_blob_whose_answer_was_lost_is_there(fake, fake_store):
    fake.faults.lost_answers = 1
    assert await read(fake_store, await put(fake_store, b"content")) == b"content"


async def test_a_connection_that_breaks_is_taken_up_where_it_broke(fake, fake_store):
    data = os.urandom(3 * MIB)
    digest = await put(fake_store, data)
    fake.requests.clear()
    fake.faults.cut_bodies = 3
    assert await read(fake_store, digest) == data
    assert len(fake.requests) == 4
    fake.faults.cut_bodies = 1
    assert await read(fake_store, digest, 100, 2 * MIB) == data[100 : 2 * MIB]


async def test_a_connection_that_breaks_again_and_again(fake, fake_store):
    digest = await put(fake_store, os.urandom(3 * MIB))
    fake.faults.cut_bodies, fake.faults.cut_share = 1000, 0
    with pytest.raises(StoreUnavailable, match=f"read {digest}"):
        await read(fake_store, digest)


async def test_a_blob_that_goes_while_it_is_read(fake, fake_store):
    digest = await put(fake_store, os.urandom(3 * MIB))
    async with fake_store.open(digest) as chunks:
        fake.objects.clear()
        fake.faults.cut_bodies = 1
        await anext(chunks)
    fake.faults.cut_bodies = 0
    with pytest.raises(BlobNotFound):
        await read(fake_store, digest)


async def test_a_server_that_ignores_ranges(fake, fake_store):
    digest = await put(fake_store, b"content")
    fake.faults.ignore_ranges = True
    with pytest.raises(StoreUnavailable, match="takes no notice of ranges"):
        await read(fake_store, digest, 2, 4)


async def test_a_busy_server_is_asked_again(fake, fake_store):
    fake.faults.errors = [(503, "SlowDown"), (500, "InternalError")]
    await put(fake_store, b"content")
    fake.faults.errors = [(503, "SlowDown")]
    assert await fake_store.stat(Digest.of(b"content")) == 7


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", StoreUnavailable),
        (404, "NoSuchUniverse", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (507, "InsufficientStorage", StoreFull),
        (400, "QuotaExceeded", StoreFull),
        (500, "InternalError", StoreUnavailable),
    ],
)
async def test_errors_name_the_store_and_no_secret(fake, fake_store, status, code, kind):
    for start in (lambda: fake_store.put(NAME, b"x"), lambda: put(fake_store, b"x"), lambda: fake_store.get(NAME)):
        fake.faults.errors = [(status, code)] * 20
        with pytest.raises(StoreUnavailable, match="store s3://crossdock/some/prefix failed to") as caught:
            await start()
        assert SECRET_KEY not in str(caught.value)
    assert type(caught.value) is kind
    assert f"{status} {code}" in str(caught.value)


async def test_conflicting_writes_of_a_blob_are_tried_again(fake, fake_store):
    """Amazon answers 409 when two conditional writes of one key meet."""
    fake.faults.errors = [(409, "ConditionalRequestConflict"), (404, "NoSuchKey"), (404, "NoSuchKey")]
    assert await read(fake_store, await put(fake_store, b"content")) == b"content"


async def test_conflicting_writes_of_a_record_are_a_conflict(fake, fake_store):
    fake.faults.errors = [(409, "ConditionalRequestConflict")]
    with pytest.raises(RecordConflict):
        await fake_store.put(NAME, b"1", ABSENT)
