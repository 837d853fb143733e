"""The stores that the contract suite runs on, and the servers behind them."""

import secrets

import pytest

from cache.filesystem import FilesystemStore
from cache.memory import MemoryStore
from cache.s3 import S3Store
from cache.s3_location import S3Location
from cache.s3_patience import Patience
from tests.fakes.s3 import run_fake_s3
from tests.s3_servers import BUCKET, moto_server, s3_credentials, seaweedfs_server

__all__ = ["moto_server", "s3_credentials", "seaweedfs_server"]


@pytest.fixture(params=["memory", "filesystem", "moto", "seaweedfs", "fake"])
async def store(request, tmp_path):
    """An empty store of each kind."""
    match request.param:
        case "memory":
            made = MemoryStore()
        case "filesystem":
            made = FilesystemStore(tmp_path / "store")
        case "fake":
            made = S3Store(new_location(request.getfixturevalue("fake").endpoint_url), tmp_path)
        case server:
            made = s3_store(request, server)
    yield made
    await made.close()


@pytest.fixture(params=["moto", "seaweedfs"])
def s3_server(request, s3_credentials):
    """Each of the S3 servers."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def bucket_store(s3_server):
    """An empty store on each of the S3 servers, under a prefix of its own."""
    made = S3Store(new_location(s3_server.endpoint_url))
    yield made
    await made.close()


def s3_store(request, server):
    request.getfixturevalue("s3_credentials")
    return S3Store(new_location(request.getfixturevalue(f"{server}_server").endpoint_url))


def new_location(endpoint_url):
    return S3Location(BUCKET, f"tests/{secrets.token_hex(8)}", endpoint_url, "us-east-1")


@pytest.fixture
def fake(s3_credentials):
    """A server that misbehaves as told."""
    with run_fake_s3() as server:
        yield server


@pytest.fixture
async def fake_store(fake, monkeypatch):
    """A store on the fake, with attempts as ever and no pauses."""
    monkeypatch.setattr("cache.s3_bucket.INTERACTIVE", Patience(3, 0.0, 0.0, 5.0))
    monkeypatch.setattr("cache.s3_bucket.BULK", Patience(6, 0.0, 0.0, 60.0))
    made = S3Store(S3Location(BUCKET, "some/prefix", fake.endpoint_url))
    yield made
    await made.close()
