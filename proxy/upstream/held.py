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
LOOK_S = 5.0
"""How long a replica trusts its memory of a tag before it reads what others have noted in the store."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest's exact bytes and what they are."""

    descriptor: Descriptor
    raw: bytes


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A tag's entry in memory, when it was last compared with the store, and whether the store has it."""

    entry: TagEntry
    looked_at: float
    stored: bool

    def yields_to(self, entry: TagEntry | None) -> bool:
        """Whether what the store has (None: nothing) counts more: not, when it is what could not be replaced there."""
        return self.stored or (entry is not None and entry.checked_at > self.entry.checked_at)


class HeldManifests:
    """Keeps and gives what upstreams have shown. Who may see it, and whether it is fresh, others decide.

    ``alone``: no other replica changes what the store has. ``now`` gives unix seconds. Reading raises StoreUnavailable.
    """

    def __init__(self, catalog: Catalog, *, alone: bool = True, now: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._alone = alone
        self.now = now
        self._tags: LRUCache[tuple[str, str, str], _Remembered] = LRUCache(MAX_TAGS)
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
        """Where the tag pointed when it was last checked, by this replica or by another."""
        key = (route.namespace, route.repository, tag)
        known = self._tags.get(key)
        now = self.now()
        fresh = known is not None and now - known.entry.checked_at < route.upstream.freshness.ttl_of(tag)
        if known is not None and fresh and (self._alone or not known.stored or now - known.looked_at < LOOK_S):
            return known.entry
        try:
            entry = await self._catalog.tag(*key)
        except CacheError:
            if known is None or not fresh:
                raise
            return known.entry
        if self._tags.get(key) is known and (known is None or known.yields_to(entry)):
            self._remember(key, entry)
        noted = self._tags.get(key)  # what was noted while the store was read is newer
        return noted.entry if noted is not None else None

    def _remember(self, key: tuple[str, str, str], entry: TagEntry | None) -> None:
        """Notes what the store says; None where it has forgotten the tag: another replica was told so."""
        if entry is None:
            self._tags.pop(key, None)
        else:
            self._tags[key] = _Remembered(entry, self.now(), stored=True)

    async def keep(self, route: Proxied, descriptor: Descriptor, raw: bytes) -> None:
        """Keeps a manifest. A store that fails costs the caching and is logged."""
        self._memory[(route.namespace, route.repository, descriptor.digest)] = HeldManifest(descriptor, raw)
        try:
            await self._catalog.put_blob_bytes(route.namespace, route.repository, descriptor, raw)
        except CacheError as error:
            log.warning("manifest_not_stored", repository=str(route), digest=str(descriptor.digest), error=str(error))

    async def point(self, route: Proxied, tag: str, descriptor: Descriptor) -> None:
        """Notes where the tag points now. A store that fails is logged; nothing older is served afterwards."""
        key, entry = (route.namespace, route.repository, tag), TagEntry(descriptor, self.now())
        self._tags[key] = noted = _Remembered(entry, self.now(), stored=False)
        try:
            await self._catalog.set_tag(*key, entry)
        except CacheError as error:
            log.warning("tag_not_stored", repository=str(route), tag=tag, error=str(error))
        else:
            if self._tags.get(key) is noted:
                self._remember(key, entry)

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
            key[2]
            for key, known in self._tags.items()
            if key[:2] == repository and known.entry.descriptor.digest == digest
        ]
