"""The tags and the cached steps of a store, one by one. For maintenance: this lists."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from cache import entry, record_names
from cache.catalog import Catalog
from cache.entry import CachedStep, InvalidEntry
from cache.errors import BlobNotFound, DamagedRecord
from cache.keys import CacheKey
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.record_names import Kind, Named
from cache.store import Store
from cache.upkeep.walking import read_each, records_below

MANIFEST_BYTES = 8 << 20
"""More than this is read of no manifest."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A tag of a repository, or a step in a builder's local cache (``layers/<key>``).

    ``size_bytes`` is that of its image or layer, None where that is not known: of an index, or what is not held. ``at``
    is when it was pushed or last confirmed by its upstream, or the step built, in unix seconds. ``problem`` says what
    is wrong with its record, "" = nothing.
    """

    name: str
    digest: str = ""
    size_bytes: int | None = None
    at: float | None = None
    problem: str = ""


async def listed(store: Store, place: str = "") -> AsyncIterator[Listed]:
    """What is at and below a place: a repository or the beginning of its name, ``layers``, or "" for all.

    Raises StoreUnavailable, and ValueError for what can be no place.
    """
    catalog = Catalog(store)

    async def read_tag(named: Named) -> Listed:
        return await _tag(store, catalog, named)

    async def read_layer(name: str) -> Listed:
        return await _layer(store, name)

    if place != record_names.LAYERS.rstrip("/"):
        tags = (named async for named in records_below(store, place) if named.kind is Kind.TAG)
        async for found in read_each(tags, read_tag):
            yield found
    if place in ("", record_names.LAYERS.rstrip("/")):
        async for found in read_each(store.names(record_names.LAYERS), read_layer):
            yield found


async def _tag(store: Store, catalog: Catalog, named: Named) -> Listed:
    name = f"{named.place}:{named.rest}"
    try:
        found = await catalog.tag(named.namespace, named.repository, named.rest)
    except (DamagedRecord, ValueError) as error:
        return Listed(name, problem=str(error))
    if found is None:
        return Listed(name, problem="it went while it was listed")
    descriptor = found.descriptor
    manifest = None
    with contextlib.suppress(BlobNotFound, InvalidManifest):
        async with store.open(descriptor.digest, 0, MANIFEST_BYTES) as chunks:
            manifest = parse_manifest(b"".join([chunk async for chunk in chunks]), descriptor.media_type)
    return Listed(name, str(descriptor.digest), _image_bytes(manifest), found.checked_at)


def _image_bytes(manifest: Manifest | Index | None) -> int | None:
    if not isinstance(manifest, Manifest):
        return None
    return len(manifest.raw) + sum(child.size for child in manifest.children)


async def _layer(store: Store, name: str) -> Listed:
    try:
        record = await store.get(name)
        if record is None:
            return Listed(name, problem="it went while it was listed")
        step = entry.from_manifest(CacheKey(name.rpartition("/")[2]), parse_manifest(record.value, ""))
    except (DamagedRecord, InvalidEntry, InvalidManifest, ValueError) as error:
        return Listed(name, problem=str(error))
    if step.layer is None:
        return Listed(f"layers/{step.key}", size_bytes=0, at=_created_at(step))
    descriptor = step.layer.descriptor
    return Listed(f"layers/{step.key}", str(descriptor.digest), descriptor.size, _created_at(step))


def _created_at(step: CachedStep) -> float | None:
    try:
        return datetime.fromisoformat(step.created).timestamp()
    except ValueError:
        return None
