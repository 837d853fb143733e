"""A small S3 server on a real socket that misbehaves as told: for the faults that real servers do not show on demand.

It passes the stores' contract suite, so what it does without being told otherwise is what a real server does: objects
and their conditions, ranges, checksums, multipart uploads, listings, and a bucket's lifecycle rules.
"""

import base64
import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from tests.s3_servers import BUCKET

PAGE = 1000


@dataclass
class Faults:
    """What the server shall do wrong. Numbers count down.

    ``ignored`` holds the conditions of which it takes no notice: If-Match, If-None-Match, complete, delete, Range,
    checksums, remembering (of uploads that were completed). ``on`` is a regular expression of the requests (method,
    path, query) that ``errors``, ``lost_answers``, ``stalled`` and ``damaged_bodies`` are for; the first ``skipped``
    of them go well.
    """

    ignored: frozenset[str] = frozenset()
    never_matching: bool = False
    bare_etags: bool = False
    checksums_unknown: bool = False
    expired_keys: frozenset[str] = frozenset()
    on: str = ""
    skipped: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)
    lost_answers: int = 0
    stalled: int = 0
    damaged_bodies: int = 0
    cut_bodies: int = 0
    cut_share: float = 0.5

    @property
    def met(self) -> bool:
        """True when there were as many requests as there were faults for."""
        return not (self.errors or self.stalled or self.lost_answers)


@dataclass
class Upload:
    """A multipart upload that has not been completed."""

    path: str
    initiated: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class FakeS3:
    """A running fake: its address, its objects by path, the requests that came, and its faults."""

    endpoint_url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    modified: dict[str, datetime] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    completed: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    lifecycle: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def kinds(self) -> list[str]:
        """What kinds of requests came: method, and the names in the query."""
        return [re.sub(r" [^?]*", "", request) for request in self.requests]


@contextmanager
def run_fake_s3() -> Iterator[FakeS3]:
    """A fake S3 server on the loopback."""
    fake = FakeS3()

    class Handler(_Handler):
        state = fake

    server = _Server(("127.0.0.1", 0), Handler)
    fake.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Says nothing: clients may leave whenever they want."""


def etag(content: bytes) -> str:
    """The ETag of an object, in quotes."""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: FakeS3

    def do_PUT(self):
        body = self._body()
        if self._failed_as_told() or self._damaged(body):
            return
        if "uploadId" in self.query:
            self._put_part(body)
            return
        if "x-amz-copy-source" in self.headers:
            self._copy(unquote(self.headers["x-amz-copy-source"]))
            return
        with self.state.lock:
            if not self._conditions_hold():
                self._error(412, "PreconditionFailed")
                return
            self._store(self.place, body)
        self._answer(200, {"ETag": etag(body)})

    def do_GET(self):
        if self._failed_as_told():
            return
        if "list-type" in self.query:
            self._list()
        elif "uploads" in self.query:
            self._list_uploads()
        elif "uploadId" in self.query:
            self._list_parts(self.state.uploads.get(self.query["uploadId"]))
        elif "lifecycle" in self.query:
            self._answer_lifecycle()
        else:
            self._get_object()

    do_HEAD = do_GET

    def do_POST(self):
        body = self._body()
        if self._failed_as_told():
            return
        if "delete" in self.query:
            self._delete_all(body)
        elif "uploads" in self.query:
            upload_id = secrets.token_hex(8)
            self.state.uploads[upload_id] = Upload(self.place, self.state.now)
            self._xml(
                200, f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
            )
        else:
            self._complete(self.query["uploadId"])

    def do_DELETE(self):
        if self._failed_as_told():
            return
        if "uploadId" in self.query:
            gone = self.state.uploads.pop(self.query["uploadId"], None) is None
            self._error(404, "NoSuchUpload") if gone else self._answer(204, {})
            return
        with self.state.lock:
            there = self.place in self.state.objects
            if there and "delete" not in self.state.faults.ignored and not self._conditions_hold():
                self._error(412, "PreconditionFailed")
                return
            self.state.objects.pop(self.place, None)
        self._answer(204, {})

    def _delete_all(self, body):
        if self.headers.get("Content-MD5") != base64.b64encode(hashlib.md5(body).digest()).decode():
            self._error(400, "MissingContentMD5")
            return
        with self.state.lock:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.state.objects.pop(f"{self.place.rstrip('/')}/{unescape(key)}", None)
        self._xml(200, "<DeleteResult/>")

    def log_message(self, *args):
        """Keeps the tests' output clean."""

    # Objects

    def _get_object(self):
        content = self.state.objects.get(self.place)
        if content is None:
            self._error(404, "NoSuchKey")
            return
        headers = {"ETag": etag(content)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or "Range" in self.state.faults.ignored:
            self._answer(200, headers, content)
            return
        first = int(asked[1])
        part = content[first : int(asked[2]) + 1 if asked[2] else None]
        if first >= len(content):
            self._error(416, "InvalidRange")
            return
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        self._answer(206, headers, part)

    def _copy(self, source):
        content = self.state.objects.get(f"/{source}")
        if content is None:
            self._error(404, "NoSuchKey")
        elif self.headers["x-amz-copy-source-if-match"].strip('"') != etag(content).strip('"'):
            self._error(412, "PreconditionFailed")
        else:
            self._store(self.place, content)
            self._xml(200, f"<CopyObjectResult><ETag>{escape(etag(content))}</ETag></CopyObjectResult>")

    def _store(self, place, content):
        self.state.objects[place] = content
        self.state.modified[place] = self.state.now

    def _conditions_hold(self):
        faults, content = self.state.faults, self.state.objects.get(self.place)
        wanted = {name: self.headers.get(name) for name in ("If-Match", "If-None-Match") if name not in faults.ignored}
        if wanted.get("If-None-Match") == "*" and content is not None:
            return False
        if wanted.get("If-Match") is None:
            return True
        if faults.never_matching or content is None:
            return False
        shown = etag(content)
        return wanted["If-Match"] == (shown.strip('"') if faults.bare_etags else shown)

    # Multipart uploads

    def _put_part(self, body):
        upload = self.state.uploads.get(self.query["uploadId"])
        if upload is None:
            self._error(404, "NoSuchUpload")
            return
        upload.parts[int(self.query["partNumber"])] = body
        self._answer(200, {"ETag": etag(body)})

    def _list_parts(self, upload):
        if upload is None:
            self._error(404, "NoSuchUpload")
            return
        added = f"<LastModified>{upload.initiated:%Y-%m-%dT%H:%M:%SZ}</LastModified>"
        parts = "".join(f"<Part><PartNumber>{number}</PartNumber>{added}</Part>" for number in upload.parts)
        self._xml(200, f"<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>")

    def _complete(self, upload_id):
        result = f"<CompleteMultipartUploadResult><ETag>{escape(upload_id)}</ETag></CompleteMultipartUploadResult>"
        with self.state.lock:
            if self.state.completed.get(upload_id) == self.place:
                self._xml(200, result)
                return
            upload = self.state.uploads.get(upload_id)
            if upload is None:
                self._error(404, "NoSuchUpload")
                return
            if "complete" not in self.state.faults.ignored and not self._conditions_hold():
                self._error(412, "PreconditionFailed")
                return
            self._store(self.place, b"".join(upload.parts[number] for number in sorted(upload.parts)))
            if "remembering" not in self.state.faults.ignored:
                self.state.completed[upload_id] = self.place
            del self.state.uploads[upload_id]
        self._xml(200, result)

    # The bucket

    def _list(self):
        prefix = f"{self.place.rstrip('/')}/{self.query.get('prefix', '')}"
        after = (
            self.query.get("continuation-token", "") or f"{self.place.rstrip('/')}/{self.query.get('start-after', '')}"
        )
        found = sorted(place for place in list(self.state.objects) if place.startswith(prefix) and place > after)
        page, more = found[:PAGE], len(found) > PAGE
        items = "".join(
            f"<Contents><Key>{escape(place.removeprefix(f'/{BUCKET}/'))}</Key><Size>{len(self.state.objects[place])}</Size>"
            f"<LastModified>{self.state.modified[place]:%Y-%m-%dT%H:%M:%SZ}</LastModified></Contents>"
            for place in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self._xml(200, f"<ListBucketResult>{token}{items}</ListBucketResult>")

    def _list_uploads(self):
        items = "".join(
            f"<Upload><Key>{escape(upload.path.removeprefix(f'/{BUCKET}/'))}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{upload.initiated:%Y-%m-%dT%H:%M:%SZ}</Initiated></Upload>"
            for upload_id, upload in self.state.uploads.items()
        )
        self._xml(
            200, f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{items}</ListMultipartUploadsResult>"
        )

    def _answer_lifecycle(self):
        if self.state.lifecycle:
            self._xml(200, f"<LifecycleConfiguration>{self.state.lifecycle}</LifecycleConfiguration>")
        else:
            self._error(404, "NoSuchLifecycleConfiguration")

    # Requests and replies

    @property
    def place(self):
        return unquote(urlsplit(self.path).path)

    @property
    def query(self):
        pairs = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in pairs.items()}

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _damaged(self, body):
        """True when the bytes are not those that were announced, and it has been said so."""
        faults = self.state.faults
        if self.told and body and faults.damaged_bodies > 0:
            faults.damaged_bodies -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        announced = self.headers.get("x-amz-checksum-sha256")
        if announced is not None and faults.checksums_unknown:
            self._error(501, "NotImplemented")
            return True
        digest = hashlib.sha256(body).digest()
        right = self.headers.get("x-amz-content-sha256") in (digest.hex(), "UNSIGNED-PAYLOAD")
        right = right and announced in (None, base64.b64encode(digest).decode())
        if not right and "checksums" not in faults.ignored:
            self._error(400, "BadDigest")
            return True
        return False

    def _told(self):
        """True when this request is one of those that the faults are for. To be asked once for each request."""
        faults = self.state.faults
        if re.search(faults.on, f"{self.command} {self.path}") is None:
            return False
        faults.skipped -= 1
        return faults.skipped < 0

    def _failed_as_told(self):
        names = "&".join(self.query)
        self.state.requests.append(f"{self.command} {self.place}" + (f"?{names}" if names else ""))
        faults = self.state.faults
        self.told = self._told()
        if any(f"Credential={key}/" in self.headers.get("Authorization", "") for key in faults.expired_keys):
            self._error(403, "ExpiredToken")
        elif not self.place.startswith(f"/{BUCKET}"):
            self._error(404, "NoSuchBucket")
        elif self.told and faults.stalled > 0:
            faults.stalled -= 1
            self.state.stopped.wait()
            self.close_connection = True
        elif self.told and faults.errors:
            self._error(*faults.errors.pop(0))
        else:
            return False
        return True

    def _lost(self):
        if self.state.faults.lost_answers <= 0 or not self.told:
            return False
        self.state.faults.lost_answers -= 1
        self.close_connection = True
        return True

    def _error(self, status, code):
        body = f"<Error><Code>{code}</Code><Message>the key testsecretkey is wrong</Message></Error>".encode()
        self._answer(status, {"Content-Type": "application/xml"}, body)

    def _xml(self, status, document):
        self._answer(status, {"Content-Type": "application/xml"}, document.encode())

    def _answer(self, status, headers, body=b""):
        if status < 300 and self._lost():
            return
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
