"""The stores that the contract suite runs on, and the servers behind them."""

import secrets

import pytest

from cache.filesystem import FilesystemStore
from cache.memory import MemoryStore
from cache.s3 import S3Store
from cache.s3_client import S3Location
from tests.s3_servers import BUCKET, moto_server, s3_credentials, seaweedfs_server

__all__ = ["moto_server", "s3_credentials", "seaweedfs_server"]


@pytest.fixture(params=["memory", "filesystem", "moto", "seaweedfs"])
async def store(request, tmp_path):
    """An empty store of each kind."""
    match request.param:
        case "memory":
            made = MemoryStore()
        case "filesystem":
            made = FilesystemStore(tmp_path / "store")
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
