"""Debian's docker-registry as a real peer: open, behind htpasswd, or behind a Bearer token server of our own.

Everything listens on 127.0.0.1 and ends with its fixture, by its own process handle.
"""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

PROGRAM = "docker-registry"
_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/[\d.]+" (?P<status>\d{3}) ')
_MARKER = "/v2/?settled="


class Request(NamedTuple):
    """One line of a registry's access log; the path comes without its query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Registry:
    """A running registry."""

    url: str
    host: str
    log_path: Path
    username: str = ""
    password: str = ""
    pid: int = 0

    def requests(self) -> list[Request]:
        """What the registry has answered so far, in the order of its access log."""
        self._settle()
        found = [_LINE.search(line) for line in self.log_path.read_text().splitlines()]
        return [
            Request(match["method"], match["target"].partition("?")[0], int(match["status"]))
            for match in found
            if match and not match["target"].startswith(_MARKER)
        ]

    def count(self, method: str, part: str = "") -> int:
        """How many requests of this method had ``part`` in their path."""
        return sum(request.method == method and part in request.path for request in self.requests())

    def _settle(self) -> None:
        """Waits for a line of our own: a line is written only after its reply has gone out."""
        marker = f"{_MARKER}{time.monotonic_ns()}"
        connection = http.client.HTTPConnection(self.host, timeout=10)
        connection.request("GET", marker)
        connection.getresponse().read()
        connection.close()
        deadline = time.monotonic() + 10
        while f"{marker} " not in self.log_path.read_text():
            if time.monotonic() > deadline:
                raise TimeoutError("the registry does not write its access log")
            time.sleep(0.005)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, limit_s: float = 20) -> None:
    """Returns when the port takes connections. Raises RuntimeError when the process ends before that."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {log.read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port} after {limit_s:g} s")


@contextmanager
def start_registry(
    tmp: Path,
    htpasswd: bool = False,
    *,
    auth: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> Iterator[Registry]:
    """A docker-registry with its storage under ``tmp``.

    ``auth``, ``tls`` and ``extra`` are parts of its configuration (its section of the first name, the one in ``http``
    of the second; top-level sections to add).
    """
    if shutil.which(PROGRAM) is None:
        pytest.fail(f"{PROGRAM} is not installed (Debian package docker-registry)")
    tmp.mkdir(parents=True, exist_ok=True)
    port = free_port()
    username, password = ("crossdock", "correct horse") if htpasswd else ("", "")
    if htpasswd:
        auth = _htpasswd(tmp, username, password)
    config = tmp / "config.yml"
    config.write_text(yaml.safe_dump(_config(tmp, port, auth, tls) | (extra or {})))
    log = tmp / "access.log"
    with log.open("wb") as out, (tmp / "errors.log").open("wb") as err:
        process = subprocess.Popen([PROGRAM, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            wait_for_port(port, process, tmp / "errors.log")
            scheme = "https" if tls else "http"
            yield Registry(f"{scheme}://127.0.0.1:{port}", f"127.0.0.1:{port}", log, username, password, process.pid)
        finally:
            process.kill()
            process.wait()


def _config(tmp: Path, port: int, auth: dict[str, Any] | None, tls: dict[str, Any] | None) -> dict[str, Any]:
    base: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "only-for-tests"} | ({"tls": tls} if tls else {}),
    }
    return base | ({"auth": auth} if auth else {})


def _htpasswd(tmp: Path, username: str, password: str) -> dict[str, Any]:
    made = subprocess.run(["htpasswd", "-Bbn", username, password], check=True, capture_output=True)
    path = tmp / "htpasswd"
    path.write_bytes(made.stdout)
    return {"htpasswd": {"realm": "crossdock-tests", "path": str(path)}}


BALANCER = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
pid {tmp}/balancer.pid;
error_log {tmp}/balancer.log;
worker_processes 1;
events {{ worker_connections 4096; }}
stream {{
  upstream replicas {{ {servers} }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    proxy_connect_timeout 1s;
    proxy_pass replicas;
  }}
}}
"""


@contextmanager
def start_balancer(tmp: Path, targets: Sequence[str]) -> Iterator[str]:
    """nginx, which gives each new connection to the next of the targets (``HOST:PORT``); gives its ``HOST:PORT``."""
    tmp.mkdir(parents=True, exist_ok=True)
    port = free_port()
    servers = " ".join(f"server {target} max_fails=1 fail_timeout=1s;" for target in targets)
    config = tmp / "balancer.conf"
    config.write_text(BALANCER.format(tmp=tmp, servers=servers, port=port))
    log = tmp / "balancer.log"
    with log.open("wb") as out:
        process = subprocess.Popen(["/usr/sbin/nginx", "-c", str(config), "-e", str(log)], stdout=out, stderr=out)
    try:
        wait_for_port(port, process, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An open registry, empty."""
    with start_registry(tmp_path / "registry") as started:
        yield started


@pytest.fixture
def private_registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that wants a user name and a password (Basic)."""
    with start_registry(tmp_path / "private-registry", htpasswd=True) as started:
        yield started
