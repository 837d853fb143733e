"""A registry in memory that takes uploads as distribution-spec says, and fails as a test tells it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from cache.oci.digest import Digest

Fault = Callable[["UploadUpstream", web.Request], Awaitable[web.StreamResponse | None]]
"""What happens instead of the answer to a request; None = the answer comes all the same."""


@dataclass
class UploadUpstream:
    """What it holds and how it behaves; tests change it while it runs."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """For each method what happens to its next requests, one after the other."""
    reports: bool = True
    """It says how far an upload is."""
    streams: bool = True
    """It takes bodies without a length."""
    chunk_limit: int | None = None
    least_chunk: int | None = None
    misses_blobs: bool = False
    """It takes no manifest whose blobs it does not have."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    received_bytes: int = 0
    url: str = ""

    def count(self, method: str, part: str = "") -> int:
        """How many requests there were."""
        return sum(seen == method and part in path for seen, path in self.seen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        faults = self.faults.get(request.method)
        if faults and (answer := await faults.pop(0)(self, request)) is not None:
            return answer
        kind, _, name = request.path.rpartition("/")
        if kind.endswith("/manifests"):
            return await self._manifest(request, name)
        if not name:
            return self._start(request, kind)
        if kind.endswith("/uploads"):
            return await self._upload(request, name)
        data = self.blobs.get(name)
        return web.Response(status=404) if data is None else web.Response(body=data)

    def _start(self, request: web.Request, path: str) -> web.Response:
        if request.query.get("mount") in self.blobs and "from" in request.query:
            return web.Response(status=201)
        name = f"session-{len(self.seen)}"
        self.sessions[name] = bytearray()
        more = {} if self.least_chunk is None else {"OCI-Chunk-Min-Length": str(self.least_chunk)}
        return web.Response(status=202, headers={"Location": f"{path}/{name}"} | more)

    async def _upload(self, request: web.Request, name: str) -> web.Response:
        held = self.sessions.get(name)
        if held is None:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "DELETE":
            del self.sessions[name]
            return web.Response(status=204)
        if request.method == "GET":
            return self._reply(204, request, held) if self.reports else refusal(404, "BLOB_UPLOAD_UNKNOWN")
        refused = self._refused(request, held)
        if refused is not None:
            return refused
        await self.read(request, None)
        if request.method == "PATCH":
            return self._reply(202, request, held)
        digest = Digest.parse(request.query["digest"])
        if Digest.of(held, digest.algorithm) != digest:
            return refusal(400, "DIGEST_INVALID")
        self.blobs[str(digest)] = bytes(self.sessions.pop(name))
        return web.Response(status=201)

    def _refused(self, request: web.Request, held: bytearray) -> web.Response | None:
        place, length = request.headers.get("Content-Range"), request.content_length
        if not self.streams and length is None:
            return refusal(411, "SIZE_INVALID")
        if self.chunk_limit is not None and length is not None and length > self.chunk_limit:
            return refusal(416, "BLOB_UPLOAD_INVALID")
        if place is not None and int(place.partition("-")[0]) != len(held):
            return refusal(416, "BLOB_UPLOAD_INVALID")
        return None

    def _reply(self, status: int, request: web.Request, held: bytearray) -> web.Response:
        return web.Response(status=status, headers={"Location": request.path, "Range": f"0-{max(0, len(held) - 1)}"})

    async def read(self, request: web.Request, limit_bytes: int | None) -> None:
        """Reads the body, or so many bytes of it, into the request's session."""
        held = self.sessions[request.path.rpartition("/")[2]]
        left = limit_bytes
        while left != 0 and (data := await request.content.read(left or 65536)):
            held += data
            self.received_bytes += len(data)
            left = left - len(data) if left is not None else None

    async def _manifest(self, request: web.Request, name: str) -> web.Response:
        if request.method != "PUT":
            raw = self.manifests.get(name)
            return refusal(404, "MANIFEST_UNKNOWN") if raw is None else web.Response(body=raw)
        raw = await request.read()
        named = re.findall(r"sha256:[0-9a-f]{64}", raw.decode())
        if self.misses_blobs and set(named) - set(self.blobs):
            return refusal(400, "MANIFEST_BLOB_UNKNOWN")
        self.manifests[name] = raw
        return web.Response(status=201)


def refusal(status: int, code: str, **headers: str) -> web.Response:
    """An error as registries say it."""
    body = {"errors": [{"code": code, "message": f"said with {status}"}]}
    return web.json_response(
        body, status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def answer(status: int, code: str = "UNKNOWN", **headers: str) -> Fault:
    """Refuses at once, without reading the body."""

    async def fault(upstream: UploadUpstream, request: web.Request) -> web.StreamResponse:
        return refusal(status, code, **headers)

    return fault


def reset(at_bytes: int) -> Fault:
    """Takes so many bytes of the body, then breaks the connection."""

    async def fault(upstream: UploadUpstream, request: web.Request) -> web.StreamResponse:
        await upstream.read(request, at_bytes)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return fault


def lose_answer() -> Fault:
    """Does what it was asked to do, and breaks the connection instead of saying so."""

    async def fault(upstream: UploadUpstream, request: web.Request) -> web.StreamResponse:
        done = await upstream._upload(request, request.path.rpartition("/")[2])
        assert request.transport is not None
        request.transport.abort()
        return done

    return fault


def lose_session() -> Fault:
    """Forgets all uploads before it answers."""

    async def fault(upstream: UploadUpstream, request: web.Request) -> None:
        upstream.sessions.clear()

    return fault


def wait(event: asyncio.Event) -> Fault:
    """Answers, and reads the body, only once the event is set."""

    async def fault(upstream: UploadUpstream, request: web.Request) -> None:
        await event.wait()

    return fault


@asynccontextmanager
async def upload_upstream() -> AsyncIterator[UploadUpstream]:
    """Such a registry, running."""
    upstream = UploadUpstream()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", upstream.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield upstream
    finally:
        await runner.cleanup()
