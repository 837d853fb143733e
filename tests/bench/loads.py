"""What is done to a server: with wrk where that fits, with small clients of our own where it does not."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cache.oci import media_types
from cache.oci.digest import Digest

DRAIN = Path(__file__).parent / "drain.py"
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Hits:
    """What wrk has seen."""

    requests_s: float
    p99_ms: float


@dataclass(frozen=True)
class Drained:
    """What ``drain.py`` has seen."""

    received_bytes: int
    seconds: float
    first_bytes_s: tuple[float, ...]

    @property
    def gigabytes_s(self) -> float:
        return self.received_bytes / self.seconds / 1e9


def hit(address: str, path: str, connections: int, seconds: int) -> Hits:
    """Asks for one manifest again and again. Raises RuntimeError when a reply is not 200."""
    accept = f"Accept: {', '.join(sorted(media_types.MANIFESTS | media_types.INDEXES))}"
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", accept, f"http://{address}{path}"]
    said = _run(command)
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk had errors: {said}")
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said).groups()  # type: ignore[union-attr]
    requests = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert requests is not None, said
    return Hits(float(requests.group(1)), float(number) * _UNITS[unit])


def drain(address: str, path: str, clients: int = 1, times: int = 1) -> Drained:
    """Reads one path ``times`` times in each of so many connections. Raises RuntimeError for replies cut short."""
    return _drained([address, path, "--clients", str(clients), "--times", str(times)])


def trickle(address: str, path: str, clients: int, rate_bytes_s: int, seconds: float) -> Drained:
    """Reads one path in so many connections, at most so fast in each, and leaves after so many seconds."""
    limits = ("--rate", str(rate_bytes_s), "--seconds", str(seconds))
    return _drained([address, path, "--clients", str(clients), *limits])


def _drained(arguments: list[str]) -> Drained:
    report = json.loads(_run([sys.executable, str(DRAIN), *arguments]))
    if report["cut"]:
        raise RuntimeError(f"{report['cut']} replies of {arguments} were cut short")
    return Drained(report["bytes"], report["seconds"], tuple(report["first_bytes_s"]))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


@dataclass(frozen=True)
class Content:
    """A file and the digest of its bytes."""

    path: Path
    digest: Digest
    size_bytes: int


def write_content(path: Path, size_bytes: int) -> Content:
    """Makes a file of bytes that no other file has."""
    hasher = hashlib.sha256()
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for start in range(0, size_bytes, len(block)):
            piece = block[: size_bytes - start]
            hasher.update(piece)
            file.write(piece)
    return Content(path, Digest("sha256", hasher.hexdigest()), size_bytes)


def upload(address: str, repository: str, content: Content) -> float:
    """Pushes a blob as containerd does, POST and one PUT; returns the seconds that it took."""
    connection = http.client.HTTPConnection(address, timeout=300, blocksize=1 << 20)
    started = time.perf_counter()
    connection.request("POST", f"/v2/{repository}/blobs/uploads/")
    session = connection.getresponse()
    session.read()
    location = urlsplit(session.headers["Location"])
    query = "&".join(filter(None, (location.query, f"digest={content.digest}")))
    with content.path.open("rb") as file:
        headers = {"Content-Length": str(content.size_bytes)}
        connection.request("PUT", f"{location.path}?{query}", body=file, headers=headers)
        reply = connection.getresponse()
    reply.read()
    took_s = time.perf_counter() - started
    connection.close()
    if reply.status != 201:
        raise RuntimeError(f"{address} answered {reply.status} to an upload")
    return took_s


@contextmanager
def bare_server(content: Content) -> Iterator[str]:
    """A server that does nothing but sendfile: what the clients and the kernel can do at most."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=_serve_bare, args=(listener, content), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _serve_bare(listener: socket.socket, content: Content) -> None:
    """One connection after the other; each may ask again and again. Ends when the listener is shut down."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {content.size_bytes}\r\n\r\n".encode()
    with content.path.open("rb") as file:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while connection.recv(4096):
                    connection.sendall(head)
                    connection.sendfile(file)
                    file.seek(0)
