"""Crossdock's own programs as processes, for the demo, the bench and tests of the whole way."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.peers import free_port, wait_for_port

ROOT = Path(__file__).parent.parent
CROSSDOCK = (sys.executable, str(ROOT / "crossdock.py"))


@contextmanager
def start_program(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running server that listens on this port of 127.0.0.1; what it says goes to ``log``."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for_port(port, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def start_proxy(tmp: Path, *options: str) -> Iterator[str]:
    """A running ``crossdock proxy`` with its store under ``tmp``; gives its ``HOST:PORT``."""
    tmp.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with start_program(proxy_command(tmp, port, *options), port, tmp / "proxy.log"):
        yield f"127.0.0.1:{port}"


def proxy_command(tmp: Path, port: int, *options: str) -> list[str]:
    """The command line of a ``crossdock proxy`` with its store under ``tmp``."""
    return [*CROSSDOCK, "proxy", "--listen", f"127.0.0.1:{port}", "--store", f"file://{tmp}/store", *options]


def write_docker_config(directory: Path, logins: Mapping[str, str]) -> Path:
    """Writes a docker ``config.json`` with a ``user:password`` for each host; gives the directory (DOCKER_CONFIG)."""
    directory.mkdir(parents=True, exist_ok=True)
    auths = {host: {"auth": base64.b64encode(login.encode()).decode()} for host, login in logins.items()}
    (directory / "config.json").write_text(json.dumps({"auths": auths}))
    return directory


def environment(docker_config: Path) -> dict[str, str]:
    """This process's environment with the credentials of ``docker_config`` and no others."""
    dropped = ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"DOCKER_CONFIG": str(docker_config), "REGISTRY_AUTH_FILE": str(docker_config / "config.json")}
