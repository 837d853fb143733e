"""A small S3 server on a real socket that misbehaves as told: for the faults that real servers do not show on demand.

It knows objects (PUT, GET with ranges, HEAD, DELETE) and their conditions, and neither uploads nor listings.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Faults:
    """What the server shall do wrong. Numbers count down."""

    ignored_conditions: frozenset[str] = frozenset()
    never_matching: bool = False
    ignore_ranges: bool = False
    lost_answers: int = 0
    cut_bodies: int = 0
    cut_share: float = 0.5
    errors: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class FakeS3:
    """A running fake: its address, its objects by path, the requests that came, and its faults."""

    endpoint_url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)


@contextmanager
def run_fake_s3() -> Iterator[FakeS3]:
    """A fake S3 server on the loopback."""
    fake = FakeS3()

    class Handler(_Handler):
        state = fake

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FakeS3

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._failed_as_told():
            return
        if not self._conditions_hold():
            self._error(412, "PreconditionFailed")
            return
        self.state.objects[self._path()] = body
        if self._lost():
            return
        self._answer(200, {"ETag": _etag(body)})

    def do_GET(self):
        if self._failed_as_told():
            return
        content = self.state.objects.get(self._path())
        if content is None:
            self._error(404, "NoSuchKey")
            return
        headers = {"ETag": _etag(content)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or self.state.faults.ignore_ranges:
            self._answer(200, headers, content)
            return
        first = int(asked[1])
        part = content[first : int(asked[2]) + 1 if asked[2] else None]
        if first >= len(content):
            self._error(416, "InvalidRange")
            return
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        self._answer(206, headers, part)

    do_HEAD = do_GET

    def do_DELETE(self):
        if self._failed_as_told():
            return
        if self._path() in self.state.objects and not self._conditions_hold():
            self._error(412, "PreconditionFailed")
            return
        self.state.objects.pop(self._path(), None)
        if not self._lost():
            self._answer(204, {})

    def log_message(self, *args):
        """Keeps the tests' output clean."""

    def _path(self):
        return urlsplit(self.path).path

    def _conditions_hold(self):
        faults, content = self.state.faults, self.state.objects.get(self._path())
        wanted = {name: self.headers.get(name) for name in ("If-Match", "If-None-Match")}
        for name in faults.ignored_conditions:
            wanted[name] = None
        if wanted["If-None-Match"] == "*" and content is not None:
            return False
        if wanted["If-Match"] is None:
            return True
        return not faults.never_matching and content is not None and wanted["If-Match"] == _etag(content)

    def _failed_as_told(self):
        self.state.requests.append(f"{self.command} {self._path()}")
        if not self.state.faults.errors:
            return False
        self._error(*self.state.faults.errors.pop(0))
        return True

    def _lost(self):
        if self.state.faults.lost_answers <= 0:
            return False
        self.state.faults.lost_answers -= 1
        self.close_connection = True
        return True

    def _error(self, status, code):
        body = f"<Error><Code>{code}</Code><Message>the key testsecretkey is wrong</Message></Error>".encode()
        self._answer(status, {"Content-Type": "application/xml"}, body)

    def _answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.command == "GET" and len(body) > 1 and self.state.faults.cut_bodies > 0:
            self.state.faults.cut_bodies -= 1
            self.close_connection = True
            body = body[: int(len(body) * self.state.faults.cut_share)]
        self.wfile.write(body)
