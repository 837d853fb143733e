"""The stores that the contract suite runs on, and the servers behind them."""

import secrets

import pytest

from cache.disk.filesystem import FilesystemStore
from cache.disk.tier import DiskTier
from cache.disk.tiered import TieredStore
from cache.memory import MemoryStore
from cache.s3.location import S3Location
from cache.s3.patience import Patience
from cache.s3.store import S3Store
from tests.fakes.s3 import run_fake_s3
from tests.s3_optional import ASKED_FOR, radosgw_server, rclone_server
from tests.s3_servers import (
    BUCKET,
    moto_server,
    s3_credentials,
    seaweedfs_https_server,
    seaweedfs_server,
    seaweedfs_servers,
)

S3_KINDS = ["moto", "seaweedfs", *(kind for kind in ASKED_FOR if kind != "rclone")]
STORES = ["memory", "filesystem", *S3_KINDS, "seaweedfs_https", "fake"]
BEHIND_A_DISK = STORES if ASKED_FOR else ["memory", "filesystem", "seaweedfs"]
__all__ = ["moto_server", "radosgw_server", "rclone_server", "s3_credentials"]
__all__ += ["seaweedfs_https_server", "seaweedfs_server", "seaweedfs_servers"]


@pytest.fixture(params=[*STORES, *(f"tiered {name}" for name in BEHIND_A_DISK)])
async def store(request, tmp_path):
    """An empty store of each kind."""
    made = bare_store(request, request.param.removeprefix("tiered "), tmp_path)
    if request.param in ASKED_FOR:
        await made.check()  # finds out how that server differs from Amazon's
    if request.param.startswith("tiered "):
        made = TieredStore(made, DiskTier(tmp_path / "disk", 100 << 20))
        await made.check()
        await made.settled()
    yield made
    await made.close()


def bare_store(request, kind, directory):
    match kind:
        case "memory":
            return MemoryStore()
        case "filesystem":
            return FilesystemStore(directory / "store")
        case server:
            request.getfixturevalue("s3_credentials")
            running = server_of(request, server)
            if server == "seaweedfs_https":
                request.getfixturevalue("monkeypatch").setenv("AWS_CA_BUNDLE", running.ca_bundle)
            return S3Store(new_location(running.endpoint_url), directory)


def server_of(request, kind):
    """The running S3 server of this kind."""
    return request.getfixturevalue("fake" if kind == "fake" else f"{kind}_server")


@pytest.fixture(params=S3_KINDS)
def s3_server(request, s3_credentials):
    """Each of the S3 servers."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def bucket_store(s3_server):
    """An empty store on each of the S3 servers, under a prefix of its own."""
    made = S3Store(new_location(s3_server.endpoint_url))
    yield made
    await made.close()


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
    monkeypatch.setattr("cache.s3.bucket.INTERACTIVE", Patience(3, 0.0, 0.0, 5.0))
    monkeypatch.setattr("cache.s3.bucket.BULK", Patience(6, 0.0, 0.0, 60.0))
    made = S3Store(S3Location(BUCKET, "some/prefix", fake.endpoint_url))
    yield made
    await made.close()
