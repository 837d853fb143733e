"""Manifests on their way to an upstream's repository: pushed when the upstream has taken them, and cached then."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import structlog

from cache.errors import CacheError
from cache.oci import media_types
from cache.oci.client import PutReply, RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest, RegistryError
from cache.oci.manifest import Manifest, parse_manifest
from cache.together import together
from proxy.auth.caller import Caller
from proxy.requests.request import PutManifest
from proxy.requests.routing import Proxied
from proxy.transfer.blobs import Blobs
from proxy.transfer.mounts import Mounts
from proxy.upstream.manifests import Manifests
from proxy.upstream.upstreams import Upstreams

RESTORED_AT_ONCE = 4

log = structlog.get_logger()


class ManifestPushes:
    """Pushes manifests to upstreams."""

    def __init__(self, upstreams: Upstreams, manifests: Manifests, blobs: Blobs, mounts: Mounts) -> None:
        self._upstreams = upstreams
        self._manifests = manifests
        self._blobs = blobs
        self._mounts = mounts

    async def push(self, route: Proxied, request: PutManifest, raw: bytes, media_type: str, caller: Caller) -> PutReply:
        """What the upstream took. Raises RegistryError as it does.

        Blobs that it has lost, and that we hold, are given back to it once.
        """
        client = self._upstreams.client(route.upstream, caller)
        try:
            try:
                taken = await self._put(client, route, request, raw, media_type)
            except RegistryError as error:
                if not _misses_blobs(error) or not await self._restore(route, raw, media_type, caller):
                    raise
                taken = await self._put(client, route, request, raw, media_type)
        except RegistryError as error:
            if error.temporary:
                for reference in (request.reference, *request.tags):
                    await self._forget(route, reference)  # it may have been taken all the same
            raise
        if isinstance(request.reference, Digest):
            taken = await self._push_tags(client, route, request, taken, raw, media_type)
        await self._keep(route, request, taken, raw, media_type)
        return taken

    async def _put(
        self, client: RegistryClient, route: Proxied, request: PutManifest, raw: bytes, media_type: str
    ) -> PutReply:
        reference = str(request.reference)
        return await client.put_manifest(route.repository, reference, raw, media_type, tags=request.tags)

    async def _restore(self, route: Proxied, raw: bytes, media_type: str, caller: Caller) -> bool:
        """Sees to it that the upstream has the blobs of an image. False when one of them cannot be had."""
        self._blobs.doubt(route)
        try:
            manifest = parse_manifest(raw, media_type)
        except InvalidManifest:
            return False
        if not isinstance(manifest, Manifest):
            return False
        digests = dict.fromkeys(child.digest for child in manifest.children)
        restoring = [partial(self._mounts.restore, route, digest, caller) for digest in digests]
        try:
            return all(await together(restoring, RESTORED_AT_ONCE))
        except (RegistryError, CacheError) as error:
            log.warning("blobs_not_restored", repository=str(route), reason=str(error))
            return False

    async def _forget(self, route: Proxied, reference: str | Digest) -> None:
        """Forgets a name also where the store fails: what the upstream said is what the client has to hear."""
        try:
            await self._manifests.forget(route, reference)
        except CacheError as error:
            log.warning("manifest_not_forgotten", repository=str(route), reference=str(reference), reason=str(error))

    async def _push_tags(
        self, client: RegistryClient, route: Proxied, request: PutManifest, taken: PutReply, raw: bytes, media_type: str
    ) -> PutReply:
        """Sets the tags one by one that the upstream does not say it set with the digest.

        One that cannot be set is not acknowledged, and so the client's to set. Those of a manifest pushed by another
        algorithm than registries choose themselves are left to the client: the tag would give another digest.
        """
        tags = [tag for tag in request.tags if tag in taken.tags]
        for tag in request.tags:
            if tag in tags or taken.digest.algorithm != "sha256":
                continue
            try:
                await client.put_manifest(route.repository, tag, raw, media_type)
            except RegistryError as error:
                log.warning("tag_not_taken", repository=str(route), tag=tag, error=str(error))
                await self._forget(route, tag)
            else:
                tags.append(tag)
        return replace(taken, tags=tuple(tags))

    async def _keep(self, route: Proxied, request: PutManifest, taken: PutReply, raw: bytes, media_type: str) -> None:
        """Caches the manifest under all its names; one of a kind that we do not know is the upstream's to serve."""
        try:
            kind = parse_manifest(raw, media_type).media_type
        except InvalidManifest:
            kind = ""
        descriptor = Descriptor(media_type=kind, digest=taken.digest, size=len(raw))
        for reference in (request.reference, *taken.tags):
            if media_types.is_manifest(kind):
                await self._manifests.keep(route, reference, descriptor, raw)
            else:
                await self._forget(route, reference)


def _misses_blobs(error: RegistryError) -> bool:
    return any(detail.code == "MANIFEST_BLOB_UNKNOWN" for detail in error.details)
