"""Manifests on their way to an upstream's repository: pushed when the upstream has taken them, and cached then."""

from __future__ import annotations

from dataclasses import replace

import structlog

from cache.oci import media_types
from cache.oci.client import PutReply, RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest, RegistryError
from cache.oci.manifest import parse_manifest
from proxy.blobs import Blobs
from proxy.caller import Caller
from proxy.manifests import Manifests
from proxy.request import PutManifest
from proxy.routing import Proxied
from proxy.upstreams import Upstreams

log = structlog.get_logger()


class ManifestPushes:
    """Pushes manifests to upstreams."""

    def __init__(self, upstreams: Upstreams, manifests: Manifests, blobs: Blobs) -> None:
        self._upstreams = upstreams
        self._manifests = manifests
        self._blobs = blobs

    async def push(self, route: Proxied, request: PutManifest, raw: bytes, media_type: str, caller: Caller) -> PutReply:
        """What the upstream took. Raises RegistryError as it does."""
        client = self._upstreams.client(route.upstream, caller)
        try:
            taken = await client.put_manifest(
                route.repository, str(request.reference), raw, media_type, tags=request.tags
            )
        except RegistryError as error:
            if error.temporary:
                for reference in (request.reference, *request.tags):
                    await self._manifests.forget(route, reference)  # it may have been taken all the same
            if any(detail.code == "MANIFEST_BLOB_UNKNOWN" for detail in error.details):
                self._blobs.doubt(route)
            raise
        if isinstance(request.reference, Digest):
            taken = await self._push_tags(client, route, request, taken, raw, media_type)
        await self._keep(route, request, taken, raw, media_type)
        return taken

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
                await self._manifests.forget(route, tag)
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
                await self._manifests.forget(route, reference)
