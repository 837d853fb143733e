"""What a store holds, counted. For maintenance: this lists, and remembers no more than the repositories' names."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache import paths, record_names
from cache.catalog import Catalog
from cache.errors import DamagedRecord
from cache.oci import media_types
from cache.oci.descriptor import Descriptor
from cache.record_names import Kind, Named
from cache.store import Enumerable, Store, Sweepable, Unfinished
from cache.upkeep.walking import read_each, records_below


@dataclass(slots=True)
class PlaceCounts:
    """What the repositories below one first path component have; ``members`` are manifests and blobs.

    ``manifests`` and ``named_bytes`` stay 0 unless members are read. What several repositories have counts for each.
    """

    repositories: int = 0
    tags: int = 0
    members: int = 0
    manifests: int = 0
    named_bytes: int = 0


@dataclass(slots=True)
class StoreCounts:
    """What a store holds. ``layers`` are entries of builders' local caches, ``damaged`` blobs that were put aside."""

    blobs: int = 0
    blob_bytes: int = 0
    layers: int = 0
    damaged: int = 0
    unfinished: Unfinished = field(default_factory=Unfinished)
    places: dict[str, PlaceCounts] = field(default_factory=dict)

    def place_of(self, named: Named) -> PlaceCounts:
        """The counts of the first path component that a record's repository is below."""
        return self.places.setdefault(named.place.partition("/")[0], PlaceCounts())


async def count(store: Store, read_members: bool = False) -> StoreCounts:
    """Counts everything; with ``read_members`` it reads a record for each manifest and blob of each repository.

    Raises StoreUnavailable. A record that cannot be understood is a member of no size.
    """
    counts = StoreCounts()
    if isinstance(store, Enumerable):
        async for _, size_bytes in store.blobs():
            counts.blobs += 1
            counts.blob_bytes += size_bytes
    counts.layers = await _count_names(store, record_names.LAYERS)
    counts.damaged = await _count_names(store, paths.DAMAGED)
    if isinstance(store, Sweepable):
        counts.unfinished = await store.unfinished()
    await _count_repositories(store, counts)
    if read_members:
        await _read_members(store, counts)
    return counts


async def _count_names(store: Store, prefix: str) -> int:
    return sum([1 async for _ in store.names(prefix)])


async def _count_repositories(store: Store, counts: StoreCounts) -> None:
    seen: set[str] = set()
    async for named in records_below(store):
        counted = counts.place_of(named)
        if named.place not in seen:
            seen.add(named.place)
            counted.repositories += 1
        counted.tags += named.kind is Kind.TAG
        counted.members += named.kind is Kind.MEMBER


async def _read_members(store: Store, counts: StoreCounts) -> None:
    catalog = Catalog(store)

    async def read(named: Named) -> tuple[Named, Descriptor | None]:
        try:
            return named, await catalog.member(
                named.namespace, named.repository, named.digest
            ) if named.digest else None
        except DamagedRecord:
            return named, None

    members = (named async for named in records_below(store) if named.kind is Kind.MEMBER)
    async for named, descriptor in read_each(members, read):
        if descriptor is not None:
            counted = counts.place_of(named)
            counted.manifests += media_types.is_manifest(descriptor.media_type)
            counted.named_bytes += descriptor.size
