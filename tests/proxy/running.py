"""A running proxy, and images to move through it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cache.disk.filesystem import FilesystemStore
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.config import ContainerConfig, ImageConfig, RootFS
from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import Manifest, make_manifest
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from cache.store import Store
from proxy.app import serve
from proxy.config import Freshness, Patience, ProxyConfig, Upstream
from proxy.upstream.circuit import Pace
from tests.fakes.faulty import Script as Script
from tests.fakes.faulty import scripted_upstream as scripted_upstream

UPSTREAM = "up.test"
NOTHING_SET = ContainerConfig()
AT_ONCE = Patience(
    backoff=Backoff(tries=3, first_s=0.01, factor=1.0),
    push_backoff=Backoff(tries=5, first_s=0.01, limit_s=30.0),
    pace=Pace(0.0, 0.0, 0.0),
)
"""Tries again quickly, and never leaves an upstream alone: it may have been told to behave again."""


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
    patience: Patience = AT_ONCE,
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
        patience=patience,
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


def make_image(seed: int = 1, layer_bytes: int = 300_000, container: ContainerConfig = NOTHING_SET) -> Image:
    """An image with one layer; the same seed gives the same image. Its layer is no tar: registries do not look."""
    layer = random.Random(seed).randbytes(layer_bytes)
    rootfs = RootFS(diff_ids=(Digest.of(layer),))
    config = ImageConfig(os="linux", architecture="amd64", config=container, rootfs=rootfs).to_json()
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


async def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One GET on a connection of its own."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def head(url: str, **headers: str) -> tuple[int, dict[str, str]]:
    """One HEAD on a connection of its own."""
    async with aiohttp.ClientSession() as session, session.head(url, headers=headers) as response:
        return response.status, dict(response.headers)
