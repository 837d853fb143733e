"""The manifests and tags of upstreams that are held: in memory what is asked for often, all of it in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from cache.catalog import Catalog, TagEntry
from cache.errors import CacheError
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from proxy.requests.routing import Proxied

MAX_TAGS = 50_000
MEMORY_BYTES = 64 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest's exact bytes and what they are."""

    descriptor: Descriptor
    raw: bytes


class HeldManifests:
    """Keeps and gives what upstreams have shown. Who may see it, and whether it is fresh, others decide.

    ``now`` gives unix seconds. Reading raises StoreUnavailable.
    """

    def __init__(self, catalog: Catalog, now: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self.now = now
        self._tags: LRUCache[tuple[str, str, str], TagEntry] = LRUCache(MAX_TAGS)
        self._memory: LRUCache[tuple[str, str, Digest], HeldManifest] = LRUCache(
            MEMORY_BYTES, getsizeof=lambda held: len(held.raw)
        )

    async def manifest(self, route: Proxied, digest: Digest) -> HeldManifest | None:
        """The manifest, when the repository has it and we hold its bytes."""
        key = (route.namespace, route.repository, digest)
        held = self._memory.get(key)
        if held is None:
            found = await self._catalog.manifest(*key)
            if found is None:
                return None
            raw, media_type = found
            held = HeldManifest(Descriptor(media_type=media_type, digest=digest, size=len(raw)), raw)
            self._memory[key] = held
        return held

    async def descriptor(self, route: Proxied, digest: Digest) -> Descriptor | None:
        """What the manifest is, when the repository is known to have it."""
        held = self._memory.get((route.namespace, route.repository, digest))
        if held is not None:
            return held.descriptor
        return await self._catalog.member(route.namespace, route.repository, digest)

    async def tag(self, route: Proxied, tag: str) -> TagEntry | None:
        """Where the tag pointed when it was last checked."""
        key = (route.namespace, route.repository, tag)
        entry = self._tags.get(key)
        if entry is None or self.now() - entry.checked_at >= route.upstream.freshness.ttl_of(tag):
            entry = await self._catalog.tag(*key) or entry  # another replica may have asked since
        if entry is not None:
            self._tags[key] = entry
        return entry

    async def keep(self, route: Proxied, descriptor: Descriptor, raw: bytes) -> None:
        """Keeps a manifest. A store that fails costs the caching and is logged."""
        self._memory[(route.namespace, route.repository, descriptor.digest)] = HeldManifest(descriptor, raw)
        try:
            await self._catalog.put_blob_bytes(route.namespace, route.repository, descriptor, raw)
        except CacheError as error:
            log.warning("manifest_not_stored", repository=str(route), digest=str(descriptor.digest), error=str(error))

    async def point(self, route: Proxied, tag: str, descriptor: Descriptor) -> None:
        """Notes where the tag points now. A store that fails is logged; nothing older is served afterwards."""
        entry = TagEntry(descriptor, self.now())
        self._tags[(route.namespace, route.repository, tag)] = entry
        try:
            await self._catalog.set_tag(route.namespace, route.repository, tag, entry)
        except CacheError as error:
            log.warning("tag_not_stored", repository=str(route), tag=tag, error=str(error))

    async def forget(self, route: Proxied, reference: str | Digest) -> None:
        """Forgets a tag, or a manifest with the tags that are known to point to it. Raises StoreUnavailable."""
        if isinstance(reference, Digest):
            self._memory.pop((route.namespace, route.repository, reference), None)
            await self._catalog.remove_member(route.namespace, route.repository, reference)
            for tag in self._tags_of(route, reference):
                await self.forget(route, tag)
        else:
            self._tags.pop((route.namespace, route.repository, reference), None)
            await self._catalog.remove_tag(route.namespace, route.repository, reference)

    def _tags_of(self, route: Proxied, digest: Digest) -> list[str]:
        repository = (route.namespace, route.repository)
        return [
            key[2] for key, entry in self._tags.items() if key[:2] == repository and entry.descriptor.digest == digest
        ]
