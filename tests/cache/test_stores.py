"""A store from its URL."""

import pytest

from cache.disk.filesystem import FilesystemStore
from cache.memory import MemoryStore
from cache.s3.store import S3Store
from cache.stores import open_store


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("file:///var/cache/crossdock", FilesystemStore, "file:///var/cache/crossdock"),
        ("file://localhost/var/cache", FilesystemStore, "file:///var/cache"),
        ("file:///with%20space", FilesystemStore, "file:///with space"),
        ("memory:", MemoryStore, "memory:"),
        ("s3://bucket", S3Store, "s3://bucket"),
        ("s3://bucket/", S3Store, "s3://bucket"),
        ("s3://bucket/some/prefix/", S3Store, "s3://bucket/some/prefix"),
    ],
)
async def test_urls(url, kind, shown):
    store = open_store(url, {})
    assert type(store) is kind
    assert store.url == shown
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/cache",
        "cache",
        "./cache",
        "file:cache",
        "file://host/path",
        "file://path",
        "memory://x",
        "https://host/x",
        "s3:///prefix",
        "s3:bucket",
        "s3://bucket/x?versionId=1",
        "gs://bucket",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match=r"expected|not the name of a bucket"):
        open_store(url, {})


def test_credentials_in_a_url_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="credentials") as caught:
        open_store("s3://access:secret@bucket/x", {})
    assert "secret" not in str(caught.value)


async def test_a_file_store_works(tmp_path):
    store = open_store(f"file://{tmp_path}/store", {})
    await store.check()
    await store.close()


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
async def test_the_endpoint_comes_from_the_environment(moto_server, s3_credentials, variable):
    environ = {variable: moto_server.endpoint_url, "AWS_REGION": "us-east-1"}
    if variable == "AWS_ENDPOINT_URL_S3":
        environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    store = open_store("s3://crossdock/stores", environ)
    await store.check()
    await store.close()
