"""Several replicas as processes of their own, over one store; two sets of three that tests share.

Whoever ends one of those starts it again, and uses names of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers import Registry, free_port, start_registry, wait_for_port
from tests.programs import CROSSDOCK, ROOT, proxy_command
from tests.s3_servers import BUCKET, CREDENTIALS, S3Server

QUICK_LEASES = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
import crossdock
import proxy.cluster.fills as fills
fills.LEASE_S, fills.WATCH_S = 3.0, 0.5
sys.exit(crossdock.main())
"""
START_S = 60.0


class Replica:
    """One of several processes. It can be killed or frozen, and started again at its address."""

    def __init__(self, port: int, log: Path, command: Sequence[str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = command
        self._environment = dict(os.environ)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment
            )

    def wait(self) -> None:
        """Returns when it takes connections."""
        wait_for_port(self.port, self.process, self.log, START_S)

    def kill(self) -> None:
        """It is gone at once, and leaves all as it stands."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kills it, and begins to start it again."""
        self.kill()
        self.process = self._start()

    def freeze(self) -> None:
        """It stands still, and its connections stay."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def lines(self, event: str) -> list[dict[str, object]]:
        """What it has logged of an event."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]


@contextmanager
def bucket_of(server: S3Server) -> Iterator[None]:
    """Programs that are started in here find the server where the AWS tools look for it, and so does this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": server.endpoint_url}.items():
            patch.setenv(name, value)
        yield


@contextmanager
def replicas(tmp: Path, count: int, *options: str, quick_leases: bool = False) -> Iterator[list[Replica]]:
    """So many replicas over one store, of files if no option says otherwise."""
    with ExitStack() as stack:
        started = []
        for number in range(count):
            port = free_port()
            given = (f"--replica-url=http://127.0.0.1:{port}", "--log-format=json", "--drain=0s", *options)
            command = proxy_command(tmp, port, *given)
            if quick_leases:
                command = [sys.executable, "-c", QUICK_LEASES, *command[len(CROSSDOCK) :]]
            started.append(Replica(port, tmp / f"{number}.log", command))
            stack.callback(started[-1].kill)
        for replica in started:
            replica.wait()
        yield started


@pytest.fixture(scope="session")
def trio_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The registry that ``trio`` has behind it."""
    with start_registry(tmp_path_factory.mktemp("upstream")) as started:
        yield started


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory, trio_registry: Registry) -> Iterator[list[Replica]]:
    """Three replicas over one store of files; told to end, they wait for uploads for ever."""
    options = (f"--upstream=up.test={trio_registry.url}", "--default-upstream=up.test", "--drain=1h")
    with replicas(tmp_path_factory.mktemp("trio"), 3, *options) as started:
        yield started


@dataclass(frozen=True)
class BucketTrio:
    """Three replicas over one bucket, which soon see when one of them stands still. ``upstream_port`` is where they
    look for their upstream: nothing listens there unless a test does."""

    replicas: list[Replica]
    store_url: str
    upstream_port: int


@pytest.fixture(scope="session")
def bucket_trio(tmp_path_factory: pytest.TempPathFactory, seaweedfs_server: S3Server) -> Iterator[BucketTrio]:
    store_url, port = f"s3://{BUCKET}/trio", free_port()
    options = (f"--store={store_url}", f"--upstream=up.test=http://127.0.0.1:{port}", "--default-upstream=up.test")
    with ExitStack() as stack:
        with bucket_of(seaweedfs_server):
            started = stack.enter_context(replicas(tmp_path_factory.mktemp("bucket"), 3, *options, quick_leases=True))
        yield BucketTrio(started, store_url, port)
