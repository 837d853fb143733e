"""Warming: an image's index, manifests and blobs are fetched before anybody needs them.

Either through a proxy, whose cache fills by being asked, or straight into a store, in the proxy's own layout.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cache.catalog import Catalog, TagEntry
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.oci.reference import Reference
from cache.oci.registries import ProxyRegistries, Registries
from cache.store import Store
from cache.together import together
from cache.verify import verified

PARALLEL_BLOBS = 6


@dataclass(frozen=True, slots=True)
class Warmed:
    """What one image cost: ``fetched_bytes`` of blobs came, ``held_blobs`` were there before."""

    digest: Digest
    blobs: int
    held_blobs: int
    fetched_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is fetched from, and by what name."""

    reference: Reference
    client: RegistryClient
    repository: str


class Target(Protocol):
    """Where warmed images go."""

    @property
    def registries(self) -> Registries | ProxyRegistries:
        """Where images come from."""

    async def take_blob(self, place: Place, blob: Descriptor) -> bool:
        """Fetches and verifies a blob; False when the target has it already."""

    async def take_manifests(self, place: Place, manifests: Sequence[Manifest | Index]) -> None:
        """Keeps the manifests, whose blobs are all there; the last one is what the reference points to."""


class ProxyTarget:
    """A proxy: what is asked of it stays with it."""

    def __init__(self, proxy: ProxyRegistries) -> None:
        self.registries = proxy

    async def take_blob(self, place: Place, blob: Descriptor) -> bool:
        async with place.client.open_blob(place.repository, blob.digest) as reply:
            async for _ in verified(reply.chunks, blob.digest, blob.size):
                pass
        return True

    async def take_manifests(self, place: Place, manifests: Sequence[Manifest | Index]) -> None:
        """Nothing: the proxy keeps what it has passed on."""


class StoreTarget:
    """A store, laid out as a proxy lays it out: a proxy on it serves the image under its registry's name."""

    def __init__(self, store: Store, registries: Registries) -> None:
        self._store = store
        self._catalog = Catalog(store)
        self.registries = registries

    async def take_blob(self, place: Place, blob: Descriptor) -> bool:
        held = await self._store.stat(blob.digest) == blob.size
        if not held:
            await self._fetch(place, blob)
        await self._catalog.add_member(place.reference.host, place.reference.repository, blob)
        return not held

    async def _fetch(self, place: Place, blob: Descriptor) -> None:
        async with (
            place.client.open_blob(place.repository, blob.digest) as reply,
            self._store.writer(blob.digest) as writer,
        ):
            async for chunk in verified(reply.chunks, blob.digest, blob.size):
                await writer.write(chunk)
            await writer.commit(blob.digest)

    async def take_manifests(self, place: Place, manifests: Sequence[Manifest | Index]) -> None:
        reference = place.reference
        for manifest in manifests:
            await self._catalog.put_manifest(reference.host, reference.repository, manifest)
        if reference.tag is not None and reference.digest is None:
            entry = TagEntry(manifests[-1].descriptor, time.time())
            await self._catalog.set_tag(reference.host, reference.repository, reference.tag, entry)


async def warm(reference: Reference, target: Target, platforms: Iterable[Platform]) -> Warmed:
    """Fetches one image for these platforms. An image without an index is taken whatever its platform is.

    Raises OCIError or CacheError; what has been fetched until then stays.
    """
    started_s = time.monotonic()
    client, repository, reply = await target.registries.resolve_manifest(reference)
    place = Place(reference, client, repository)
    top = parse_manifest(reply.raw, reply.media_type)
    manifests = [top] if isinstance(top, Manifest) else await _children(place, top, platforms)
    blobs = list({blob.digest: blob for manifest in manifests for blob in manifest.children}.values())
    fetched = await together((functools.partial(target.take_blob, place, blob) for blob in blobs), PARALLEL_BLOBS)
    await target.take_manifests(place, manifests if isinstance(top, Manifest) else [*manifests, top])
    came = [blob.size for blob, fresh in zip(blobs, fetched, strict=True) if fresh]
    seconds = time.monotonic() - started_s
    return Warmed(top.digest, len(blobs), len(blobs) - len(came), sum(came), seconds)


async def _children(place: Place, index: Index, platforms: Iterable[Platform]) -> list[Manifest]:
    """The manifests for the platforms, each once."""
    chosen = {described.digest: described for described in map(index.select, platforms)}
    found: list[Manifest] = []
    for digest in chosen:
        reply = await place.client.get_manifest(place.repository, str(digest))
        manifest = parse_manifest(reply.raw, reply.media_type)
        if isinstance(manifest, Index):
            raise InvalidManifest(f"index {digest} is inside another index, {index.digest}")
        found.append(manifest)
    return found
