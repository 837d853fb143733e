"""S3 servers on the loopback, for tests: moto in this process, and a real SeaweedFS.

Test packages import the fixtures that they use into their ``conftest.py``.
"""

import contextlib
import functools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from unittest import mock

import boto3.session
import pytest
from botocore import loaders
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from moto.moto_server import threaded_moto_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

ACCESS_KEY = "testaccess"
SECRET_KEY = "testsecretkey"
BUCKET = "crossdock"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_OFFSETS = {"s3": 0, "https": 1400, "master": 1100, "volume": 1200, "filer": 1300, "admin": 1600}
_GRPC_OFFSET = 10000
_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class S3Server:
    """A running server with the bucket ``BUCKET``; ``ca_bundle`` is the file to trust where it speaks HTTPS."""

    kind: str
    endpoint_url: str
    ca_bundle: str = ""

    def client(self):
        """A boto3 client, to look at what is stored behind a store's back."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            verify=self.ca_bundle or None,
            config=Config(s3={"addressing_style": "path"}),
        )


class _OneAtATime(DomainDispatcherApplication):
    """moto looks whether a condition holds, and writes, in two steps; S3 does both at once."""

    _turn = threading.Lock()

    def __call__(self, environ, start_response):
        with self._turn:
            return super().__call__(environ, start_response)


@contextmanager
def run_moto() -> Iterator[S3Server]:
    """moto's S3 on a thread of this process. It checks neither keys nor checksums."""
    with mock.patch.object(threaded_moto_server, "DomainDispatcherApplication", _OneAtATime):
        server = threaded_moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
    try:
        host, port = server.get_host_and_port()
        running = S3Server("moto", f"http://{host}:{port}")
        running.client().create_bucket(Bucket=BUCKET)
        yield running
    finally:
        server.stop()


@contextmanager
def run_seaweedfs() -> Iterator[tuple[S3Server, S3Server]]:
    """A SeaweedFS of its own, on free ports, with its data in a temporary directory: over HTTP, and over HTTPS."""
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
            wait_for(running, process, Path(directory) / "log")
            secure = S3Server("seaweedfs", f"https://127.0.0.1:{port + _OFFSETS['https']}", f"{directory}/cert.pem")
            yield running, secure
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
    make_certificate(directory)
    flags = {
        "dir": directory / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "s3.port": port,
        "s3.port.https": port + _OFFSETS["https"],
        "s3.cert.file": directory / "cert.pem",
        "s3.key.file": directory / "key.pem",
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


def make_certificate(directory: Path) -> None:
    """A certificate for the loopback that nobody but who is told to trusts, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = builder.not_valid_after(now + timedelta(days=2)).add_extension(names, critical=False)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, SHA256()
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


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


def wait_for(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the server has a bucket."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _answers(server.endpoint_url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{server.kind} did not start:\n{log.read_text(errors='replace')[-4000:]}")
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
def seaweedfs_servers() -> Iterator[tuple[S3Server, S3Server]]:
    with run_seaweedfs() as servers:
        yield servers


@pytest.fixture(scope="session")
def seaweedfs_server(seaweedfs_servers: tuple[S3Server, S3Server]) -> S3Server:
    return seaweedfs_servers[0]


@pytest.fixture(scope="session")
def seaweedfs_https_server(seaweedfs_servers: tuple[S3Server, S3Server]) -> S3Server:
    return seaweedfs_servers[1]


@functools.cache
def _shared_loader() -> loaders.Loader:
    return loaders.create_loader()


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' keys where boto3 looks for them, and nothing else there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    # boto3 parses megabytes of JSON for every session: here it need not do it for every test.
    monkeypatch.setattr("botocore.session.create_loader", lambda _: _shared_loader())
