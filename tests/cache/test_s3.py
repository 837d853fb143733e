"""What only the store in a bucket does, on real servers and without any: what it leaves there, and its errors."""

import hashlib
import os
import subprocess
import sys
from functools import partial

import aiohttp
import pytest
from yarl import URL

from cache import paths
from cache.errors import DigestMismatch, StoreUnavailable
from cache.oci.digest import Digest
from cache.s3.location import S3Location
from cache.s3.session import S3Session
from cache.s3.store import S3Store
from cache.s3.wire import checksum
from cache.store import ABSENT, Enumerable, LocalPaths, Presigned, Sweepable
from cache.together import together
from tests.cache.conftest import new_location
from tests.cache.s3_use import MIB, NAME, keys, names, put, read, uploads
from tests.s3_servers import BUCKET, SECRET_KEY

# On real servers


async def test_optional_protocols(bucket_store):
    for kind in (Enumerable, Presigned, Sweepable):
        assert isinstance(bucket_store, kind)
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
    assert uploads(s3_server, bucket_store) == []


async def test_the_server_knows_the_checksum_of_a_small_blob(seaweedfs_server, bucket_store, s3_server):
    if s3_server is not seaweedfs_server:
        assert s3_server.kind in ("moto", "radosgw")  # they take checksums and forget them
        return
    await put(bucket_store, b"content")
    (key,) = keys(s3_server, bucket_store)
    head = s3_server.client().head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == checksum(hashlib.sha256(b"content").digest())


async def test_more_than_one_page_of_names(fake, fake_store, monkeypatch):
    monkeypatch.setattr("tests.fakes.s3.PAGE", 3)
    listed = [f"layers/00/{number:04}" for number in range(10)]
    for name in listed:
        await fake_store.put(name, b"x")
    assert await names(fake_store, "layers/") == listed
    assert fake.kinds.count("GET?list-type&prefix&encoding-type") == 1
    assert sum("continuation-token" in kind for kind in fake.kinds) == 3


async def test_more_than_one_page_of_a_real_server(seaweedfs_server, s3_credentials):
    store = S3Store(new_location(seaweedfs_server.endpoint_url))
    listed = [f"layers/00/{number:04}" for number in range(1005)]
    await together([partial(store.put, name, b"x") for name in listed], 16)
    assert await names(store, "layers/") == listed
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


async def test_a_signed_url_is_for_everybody_for_a_while(seaweedfs_server, s3_credentials):
    store = S3Store(new_location(seaweedfs_server.endpoint_url))
    url = await store.presigned_url(await put(store, b"content"), 60)
    async with aiohttp.ClientSession() as http:
        async with http.get(URL(url, encoded=True), headers={"Range": "bytes=2-3"}) as reply:
            assert (reply.status, await reply.read()) == (206, b"nt")
        async with http.head(URL(url, encoded=True)) as reply:
            assert reply.status == 403
        async with http.get(URL(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"), encoded=True)) as reply:
            assert reply.status == 403
    assert SECRET_KEY not in url
    await store.close()


# Without a server


@pytest.mark.parametrize(
    ("location", "root"),
    [
        (S3Location("bucket", "p", "", "eu-central-1"), "https://bucket.s3.eu-central-1.amazonaws.com/"),
        (S3Location("with.dots", "", "", "eu-central-1"), "https://s3.eu-central-1.amazonaws.com/with.dots/"),
        (S3Location("bucket", "", "http://host:9000"), "http://host:9000/bucket/"),
        (S3Location("bucket", "", "https://user:password@host/s3"), "https://host/s3/bucket/"),
    ],
)
async def test_where_a_bucket_is(s3_credentials, location, root):
    session = S3Session(location)
    access = await session.access()
    assert access.root_url == root
    assert access.url("v1/records/a b:c") == f"{root}v1/records/a%20b%3Ac"
    await session.close()


async def test_no_credentials(s3_credentials, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store(S3Location(BUCKET, "", "http://127.0.0.1:9"))
    with pytest.raises(StoreUnavailable, match="no AWS credentials were found"):
        await store.check()
    await store.close()


async def test_nobody_listens(s3_credentials):
    store = S3Store(S3Location(BUCKET, "", "http://user:password@127.0.0.1:9"))
    with pytest.raises(StoreUnavailable, match=r"no usable answer from 127\.0\.0\.1:9 \(") as caught:
        await store.stat(Digest.of(b"x"))
    assert "password" not in str(caught.value)
    await store.close()


async def test_an_endpoint_that_is_no_url(s3_credentials):
    store = S3Store(S3Location(BUCKET, "", "not a url"))
    with pytest.raises(StoreUnavailable, match="ValueError in the settings for S3"):
        await store.check()
    await store.close()


def test_boto3_is_not_imported_before_it_is_needed():
    program = "import cache.stores, cache.s3.store, sys; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
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
