"""What manifests name, remembered from one run of gc to the next, so that each is read once in its life."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec
import structlog

from cache import bulk, entry, paths
from cache.errors import DamagedRecord
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.store import Store
from cache.upkeep.digests import SHARDS, pack, unpack
from cache.upkeep.marks import mark

MANIFEST_BYTES = 8 << 20
"""More than this is read of no manifest."""
READ_AT_ONCE = 32

log = structlog.get_logger()


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What gc has to know of a manifest.

    ``blobs`` are the marks of its config and layers, ``manifests`` an index's children and ``subject`` what it refers
    to (nothing = none), both by the bytes of their digests. ``size_bytes`` is that of all of it, ``seconds`` what the
    step took whose cache entry it is.
    """

    blobs: tuple[int, ...] = ()
    manifests: tuple[bytes, ...] = ()
    subject: bytes = b""
    size_bytes: int = 0
    seconds: float = 0.0


def facts_of(manifest: Manifest | Index) -> Facts:
    """What a manifest names."""
    subject = pack(manifest.subject.digest) if manifest.subject is not None else b""
    if isinstance(manifest, Index):
        children = tuple(pack(child.digest) for child in manifest.manifests)
        return Facts(manifests=children, subject=subject, size_bytes=len(manifest.raw))
    blobs = {child.digest: child.size for child in (manifest.config, *manifest.layers)}
    size_bytes = len(manifest.raw) + sum(blobs.values())
    return Facts(tuple(map(mark, blobs)), (), subject, size_bytes, _seconds(manifest))


def _seconds(manifest: Manifest) -> float:
    try:
        return max(0.0, float(manifest.annotations.get(entry.SECONDS, "0")))
    except ValueError:
        return 0.0


class FactsShard:
    """The facts of the manifests in one shard. Held packed, as most of them are looked at once."""

    def __init__(self, facts: ManifestFacts, number: int, known: dict[bytes, bytes]) -> None:
        self._facts = facts
        self.number = number
        self._known = known
        self._changed = False

    def get(self, manifest: bytes) -> Facts | None:
        """The facts; None when they are not known."""
        known = self._known.get(manifest)
        return None if known is None else msgspec.msgpack.decode(known, type=Facts)

    async def read(self, manifests: Iterable[bytes]) -> None:
        """Learns the facts of those that are not known, are held, and are manifests that we understand."""
        missing = [manifest for manifest in manifests if manifest not in self._known]
        for start in range(0, len(missing), READ_AT_ONCE):
            piece = missing[start : start + READ_AT_ONCE]
            digests = list(map(unpack, piece))
            contents = await bulk.read_all(self._facts.store, digests, MANIFEST_BYTES)
            for manifest, digest, raw in zip(piece, digests, contents, strict=True):
                found = _read(digest, raw) if raw is not None else None
                if found is not None:
                    self._known[manifest] = msgspec.msgpack.encode(found)
                    self._changed = True
                    self._facts.read += 1

    def forget_but(self, kept: Container[bytes]) -> None:
        """Forgets all manifests but these."""
        left = {manifest: known for manifest, known in self._known.items() if manifest in kept}
        self._changed = self._changed or len(left) < len(self._known)
        self._known = left

    async def save(self) -> None:
        """Remembers what has been learned. Raises StoreUnavailable."""
        if self._changed and self._facts.keeps:
            await self._facts.store.put(_record(self.number), msgspec.msgpack.encode(self._known))
            self._facts.present.add(self.number)
        self._changed = False


class ManifestFacts:
    """The facts of a store's manifests, shard by shard. Where it does not ``keep`` them, nothing is written.

    Every method raises StoreUnavailable when the store fails.
    """

    def __init__(self, store: Store, keeps: bool = True) -> None:
        self.store = store
        self.keeps = keeps
        self.read = 0
        """How many manifests had to be read."""
        self.present: set[int] = set()
        """The shards of which something is known."""

    async def open(self) -> None:
        """Learns which shards there are: to be called first."""
        names = {name async for name in self.store.names(paths.GC_MANIFESTS)}
        self.present = {number for number in range(SHARDS) if _record(number) in names}

    async def shard(self, number: int) -> FactsShard:
        """What is known of the manifests in a shard (``shard_of``). What cannot be read is begun anew."""
        name = _record(number)
        known: dict[bytes, bytes] = {}
        try:
            record = await self.store.get(name) if number in self.present else None
            if record is not None:
                known = msgspec.msgpack.decode(record.value, type=dict[bytes, bytes])
        except (DamagedRecord, msgspec.DecodeError) as error:
            log.warning("record_begun_anew", record=name, reason=str(error))
        return FactsShard(self, number, known)


def _read(digest: Digest, raw: bytes) -> Facts | None:
    """The facts of a manifest by its content; None when it is none that we understand, or is damaged."""
    if Digest.of(raw, digest.algorithm) != digest:
        log.error("manifest_damaged", digest=str(digest), bytes=len(raw))
        return None
    try:
        return facts_of(parse_manifest(raw))
    except InvalidManifest:
        return None


def _record(shard: int) -> str:
    return f"{paths.GC_MANIFESTS}{shard:02x}"
