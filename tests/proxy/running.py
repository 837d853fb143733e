"""A running proxy, images to move through it, and an upstream that can be told to misbehave."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from cache.filesystem import FilesystemStore
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.config import ImageConfig, RootFS
from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import Manifest, make_manifest
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from cache.store import Store
from proxy.app import serve
from proxy.config import Freshness, ProxyConfig, Upstream

UPSTREAM = "up.test"


@dataclass(frozen=True)
class Proxy:
    """A proxy of ours in this process."""

    url: str
    store: Store

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")


@asynccontextmanager
async def running_proxy(
    tmp: Path,
    upstreams: Mapping[str, str | Upstream],
    *,
    store: Store | None = None,
    tag_ttl_s: float = 60.0,
    **settings: Any,
) -> AsyncIterator[Proxy]:
    """A proxy in front of these upstreams (the first one is the default), ``cache/`` hosted.

    One that is given by its URL does not remember what is not there. ``settings`` are more of ProxyConfig's.
    """
    freshness = Freshness(tag_ttl_s=tag_ttl_s, negative_ttl_s=0.0)
    config = ProxyConfig(
        host="127.0.0.1",
        port=0,
        store_url="",
        upstreams={
            name: known if isinstance(known, Upstream) else Upstream(name, known, freshness=freshness)
            for name, known in upstreams.items()
        },
        default_upstream=next(iter(upstreams), None),
        hosted=("cache",),
        **settings,
    )
    used = store or FilesystemStore(tmp / "store")
    try:
        async with serve(config, used, os.environ) as running:
            yield Proxy(f"http://127.0.0.1:{running.port}", used)
    finally:
        await used.close()


@dataclass(frozen=True)
class Image:
    """An image with all its bytes."""

    manifest: Manifest
    blobs: dict[Digest, bytes]

    @property
    def layer(self) -> Digest:
        return self.manifest.layers[0].digest


def make_image(seed: int = 1, layer_bytes: int = 300_000) -> Image:
    """An image with one layer; the same seed gives the same image. Its layer is no tar: registries do not look."""
    layer = random.Random(seed).randbytes(layer_bytes)
    config = ImageConfig(os="linux", architecture="amd64", rootfs=RootFS(diff_ids=(Digest.of(layer),))).to_json()
    manifest = make_manifest(descriptor(config, media_types.OCI_CONFIG), (descriptor(layer, media_types.OCI_LAYER),))
    return Image(manifest, {Digest.of(blob): blob for blob in (config, layer)})


def descriptor(data: bytes, media_type: str) -> Descriptor:
    """What the bytes are."""
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


@asynccontextmanager
async def client_of(url: str, credential: Credential = ANONYMOUS) -> AsyncIterator[RegistryClient]:
    """Our registry client, without patience."""
    async with Transport() as transport:
        yield RegistryClient(transport, url, credential, backoff=Backoff(tries=1))


async def push(client: RegistryClient, repository: str, tag: str, image: Image) -> None:
    """Pushes the image whole."""
    for digest, data in image.blobs.items():
        await client.upload_blob(repository, digest, len(data), chunks_of(data))
    await client.put_manifest(repository, tag, image.manifest.raw, image.manifest.media_type)


def chunks_of(data: bytes):
    """A source of these bytes, as often as it is opened."""

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield chunks()

    return source


async def run(*command: str, env: dict[str, str] | None = None, status: int = 0) -> str:
    """Runs a program, without blocking the servers of this process; gives all that it says."""
    ended, said = await run_any(*command, env=env)
    assert ended == status, f"{command} ended with {ended}: {said}"
    return said


async def run_any(*command: str, env: dict[str, str] | None = None) -> tuple[int | None, str]:
    """The exit status of a program, and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    said = (await process.communicate())[0].decode(errors="replace")
    return process.returncode, said


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
    seen: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    url: str = ""

    def count(self, method: str, part: str) -> int:
        """How many requests there were."""
        return sum(seen == method and part in path for seen, path in self.seen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path))
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self.status is not None:
            return web.Response(status=self.status)
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
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "none"}]}, status=404)
        headers = {"Docker-Content-Digest": str(Digest.of(raw)), "Content-Type": media_types.OCI_MANIFEST}
        return web.Response(body=raw, headers=headers)

    async def _blob(self, request: web.Request, name: str) -> web.StreamResponse:
        data = self.blobs.get(name)
        if data is None:
            return web.Response(status=404)
        asked = request.http_range
        start = asked.start or 0
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


async def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One GET on a connection of its own."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def head(url: str, **headers: str) -> tuple[int, dict[str, str]]:
    """One HEAD on a connection of its own."""
    async with aiohttp.ClientSession() as session, session.head(url, headers=headers) as response:
        return response.status, dict(response.headers)
