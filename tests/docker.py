"""Debian's docker as a client: a daemon of its own for the tests, with its own socket, storage and configuration."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CLIENT, DAEMON = "/usr/bin/docker", "/usr/sbin/dockerd"
"""Debian's, whatever else is on the PATH: its client needs no plug-in to build with BuildKit."""
START_S = 30.0
STOP_S = 30.0


@dataclass(frozen=True)
class Docker:
    """A running daemon."""

    directory: Path
    process: subprocess.Popen[bytes]

    def command(self, *arguments: str, config: Path | None = None) -> tuple[str, ...]:
        """The command line of the client; ``config`` is the directory of its ``config.json``."""
        home = config or self.directory / "nobody"
        return (CLIENT, "--config", str(home), "--host", f"unix://{self.directory}/docker.sock", *arguments)

    def ask(self, *arguments: str) -> str:
        """What the client says to this. Raises subprocess.CalledProcessError."""
        done = subprocess.run(self.command(*arguments), check=True, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def use_mirrors(self, *urls: str) -> None:
        """Gives the daemon these ``registry-mirrors``, as an administrator does: new file, SIGHUP."""
        _write_config(self.directory, urls)
        self.process.send_signal(signal.SIGHUP)
        wanted = [f"{url}/" for url in urls]
        deadline = time.monotonic() + 10
        while json.loads(self.ask("info", "--format", "{{json .RegistryConfig.Mirrors}}")) != wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"dockerd does not take its mirrors: {_log(self.directory)}")
            time.sleep(0.02)

    def forget_all(self) -> None:
        """Removes all images and all that was built."""
        self.ask("system", "prune", "--all", "--force")


@contextmanager
def start_docker(directory: Path, storage: str = "vfs") -> Iterator[Docker]:
    """A daemon that has no network for containers and touches no firewall. Root only."""
    directory.mkdir(parents=True, exist_ok=True)
    _write_config(directory, ())
    command = [
        *(DAEMON, f"--config-file={directory}/daemon.json", f"--host=unix://{directory}/docker.sock"),
        *(f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"),
        *("--bridge=none", "--iptables=false", "--ip6tables=false", f"--storage-driver={storage}", "--log-level=warn"),
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    docker = Docker(directory, process)
    try:
        _wait_until_ready(docker)
        yield docker
    finally:
        _stop(docker)


def _write_config(directory: Path, mirrors: tuple[str, ...]) -> None:
    # The key would go to /etc/docker otherwise.
    config = {"registry-mirrors": list(mirrors), "deprecated-key-path": str(directory / "key.json")}
    (directory / "daemon.json").write_text(json.dumps(config))


def _wait_until_ready(docker: Docker) -> None:
    deadline = time.monotonic() + START_S
    while subprocess.run(docker.command("version"), capture_output=True, timeout=10).returncode:
        if docker.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{DAEMON} does not start: {_log(docker.directory)}")
        time.sleep(0.05)


def _stop(docker: Docker) -> None:
    """Ends the daemon, which ends its own containerd, and takes away what it leaves mounted."""
    docker.process.terminate()
    try:
        docker.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        docker.process.kill()
        docker.process.wait()
    here = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(docker.directory) in line]
    for mounted in reversed(here):
        subprocess.run(["umount", mounted], check=False, capture_output=True)


def _log(directory: Path) -> str:
    return (directory / "log").read_text(errors="replace")[-2000:]


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """The daemon of the whole run of the tests."""
    with start_docker(tmp_path_factory.mktemp("docker")) as started:
        yield started


@pytest.fixture
def docker(dockerd: Docker) -> Iterator[Docker]:
    """The daemon, with nothing in it."""
    yield dockerd
    dockerd.forget_all()
