"""An upstream registry on a real socket that does what its script says, and can be told to misbehave in every way.

It serves the blobs and manifests that it is given. ``Script.plan`` puts a fault before the next requests that fit; a
fault answers in place of the registry, or lets it answer and spoils that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from cache.oci import media_types
from cache.oci.digest import Digest

Fault = Callable[["Script", web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Plan:
    """A fault for the next ``times`` requests of a method ("" = any) that have ``part`` in their path."""

    fault: Fault
    method: str
    part: str
    times: int


@dataclass
class Script:
    """What a scripted upstream does; tests change it while it runs."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    pause_at: int | None = None
    """Sends so many bytes of a blob, then waits for ``go_on``."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    cut_at: int | None = None
    """Closes the connection after so many bytes of a blob, for the next ``cuts`` requests."""
    cuts: int = 0
    status: int | None = None
    """Answers everything with this status."""
    refuse_manifests: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    """Go with every reply."""
    plans: list[Plan] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    url: str = ""

    def count(self, method: str, part: str) -> int:
        """How many requests there were."""
        return sum(seen == method and part in path for seen, path in self.seen)

    def plan(self, fault: Fault, method: str = "", part: str = "", times: int = 1) -> None:
        """Lets the next requests that fit meet the fault."""
        self.plans.append(Plan(fault, method, part, times))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path))
        self.authorizations.append(request.headers.get("Authorization", ""))
        for plan in self.plans:
            if plan.times > 0 and plan.method in ("", request.method) and plan.part in request.path:
                plan.times -= 1
                return await plan.fault(self, request)
        return await self.answer(request)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What a registry in good health answers."""
        if self.status is not None:
            return web.Response(status=self.status, headers=self.headers)
        kind, _, name = request.path.rpartition("/")
        if kind.endswith("/manifests"):
            return await self._manifest(request, name)
        if request.path.endswith("/blobs/uploads/"):
            return web.Response(status=202, headers={"Location": "/v2/a/blobs/uploads/secret-session?state=1"})
        if "/uploads/" in request.path:
            await request.read()
            location = {"Location": "/v2/a/blobs/uploads/secret-session?state=2"}
            return web.Response(status=202 if request.method == "PATCH" else 201, headers=location)
        return await self._blob(request, name)

    async def _manifest(self, request: web.Request, name: str) -> web.Response:
        if request.method == "PUT":
            body = await request.read()
            if self.refuse_manifests:
                return web.json_response({"errors": [{"code": "DENIED", "message": "no push today"}]}, status=403)
            self.manifests[name] = body
            return web.Response(status=201)
        raw = self.manifests.get(name)
        if raw is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "none"}]}
            return web.json_response(error, status=404, headers=self.headers)
        digest = str(Digest.of(raw))
        headers = {"Docker-Content-Digest": digest, "Content-Type": media_types.OCI_MANIFEST, **self.headers}
        if digest in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=raw, headers=headers)

    async def _blob(self, request: web.Request, name: str) -> web.StreamResponse:
        data = self.blobs.get(name)
        if data is None:
            return web.Response(status=404)
        asked = request.http_range
        start = asked.start or 0
        if start >= len(data) > 0:
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        if request.method == "GET":
            await self._send(request, response, data[start:])
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        if self.cut_at is not None and self.cuts > 0:
            self.cuts -= 1
            await response.write(data[: self.cut_at])
            assert request.transport is not None
            request.transport.close()
            return
        sent = 0
        if self.pause_at is not None:
            await response.write(data[: self.pause_at])
            sent = self.pause_at
            await self.go_on.wait()
        await response.write(data[sent:])

    def content(self, request: web.Request) -> bytes:
        """The bytes that a GET of a blob or manifest would be answered with."""
        name = request.path.rpartition("/")[2]
        return self.manifests[name] if "/manifests/" in request.path else self.blobs[name]


def status(code: int, **headers: str) -> Fault:
    """Answers with this status; underscores in names of headers stand for hyphens."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return fault


def body(data: bytes, media_type: str = media_types.OCI_MANIFEST, **headers: str) -> Fault:
    """Answers with success and these bytes."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        more = {name.replace("_", "-"): text for name, text in headers.items()}
        return web.Response(body=data, headers={"Content-Type": media_type, **more})

    return fault


def announced(more_bytes: int, sent: Callable[[bytes], bytes] = bytes) -> Fault:
    """Announces so many bytes more than there are, and sends what ``sent`` makes of them; closes the connection."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        data = script.content(request)
        head = {"Content-Length": str(len(data) + more_bytes), "Content-Type": media_types.OCI_MANIFEST}
        return await _raw(request, 200, head, sent(data))

    return fault


async def stall(script: Script, request: web.Request) -> web.StreamResponse:
    """Says nothing until ``go_on``, and nothing good then."""
    await script.go_on.wait()
    return web.Response(status=503)


async def hold(script: Script, request: web.Request) -> web.StreamResponse:
    """Answers rightly, once ``go_on`` is set."""
    answer = await script.answer(request)
    await script.go_on.wait()
    return answer


def private(authorization: str) -> Fault:
    """Answers only who brings this ``Authorization``."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == authorization:
            return await script.answer(request)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    return fault


def stall_at(position: int) -> Fault:
    """Sends so many bytes of the body, and no more until ``go_on``."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        data = script.content(request)
        response = web.StreamResponse(headers={"Content-Type": media_types.OCI_MANIFEST})
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:position])
        await script.go_on.wait()
        return response

    return fault


def reset_at(position: int) -> Fault:
    """Sends so many bytes of the body, then resets the connection."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        data = script.content(request)
        response = web.StreamResponse(headers={"Content-Type": media_types.OCI_MANIFEST})
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:position])
        await asyncio.sleep(0)
        assert request.transport is not None
        request.transport.abort()
        return response

    return fault


async def without_length(script: Script, request: web.Request) -> web.StreamResponse:
    """Sends the body in chunks, without saying how long it is."""
    response = web.StreamResponse(headers={"Content-Type": media_types.OCI_MANIFEST})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(script.content(request))
    return response


async def compressed(script: Script, request: web.Request) -> web.StreamResponse:
    """Compresses the body, though nobody asked for that."""
    headers = {"Content-Encoding": "gzip", "Content-Type": media_types.OCI_MANIFEST}
    return web.Response(body=gzip.compress(script.content(request)), headers=headers)


def headers_of(size_bytes: int) -> Fault:
    """Answers rightly, with a header of so many bytes."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        data = script.content(request)
        head = {"X-Long": "x" * size_bytes, "Content-Type": media_types.OCI_MANIFEST, "Content-Length": str(len(data))}
        return await _raw(request, 200, head, data)

    return fault


def redirect(hops: int, absolute: bool = False) -> Fault:
    """Leads over so many redirects to the right answer."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        left = hops
        with contextlib.suppress(KeyError):
            left = int(request.query["hops"])
        if not left:
            return await script.answer(request)
        base = script.url if absolute else ""
        return web.Response(status=307, headers={"Location": f"{base}{request.path}?hops={left - 1}"})

    return fault


def wants_token(reply: Mapping[str, object]) -> Fault:
    """Wants a token that its own token server gives in this reply."""

    async def fault(script: Script, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response(dict(reply))
        if request.headers.get("Authorization") == f"Bearer {reply.get('token')}":
            return await script.answer(request)
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{script.url}/token",service="s"'})

    return fault


async def _raw(request: web.Request, code: int, head: Mapping[str, str], data: bytes) -> web.StreamResponse:
    """Writes a reply past the server, as it stands here, and closes the connection."""
    assert request.transport is not None
    lines = "".join(f"{name}: {text}\r\n" for name, text in head.items())
    request.transport.write(f"HTTP/1.1 {code} Fine\r\n{lines}\r\n".encode() + data)
    request.transport.close()
    return web.Response()


@asynccontextmanager
async def scripted_upstream() -> AsyncIterator[Script]:
    """An upstream that does what its script says."""
    script = Script()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield script
    finally:
        script.go_on.set()
        await runner.cleanup()
