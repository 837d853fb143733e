"""Repositories that exist only here: cache repositories, open to all who reach the proxy.

A manifest is taken only when every blob that it needs is in its repository, and shown only while they are: an entry
of a build cache is whole or absent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from cachetools import LRUCache

from cache.catalog import Catalog, TagEntry
from cache.errors import RecordConflict
from cache.oci import media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.oci.referrers import brief, referrer, with_referrer, without_referrer
from cache.store import ABSENT, BlobStore
from cache.together import together
from cache.upkeep.condemned import Condemned
from proxy.errors import InvalidRequest, no_blob, no_manifest, no_repository
from proxy.observe.metrics import Metrics
from proxy.requests.outcome import HIT
from proxy.requests.routing import Hosted
from proxy.transfer.blobs import BLOB_TYPE, StoredBlob
from proxy.upstream.manifests import FoundManifest

CONCURRENCY = 32
MAX_LISTED = 10_000

log = structlog.get_logger()


class HostedRepositories:
    """The content of hosted repositories. Every method raises StoreUnavailable when the store fails; pushes raise
    CondemnedUnknown where what gc is about to delete cannot be read."""

    def __init__(
        self,
        store: BlobStore,
        catalog: Catalog,
        condemned: Condemned,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._condemned = condemned
        self._metrics = metrics
        self._listed: LRUCache[str, bool] = LRUCache(MAX_LISTED)
        self._now = now

    async def find_blob(self, route: Hosted, digest: Digest) -> StoredBlob:
        """The blob. Raises Unknown."""
        member, size_bytes = await self._look(route, digest)
        if member is None or size_bytes is None:
            raise no_blob(route, digest)
        return StoredBlob(digest, size_bytes)

    async def add_blob(self, route: Hosted, digest: Digest, size_bytes: int) -> None:
        """Notes that the repository has a blob that is in the store. Raises Unknown when it is being deleted."""
        await self._condemned.require_known()
        if not await self._condemned.keep(digest):
            raise no_blob(route, digest)
        if await self._member(route, digest) is None:
            descriptor = Descriptor(media_type=BLOB_TYPE, digest=digest, size=size_bytes)
            await self._catalog.add_member(route.namespace, route.repository, descriptor)

    async def admit(self, digest: Digest) -> None:
        """Returns when content can be stored again that gc may be deleting. Raises StoreUnavailable."""
        await self._condemned.require_known()
        await self._condemned.admit(digest)

    async def remove_blob(self, route: Hosted, digest: Digest) -> None:
        """Takes the blob out of the repository. Raises Unknown."""
        await self.find_blob(route, digest)
        await self._catalog.remove_member(route.namespace, route.repository, digest)

    async def find_manifest(self, route: Hosted, reference: str | Digest) -> FoundManifest:
        """The manifest under a tag or digest. Raises Unknown."""
        digest = await self._resolve(route, reference)
        if digest is None or not await self._condemned.keep(digest):
            raise no_manifest(route, reference)
        held = await self._catalog.manifest(route.namespace, route.repository, digest)
        if held is None:
            raise no_manifest(route, reference)
        raw, media_type = held
        return FoundManifest(Descriptor(media_type=media_type, digest=digest, size=len(raw)), raw, HIT)

    async def stat_manifest(self, route: Hosted, reference: str | Digest) -> Descriptor:
        """What the manifest under a tag or digest is, without reading it. Raises Unknown."""
        digest = await self._resolve(route, reference)
        if digest is None:
            raise no_manifest(route, reference)
        member, size_bytes = await self._look(route, digest)
        if member is None or size_bytes is None or not media_types.is_manifest(member.media_type):
            raise no_manifest(route, reference)
        return member

    async def put_manifest(
        self,
        route: Hosted,
        reference: str | Digest,
        manifest: Manifest | Index,
        tags: Sequence[str] = (),
        who: str = "",
        *,
        first_wins: bool = False,
    ) -> None:
        """Keeps the manifest, and points the tag to it. Raises InvalidRequest when a blob that it needs is missing.

        A ``reference`` that is a digest has been checked; it is kept as it is, whatever its algorithm, and ``tags``
        are pointed to it. ``who`` pushes it: the tag's producer. With ``first_wins`` a tag that means something else
        already is left alone, and the push refused (InvalidRequest).
        """
        await self._condemned.require_known()
        if isinstance(manifest, Manifest):
            await self._require_blobs(route, manifest)
        else:
            for child in manifest.manifests:  # they need not be there, but those that are must stay
                await self._condemned.keep(child.digest)
        descriptor = manifest.descriptor
        if isinstance(reference, Digest):
            descriptor = Descriptor(media_type=manifest.media_type, digest=reference, size=len(manifest.raw))
        await self._condemned.admit(descriptor.digest)
        await self._catalog.put_blob_bytes(route.namespace, route.repository, descriptor, manifest.raw)
        if manifest.subject is not None:
            referring = brief(referrer(manifest, descriptor.digest))
            await self._change_referrers(route, manifest.subject, lambda noted: with_referrer(noted, referring))
        entry = TagEntry(descriptor, self._now(), who)
        for tag in (reference,) if isinstance(reference, str) else tags:
            await self._point(route, tag, entry, first_wins)
        if route.repository not in self._listed:
            await self._catalog.list_repository(route.namespace, route.repository)
            self._listed[route.repository] = True

    async def _point(self, route: Hosted, tag: str, entry: TagEntry, first_wins: bool) -> None:
        """Points the tag; says for later who replaced, or would have replaced, whose content under it."""
        before = await self._catalog.tag(route.namespace, route.repository, tag)
        if before is not None and first_wins:
            if before.descriptor.digest != entry.descriptor.digest:
                _tell("tag_change_refused", route, tag, entry, before)
                self._metrics.tag_changed("refused")
                held = f"it is {before.descriptor.digest} already, and here the first writer counts"
                raise InvalidRequest("TAG_INVALID", f"{route}:{tag} cannot become {entry.descriptor.digest}: {held}")
            return
        expected = ABSENT if first_wins else None
        try:
            await self._catalog.set_tag(route.namespace, route.repository, tag, entry, expected)
        except RecordConflict:  # another was first, this very moment
            return await self._point(route, tag, entry, first_wins)
        if before is not None and before.descriptor.digest != entry.descriptor.digest:
            _tell("tag_changed", route, tag, entry, before)
            self._metrics.tag_changed("changed")

    async def remove_manifest(self, route: Hosted, reference: str | Digest) -> None:
        """Removes a tag; or a manifest, from its subject's referrers too, with all tags that point to it.

        Raises Unknown.
        """
        if isinstance(reference, str):
            if await self._resolve(route, reference) is None:
                raise no_manifest(route, reference)
            await self._catalog.remove_tag(route.namespace, route.repository, reference)
            return
        found = await self.find_manifest(route, reference)
        manifest = parse_manifest(found.raw, found.descriptor.media_type)
        if manifest.subject is not None:
            await self._change_referrers(route, manifest.subject, lambda noted: without_referrer(noted, reference))
        tags = await self._catalog.tags(route.namespace, route.repository)
        untag = partial(self._catalog.remove_tag_of, route.namespace, route.repository)
        await together((partial(untag, tag, reference) for tag in tags), CONCURRENCY)
        await self._catalog.remove_member(route.namespace, route.repository, reference)

    async def _change_referrers(
        self, route: Hosted, subject: Descriptor, change: Callable[[tuple[Descriptor, ...]], tuple[Descriptor, ...]]
    ) -> None:
        await self._catalog.change_referrers(route.namespace, route.repository, subject.digest, change)

    async def tags(self, route: Hosted) -> list[str]:
        """All tags in order. Raises Unknown when the repository never had a manifest."""
        tags = await self._catalog.tags(route.namespace, route.repository)
        if not tags and not await self._catalog.is_listed(route.namespace, route.repository):
            raise no_repository(route)
        return tags

    async def _resolve(self, route: Hosted, reference: str | Digest) -> Digest | None:
        """The digest that is meant; None for a tag that is not there."""
        if isinstance(reference, Digest):
            return reference
        entry = await self._catalog.tag(route.namespace, route.repository, reference)
        return entry.descriptor.digest if entry is not None else None

    async def _member(self, route: Hosted, digest: Digest) -> Descriptor | None:
        return await self._catalog.member(route.namespace, route.repository, digest)

    async def _look(self, route: Hosted, digest: Digest) -> tuple[Descriptor | None, int | None]:
        """Whether the repository has it, and its size in the store, where it stays then; None for what it has not."""
        if not await self._condemned.keep(digest):
            return None, None
        return await asyncio.gather(self._member(route, digest), self._store.stat(digest))

    async def _require_blobs(self, route: Hosted, manifest: Manifest) -> None:
        async def is_missing(blob: Descriptor) -> bool:
            member, size_bytes = await self._look(route, blob.digest)
            return member is None or size_bytes is None

        blobs = list({blob.digest: blob for blob in manifest.children}.values())
        absent = await together((partial(is_missing, blob) for blob in blobs), CONCURRENCY)
        missing = [str(blob.digest) for blob, is_absent in zip(blobs, absent, strict=True) if is_absent]
        if missing:
            raise InvalidRequest("MANIFEST_BLOB_UNKNOWN", f"repository {route} does not have {', '.join(missing)}")


def _tell(event: str, route: Hosted, tag: str, entry: TagEntry, before: TagEntry) -> None:
    log.info(
        event,
        audit=True,
        repository=str(route),
        tags=[tag],
        who=entry.producer,
        digest=str(entry.descriptor.digest),
        replaced_who=before.producer,
        replaced_digest=str(before.descriptor.digest),
    )
