"""CacheKey → layer: all that a build sees of a cache, in a registry (or our proxy) or in a local store."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from cache import entry, paths
from cache.entry import CachedStep, InvalidEntry
from cache.keys import CacheKey
from cache.oci.challenge import repository_scope
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.errors import InvalidManifest, NotFound
from cache.oci.layer import Layer
from cache.oci.manifest import parse_manifest
from cache.oci.transport import read_limited
from cache.oci.uploads import Source, bytes_source
from cache.store import Store
from cache.together import together
from cache.upkeep.uses import write_uses
from cache.verify import verified

PARALLEL_LOOKUPS = 16
LOOKUP_REPLY_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class LayerCache(Protocol):
    """Build steps' results by key. A failure is raised (OCIError, CacheError) and never passed off as a miss."""

    async def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, CachedStep]:
        """The steps that are there, whole; keys that are not there are left out."""

    async def recall(self, key: CacheKey) -> CachedStep | None:
        """One step with its note, asked for by itself; None when it is not there."""

    async def save(self, step: CachedStep, source: Source | None) -> None:
        """Stores the step; ``source`` opens its layer's bytes, None when there is no layer."""

    def open(self, layer: Layer) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The layer's compressed bytes, verified as they pass."""

    async def note_uses(self) -> None:
        """Writes down which steps were found, for whoever looks after the cache."""


class RegistryLayerCache:
    """A repository of cache entries in any registry; with one question for all keys where it is our proxy."""

    def __init__(self, client: RegistryClient, repository: str) -> None:
        self.client = client
        self.repository = repository
        self._batched: bool | None = None
        self._asking = asyncio.Lock()

    async def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, CachedStep]:
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        if await self._answers_batches():
            return await self._lookup_batched(wanted)
        return await self._lookup_singly(wanted)

    async def _answers_batches(self) -> bool:
        """Whether the registry announces the batched lookup; asked once."""
        async with self._asking:
            if self._batched is None:
                headers = await self.client.ping()
                features = headers.get(entry.FEATURES_HEADER, "").replace(",", " ").split()
                self._batched = entry.LOOKUP_FEATURE in features
            return self._batched

    async def _lookup_batched(self, keys: list[CacheKey]) -> dict[CacheKey, CachedStep]:
        found: dict[CacheKey, CachedStep] = {}
        for start in range(0, len(keys), entry.MAX_LOOKUP_KEYS):
            asked = keys[start : start + entry.MAX_LOOKUP_KEYS]
            hits = entry.decode_reply(await self.client.retrying(functools.partial(self._ask, asked)))
            found.update({key: hit.step for key in asked if (hit := hits.get(key)) is not None})
        return found

    async def _ask(self, keys: Sequence[CacheKey]) -> bytes:
        body = entry.encode_request(self.repository, keys)
        headers = {"Content-Type": "application/json"}
        scopes = (repository_scope(self.repository, "pull"),)
        async with self.client.request(
            "POST", entry.LOOKUP_PATH, headers=headers, data=body, scopes=scopes
        ) as response:
            await self.client.expect(response, "POST", self.client.base_url + entry.LOOKUP_PATH, 200)
            return await read_limited(response, LOOKUP_REPLY_BYTES, "the reply to the lookup")

    async def _lookup_singly(self, keys: list[CacheKey]) -> dict[CacheKey, CachedStep]:
        found = await together((functools.partial(self.recall, key) for key in keys), PARALLEL_LOOKUPS)
        return {step.key: step for step in found if step is not None}

    async def recall(self, key: CacheKey) -> CachedStep | None:
        try:
            reply = await self.client.get_manifest(self.repository, key.hex)
        except NotFound:
            return None
        return _read(key, reply.raw, reply.media_type)

    async def save(self, step: CachedStep, source: Source | None) -> None:
        manifest, config = entry.to_manifest(step)
        uploads = [functools.partial(self._upload, manifest.config, bytes_source(config))]
        if step.layer is not None:
            uploads.append(functools.partial(self._upload, step.layer.descriptor, _needed(source)))
        await together(uploads, len(uploads))
        await self.client.put_manifest(self.repository, step.key.hex, manifest.raw, manifest.media_type)

    async def _upload(self, descriptor: Descriptor, source: Source) -> None:
        if await self.client.head_blob(self.repository, descriptor.digest) is None:
            await self.client.upload_blob(self.repository, descriptor.digest, descriptor.size, source)

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        descriptor = layer.descriptor
        async with self.client.open_blob(self.repository, descriptor.digest) as reply:
            yield verified(reply.chunks, descriptor.digest, descriptor.size)

    async def note_uses(self) -> None:
        """Does nothing: a registry sees for itself what is asked for."""


class StoreLayerCache:
    """Cache entries in a local store: a record per key, which holds what a registry's manifest would."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uses: dict[str, int] = {}

    async def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, CachedStep]:
        wanted = dict.fromkeys(keys)
        found = await together((functools.partial(self.recall, key) for key in wanted), PARALLEL_LOOKUPS)
        steps = {step.key: step for step in found if step is not None}
        self._uses |= {paths.layer(key.hex): 1 for key in steps}
        return steps

    async def recall(self, key: CacheKey) -> CachedStep | None:
        record = await self._store.get(paths.layer(key.hex))
        step = _read(key, record.value) if record is not None else None
        if step is None or step.layer is None:
            return step
        descriptor = step.layer.descriptor
        return step if await self._store.stat(descriptor.digest) == descriptor.size else None

    async def save(self, step: CachedStep, source: Source | None) -> None:
        if step.layer is not None:
            await self._copy(step.layer, source)
        manifest, _ = entry.to_manifest(step)
        await self._store.put(paths.layer(step.key.hex), manifest.raw)

    async def _copy(self, layer: Layer, source: Source | None) -> None:
        descriptor = layer.descriptor
        if await self._store.stat(descriptor.digest) == descriptor.size:
            return
        async with _needed(source)() as chunks, self._store.writer(descriptor.digest) as writer:
            async for chunk in verified(chunks, descriptor.digest, descriptor.size):
                await writer.write(chunk)
            await writer.commit(descriptor.digest)

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        descriptor = layer.descriptor
        async with self._store.open(descriptor.digest) as chunks:
            yield verified(chunks, descriptor.digest, descriptor.size)

    async def note_uses(self) -> None:
        uses, self._uses = self._uses, {}
        await write_uses(self._store, uses, time.time())


def _read(key: CacheKey, raw: bytes, media_type: str = "") -> CachedStep | None:
    """The entry in a manifest; None, with a warning, for something else under the same name: the step is built anew."""
    try:
        return entry.from_manifest(key, parse_manifest(raw, media_type))
    except (InvalidEntry, InvalidManifest) as error:
        _log.warning("cache entry ignored: %s", error)
        return None


def _needed(source: Source | None) -> Source:
    if source is None:
        raise ValueError("a step with a layer is saved with the source of its bytes")
    return source
