"""S3 servers on the loopback, for tests: moto in this process, and a real SeaweedFS.

Test packages import the fixtures that they use into their ``conftest.py``.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3.session
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

ACCESS_KEY = "testaccess"
SECRET_KEY = "testsecretkey"
BUCKET = "crossdock"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_OFFSETS = {"s3": 0, "master": 1100, "volume": 1200, "filer": 1300, "admin": 1600}
_GRPC_OFFSET = 10000
_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class S3Server:
    """A running server with the bucket ``BUCKET``; ``kind`` is ``moto`` or ``seaweedfs``."""

    kind: str
    endpoint_url: str

    def client(self):
        """A boto3 client, to look at what is stored behind a store's back."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}),
        )


@contextmanager
def run_moto() -> Iterator[S3Server]:
    """moto's S3 on a thread of this process. It checks neither keys nor checksums."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        running = S3Server("moto", f"http://{host}:{port}")
        running.client().create_bucket(Bucket=BUCKET)
        yield running
    finally:
        server.stop()


@contextmanager
def run_seaweedfs() -> Iterator[S3Server]:
    """A SeaweedFS of its own, on free ports, with its data in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="seaweedfs-") as directory:
        port = _free_base_port()
        with (Path(directory) / "log").open("wb") as log:
            process = subprocess.Popen(
                _seaweedfs_command(Path(directory), port),
                cwd=directory,
                env={"PATH": os.environ["PATH"], "HOME": directory, "TMPDIR": directory, "GOMEMLIMIT": "300MiB"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            running = S3Server("seaweedfs", f"http://127.0.0.1:{port}")
            _wait_for(running, process, Path(directory) / "log")
            yield running
        finally:
            process.kill()  # on SIGTERM it takes seconds, and its data is not wanted any more
            process.wait()
            for offset in _OFFSETS.values():
                socket_name = f"seaweedfs-*-grpc-{port + offset + _GRPC_OFFSET}.sock"
                for left in Path(tempfile.gettempdir()).glob(socket_name):
                    left.unlink(missing_ok=True)


def _seaweedfs_command(directory: Path, port: int) -> list[str]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (directory / "data").mkdir()
    flags = {
        "dir": directory / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "s3.port": port,
        "s3.config": directory / "s3.json",
        "s3.allowDeleteBucketNotEmpty": "false",
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "admin.port": port + _OFFSETS["admin"],
        "master.port": port + _OFFSETS["master"],
        "volume.port": port + _OFFSETS["volume"],
        "filer.port": port + _OFFSETS["filer"],
        "filer.localSocket": directory / "filer.sock",
        "s3.localSocket": directory / "s3.sock",
        "volume.max": 20,
    }
    weed = Path(sys.executable).with_name("weed")
    return [str(weed), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in flags.items())]


def _free_base_port() -> int:
    """A port such that all that SeaweedFS derives from it are free now, and below 65536."""
    for _ in range(100):
        base = random.randrange(20000, 65535 - _GRPC_OFFSET - max(_OFFSETS.values()))
        ports = [base + offset + grpc for offset in _OFFSETS.values() for grpc in (0, _GRPC_OFFSET)]
        if all(_is_free(port) for port in ports):
            return base
    raise RuntimeError("found no free ports for SeaweedFS")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_for(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the server has a bucket."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _answers(server.endpoint_url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)
    server.client().create_bucket(Bucket=BUCKET)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
        return True
    return False


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    with run_moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_server() -> Iterator[S3Server]:
    with run_seaweedfs() as server:
        yield server


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' keys where boto3 looks for them, and nothing else there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
