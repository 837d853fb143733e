"""Batched lookup of build-cache entries: complete or absent.

An entry is a hit only when its manifest, its config and its layer can all be read now by who asks: a hit that cannot be
fetched later would cost a build more than a miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from cache.entry import InvalidEntry, LookupHit, from_manifest
from cache.keys import CacheKey
from cache.oci.errors import InvalidManifest, NotFound
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.upkeep.usage import Usage
from proxy.auth.caller import Caller
from proxy.errors import Unknown
from proxy.hosting.hosted import HostedRepositories
from proxy.requests.routing import Hosted, Route
from proxy.transfer.blobs import Blobs
from proxy.upstream.manifests import FoundManifest, Manifests

CONCURRENCY = 32

log = structlog.get_logger()


class Lookup:
    """Looks up many keys of one repository at once."""

    def __init__(self, blobs: Blobs, manifests: Manifests, hosted: HostedRepositories, usage: Usage) -> None:
        self._blobs = blobs
        self._manifests = manifests
        self._hosted = hosted
        self._usage = usage

    async def find(self, route: Route, keys: Sequence[CacheKey], caller: Caller) -> dict[CacheKey, LookupHit | None]:
        """For each key its entry, or None when there is none or not all of it.

        Raises StoreUnavailable, and RegistryError when the upstream says anything but "no such": what is not known
        is not reported as absent.
        """
        slots = asyncio.Semaphore(CONCURRENCY)

        async def find_one(key: CacheKey) -> LookupHit | None:
            async with slots:
                try:
                    return await self._find(route, key, caller)
                except (NotFound, Unknown):
                    return None

        distinct = list(dict.fromkeys(keys))
        results = await asyncio.gather(*map(find_one, distinct), return_exceptions=True)
        found: dict[CacheKey, LookupHit | None] = {}
        for key, result in zip(distinct, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            found[key] = result
        return found

    async def _find(self, route: Route, key: CacheKey, caller: Caller) -> LookupHit | None:
        found = await self._manifest(route, key, caller)
        try:
            manifest = parse_manifest(found.raw, found.descriptor.media_type)
            step = from_manifest(key, manifest)
        except (InvalidManifest, InvalidEntry) as error:
            log.info("entry_not_usable", repository=str(route), key=key.hex, reason=str(error))
            return None
        await self._require_blobs(route, manifest, caller)
        self._usage.note(route.namespace, route.repository, key.hex)
        return LookupHit(found.descriptor, step)

    async def _manifest(self, route: Route, key: CacheKey, caller: Caller) -> FoundManifest:
        if isinstance(route, Hosted):
            return await self._hosted.find_manifest(route, key.hex)
        return await self._manifests.find(route, key.hex, caller)

    async def _require_blobs(self, route: Route, manifest: Manifest | Index, caller: Caller) -> None:
        """Returns when all blobs of the entry are there. Raises Unknown or NotFound."""
        for blob in manifest.children if isinstance(manifest, Manifest) else ():
            if isinstance(route, Hosted):
                await self._hosted.find_blob(route, blob.digest)
            else:
                await self._blobs.stat(route, blob.digest, caller)
