"""Manifests of upstreams' repositories.

By digest they never change: held, they are served for ever to whom the upstream lets read the repository. A tag is
trusted for a short time, then the upstream is asked where it points (HEAD, which costs no quota); the manifest is
fetched only when that is somewhere new. All kinds are always asked for, so what is held does not depend on who asked
first, and bytes and media type are kept exactly.

What a manifest names does not become readable with it: see ``proxy.blobs``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import LRUCache, TTLCache

from cache.catalog import Catalog, TagEntry
from cache.errors import CacheError
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import Denied, ErrorDetail, NotFound, RegistryError
from cache.singleflight import SingleFlight
from proxy.access import Access
from proxy.caller import Caller
from proxy.freshness import Failure, Tag, judge_failure, judge_tag
from proxy.routing import Proxied
from proxy.upstreams import Upstreams

SEEN_TTL_S = 60.0
MAX_SEEN = 100_000
MAX_TAGS = 50_000
MEMORY_BYTES = 64 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest's exact bytes and type. ``outcome`` is what X-Cache says."""

    descriptor: Descriptor
    raw: bytes
    outcome: str


@dataclass(frozen=True, slots=True)
class FoundDescriptor:
    """What a manifest is, without its bytes."""

    descriptor: Descriptor
    outcome: str


class Manifests:
    """The manifests and tags of all upstreams."""

    def __init__(
        self,
        catalog: Catalog,
        upstreams: Upstreams,
        access: Access,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._upstreams = upstreams
        self._access = access
        self._now = now
        self._fetches: SingleFlight[tuple[str, ...], FoundManifest] = SingleFlight()
        self._heads: SingleFlight[tuple[str, ...], Descriptor] = SingleFlight()
        self._seen: TTLCache[tuple[str, str, Digest], Descriptor] = TTLCache(MAX_SEEN, SEEN_TTL_S)
        self._tags: LRUCache[tuple[str, str, str], TagEntry] = LRUCache(MAX_TAGS)
        self._memory: LRUCache[tuple[str, str, Digest], tuple[bytes, str]] = LRUCache(
            MEMORY_BYTES, getsizeof=lambda held: len(held[0])
        )

    async def find(self, route: Proxied, reference: str | Digest, caller: Caller) -> FoundManifest:
        """The manifest, held or fetched. Raises NotFound, Denied or another RegistryError as the upstream does."""
        if isinstance(reference, Digest):
            return await self._find_digest(route, reference, caller)
        return await self._find_tag(route, reference, caller)

    async def stat(self, route: Proxied, reference: str | Digest, caller: Caller) -> FoundDescriptor:
        """What the manifest is, without fetching it. Raises as ``find``.

        Who pushes asks this as well, by digest, so that answer is the upstream's, at most SEEN_TTL_S old.
        """
        readable = self._access.readable(route, caller)
        if isinstance(reference, Digest):
            known = await self._catalog.member(route.namespace, route.repository, reference)
            fresh = readable and (route.namespace, route.repository, reference) in self._seen
        else:
            entry = await self._tag(route, reference)
            known = entry.descriptor if entry is not None else None
            fresh = entry is not None and self._judge_tag(route, reference, entry, readable) is Tag.FRESH
        if known is not None and fresh:
            return FoundDescriptor(known, "hit")
        try:
            return FoundDescriptor(await self._head(route, reference, caller), "miss")
        except RegistryError as error:
            if known is None or await self._judge(route, reference, caller, error) is Failure.RELAY:
                raise
            return FoundDescriptor(known, "stale")

    async def keep(self, route: Proxied, reference: str | Digest, descriptor: Descriptor, raw: bytes) -> None:
        """Notes what the upstream has just shown, or taken, under a tag or digest.

        A store that fails costs the caching and is logged; nothing older is served afterwards.
        """
        key = (route.namespace, route.repository, descriptor.digest)
        self._memory[key] = (raw, descriptor.media_type)
        self._seen[key] = descriptor
        try:
            await self._catalog.put_blob_bytes(route.namespace, route.repository, descriptor, raw)
        except CacheError as error:
            log.warning("manifest_not_stored", repository=str(route), digest=str(descriptor.digest), error=str(error))
        if isinstance(reference, str):
            await self._set_tag(route, reference, descriptor)

    async def forget(self, route: Proxied, reference: str | Digest) -> None:
        """Forgets a tag or a manifest: the next request asks the upstream. Raises StoreUnavailable."""
        if isinstance(reference, Digest):
            self._seen.pop((route.namespace, route.repository, reference), None)
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

    async def _find_tag(self, route: Proxied, tag: str, caller: Caller) -> FoundManifest:
        entry = await self._tag(route, tag)
        held = await self._held(route, entry.descriptor.digest) if entry is not None else None
        readable = self._access.readable(route, caller)
        if entry is not None and held is not None and self._judge_tag(route, tag, entry, readable) is Tag.FRESH:
            return held
        try:
            return await self._revalidate(route, tag, caller, held)
        except RegistryError as error:
            if held is None or await self._judge(route, tag, caller, error) is Failure.RELAY:
                raise
            return FoundManifest(held.descriptor, held.raw, "stale")

    async def _revalidate(self, route: Proxied, tag: str, caller: Caller, held: FoundManifest | None) -> FoundManifest:
        """The manifest that the tag points to by the upstream's word; fetched only when we do not hold it."""
        if held is None:
            return await self._fetch(route, tag, caller)
        descriptor = await self._head(route, tag, caller)
        again = await self._held(route, descriptor.digest)
        return again if again is not None else await self._fetch(route, tag, caller)

    async def _find_digest(self, route: Proxied, digest: Digest, caller: Caller) -> FoundManifest:
        held = await self._held(route, digest)
        if held is None:
            return await self._fetch(route, digest, caller)
        if self._access.readable(route, caller):
            return held
        try:
            await self._head(route, digest, caller)
        except RegistryError as error:
            if await self._judge(route, digest, caller, error) is Failure.RELAY:
                raise
            return FoundManifest(held.descriptor, held.raw, "stale")
        return held

    async def _held(self, route: Proxied, digest: Digest) -> FoundManifest | None:
        key = (route.namespace, route.repository, digest)
        found = self._memory.get(key)
        if found is None:
            found = await self._catalog.manifest(route.namespace, route.repository, digest)
            if found is None:
                return None
            self._memory[key] = found
        raw, media_type = found
        return FoundManifest(Descriptor(media_type=media_type, digest=digest, size=len(raw)), raw, "hit")

    async def _fetch(self, route: Proxied, reference: str | Digest, caller: Caller) -> FoundManifest:
        async def fetch() -> FoundManifest:
            reply = await self._client(route, caller).get_manifest(route.repository, str(reference))
            self._access.grant(route, caller)
            if reply.media_type not in media_types.MANIFESTS | media_types.INDEXES:
                return FoundManifest(reply.descriptor, reply.raw, "bypass")
            await self.keep(route, reference, reply.descriptor, reply.raw)
            return FoundManifest(reply.descriptor, reply.raw, "miss")

        return await self._fetches.run(_key(route, reference, caller), fetch)

    async def _head(self, route: Proxied, reference: str | Digest, caller: Caller) -> Descriptor:
        async def ask() -> Descriptor:
            descriptor = await self._client(route, caller).head_manifest(route.repository, str(reference))
            if descriptor is None:
                raise manifest_unknown(route, reference)
            self._access.grant(route, caller)
            self._seen[(route.namespace, route.repository, descriptor.digest)] = descriptor
            if isinstance(reference, str):
                await self._set_tag(route, reference, descriptor)
            return descriptor

        return await self._heads.run(_key(route, reference, caller), ask)

    async def _tag(self, route: Proxied, tag: str) -> TagEntry | None:
        key = (route.namespace, route.repository, tag)
        entry = self._tags.get(key)
        if entry is None or self._now() - entry.checked_at >= route.upstream.freshness.ttl_of(tag):
            entry = await self._catalog.tag(*key) or entry  # another replica may have asked since
        if entry is not None:
            self._tags[key] = entry
        return entry

    async def _set_tag(self, route: Proxied, tag: str, descriptor: Descriptor) -> None:
        entry = TagEntry(descriptor, self._now())
        self._tags[(route.namespace, route.repository, tag)] = entry
        try:
            await self._catalog.set_tag(route.namespace, route.repository, tag, entry)
        except CacheError as error:
            log.warning("tag_not_stored", repository=str(route), tag=tag, error=str(error))

    def _judge_tag(self, route: Proxied, tag: str, entry: TagEntry, readable: bool) -> Tag:
        return judge_tag(entry.checked_at, self._now(), route.upstream.freshness.ttl_of(tag), readable)

    async def _judge(self, route: Proxied, reference: str | Digest, caller: Caller, error: RegistryError) -> Failure:
        """What to do about a failed upstream when the answer is held; a clear answer of the upstream is noted."""
        was_readable = self._access.was_readable(route, caller)
        if isinstance(error, Denied):
            self._access.revoke(route, caller)
        if isinstance(error, NotFound) and was_readable:
            await self.forget(route, reference)
        return judge_failure(error, True, was_readable)

    def _client(self, route: Proxied, caller: Caller) -> RegistryClient:
        return self._upstreams.client(route.upstream, caller)


def _key(route: Proxied, reference: str | Digest, caller: Caller) -> tuple[str, ...]:
    return (route.namespace, route.repository, str(reference), caller.fingerprint)


def manifest_unknown(route: Proxied, reference: str | Digest) -> NotFound:
    """What an upstream's 404 to a HEAD means; such a reply has no body that says it."""
    url = f"{route.upstream.url}/v2/{route.repository}/manifests/{reference}"
    return NotFound("HEAD", url, 404, (ErrorDetail("MANIFEST_UNKNOWN", f"{route} has no manifest {reference}"),))
