"""What manifests name, remembered from one run of gc to the next, so that each is read once in its life."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cache import entry, paths
from cache.errors import BlobNotFound
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.store import Store
from cache.upkeep.marks import mark
from cache.upkeep.shards import Shards

MANIFEST_BYTES = 8 << 20
"""More than this is read of no manifest."""


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What gc has to know of a manifest.

    ``blobs`` are the marks of its config and layers, ``manifests`` the digests of an index's children, ``subject`` the
    digest of what it refers to ("" = nothing). ``size_bytes`` is that of all of it, ``seconds`` what the step took
    whose cache entry it is.
    """

    blobs: tuple[int, ...] = ()
    manifests: tuple[str, ...] = ()
    subject: str = ""
    size_bytes: int = 0
    seconds: float = 0.0


def facts_of(manifest: Manifest | Index) -> Facts:
    """What a manifest names."""
    subject = str(manifest.subject.digest) if manifest.subject is not None else ""
    if isinstance(manifest, Index):
        children = tuple(str(child.digest) for child in manifest.manifests)
        return Facts(manifests=children, subject=subject, size_bytes=len(manifest.raw))
    blobs = {child.digest: child.size for child in (manifest.config, *manifest.layers)}
    size_bytes = len(manifest.raw) + sum(blobs.values())
    return Facts(tuple(map(mark, blobs)), (), subject, size_bytes, _seconds(manifest))


def _seconds(manifest: Manifest) -> float:
    try:
        return max(0.0, float(manifest.annotations.get(entry.SECONDS, "0")))
    except ValueError:
        return 0.0


class ManifestFacts:
    """The facts of a store's manifests. Every method raises StoreUnavailable when the store fails."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Shards[Facts] = Shards(store, paths.GC_MANIFESTS, Facts)
        self.read = 0

    async def load(self) -> None:
        """Reads what earlier runs have found out."""
        await self._known.load()

    async def save(self) -> None:
        """Remembers what this run has found out."""
        await self._known.save()

    def known(self, digest: Digest) -> Facts | None:
        """The facts if they are known without reading the manifest."""
        return self._known.get(str(digest))

    async def of(self, digest: Digest, media_type: str = "") -> Facts | None:
        """The facts; None when the store does not hold the manifest, or it is none that we understand."""
        known = self.known(digest)
        if known is not None:
            return known
        try:
            async with self._store.open(digest, 0, MANIFEST_BYTES) as chunks:
                raw = b"".join([chunk async for chunk in chunks])
            found = facts_of(parse_manifest(raw, media_type))
        except (BlobNotFound, InvalidManifest):
            return None
        self.read += 1
        self._known.set(str(digest), found)
        return found

    def forget_but(self, kept: Iterator[str] | set[str]) -> None:
        """Forgets all manifests but these, by their digests."""
        for digest in set(self._known) - set(kept):
            self._known.remove(digest)
