"""One look at all records of a store: what there is to judge, and what repositories have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from cache import bulk, entry, paths, record_names
from cache.catalog import TagEntry, read_tag
from cache.entry import CachedStep, InvalidEntry
from cache.errors import DamagedRecord
from cache.keys import CacheKey
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import parse_manifest
from cache.record_names import Kind, Named
from cache.store import Record, Store
from cache.upkeep.digests import Digests, pack
from cache.upkeep.entry_table import Entry, EntryTable
from cache.upkeep.marks import Marks, mark_of
from cache.upkeep.places import Place, Places
from cache.upkeep.retention import Retention, retention_of
from cache.upkeep.usage_totals import UsageTotals
from cache.upkeep.walking import in_pieces, records_below

LAYERS = record_names.LAYERS.rstrip("/")
"""The place of a builder's local cache, as a retention names it."""
READ_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Found:
    """An entry at the version at which it was read, and the manifest or the layer that it leads to (None = nothing)."""

    entry: Entry
    version: str
    target: Digest | None
    is_manifest: bool


class Survey:
    """What was seen.

    ``entries`` are those that a retention limits: tags of its repositories, and steps of a builder's local cache. A tag
    says when it was pushed, or last confirmed by its upstream. A step's own date is of no use, as reproducible builds
    set it: a step counts from the run of gc that saw it first. ``unlimited`` are layers of steps that nothing limits,
    ``members`` what repositories have, by their number in ``places``, and ``doomed_members`` those with a mark that is
    condemned.
    """

    def __init__(self, store: Store, totals: UsageTotals, retentions: Sequence[Retention], condemned: Marks) -> None:
        self._store = store
        self._totals = totals
        self._retentions = retentions
        self._condemned = condemned
        self.places = Places(retentions)
        self.entries: dict[Retention, EntryTable] = defaultdict(EntryTable)
        self.members = Digests()
        self.doomed_members = Digests()
        self.unlimited = Digests()

    async def look(self) -> None:
        """Lists all records, and reads the entries. Raises StoreUnavailable.

        A record that cannot be understood is passed over, and stays.
        """
        async for tags in in_pieces(self._limited_tags(), READ_AT_ONCE):
            await self._read_tags(tags)
        async for names in in_pieces(self._store.names(record_names.LAYERS), READ_AT_ONCE):
            await self._read_steps(names)

    async def look_for(self, condemned: Marks) -> None:
        """Looks again, only for what repositories have of what is condemned. Raises StoreUnavailable."""
        self._condemned = condemned
        self.doomed_members = Digests()
        async for _ in self._limited_tags():
            pass
        self.members = Digests()

    async def _limited_tags(self) -> AsyncIterator[Named]:
        """The tags to judge; takes note of everything else on the way."""
        async for named in records_below(self._store):
            place = self.places.of(named)
            member = named.packed if named.kind is Kind.MEMBER else None
            if member is not None:
                self.members.add(member, place.number)
                if mark_of(member) in self._condemned:
                    self.doomed_members.add(member, place.number)
            elif named.kind is Kind.TAG and place.retention is not None:
                yield named

    async def _read_tags(self, tags: Sequence[Named]) -> None:
        names = [paths.tag(tag.namespace, tag.repository, tag.rest) for tag in tags]
        for tag, name, record in zip(tags, names, await bulk.get_all(self._store, names), strict=True):
            place = self.places.of(tag)
            found = self._tag(name, place, record)
            if found is not None and place.retention is not None:
                self._note(place.retention, found)

    async def _read_steps(self, names: Sequence[str]) -> None:
        retention = retention_of(self._retentions, LAYERS)
        for name, record in zip(names, await bulk.get_all(self._store, names), strict=True):
            found = self._step(name, record)
            if found is None:
                continue
            if retention is not None:
                self._note(retention, found)
            elif found.target is not None:
                self.unlimited.add(pack(found.target))

    def _note(self, retention: Retention, found: Found) -> None:
        table = self.entries[retention]
        row = table.add(found.entry, found.version)
        if found.target is not None:
            (table.manifests if found.is_manifest else table.blobs).add(pack(found.target), row)

    async def again(self, name: str) -> Found | None:
        """An entry as it is now; None when it is gone."""
        named = record_names.parse(name)
        (record,) = await bulk.get_all(self._store, [name])
        return self._step(name, record) if named is None else self._tag(name, self.places.of(named), record)

    def _tag(self, name: str, place: Place, record: Record | DamagedRecord | None) -> Found | None:
        pointed = _pointed(name, record)
        if pointed is None or not isinstance(record, Record):
            return None
        descriptor = pointed.descriptor
        used = self._totals.used(name)
        # Who asks by digest uses the image too: they have resolved the tag, or have it pinned.
        pinned = self._totals.used(paths.member(place.namespace, place.repository, descriptor.digest))
        used_at = max((each.last_at for each in (used, pinned) if each is not None), default=0.0)
        hits = used.hits if used is not None else 0
        limited = Entry(name, descriptor.size, pointed.checked_at, used_at, hits)
        return Found(limited, record.version, descriptor.digest, is_manifest=True)

    def _step(self, name: str, record: Record | DamagedRecord | None) -> Found | None:
        step = _cached_step(name, record)
        if step is None or not isinstance(record, Record):
            return None
        layer = step.layer.descriptor if step.layer is not None else None
        size_bytes = len(record.value) + (layer.size if layer is not None else 0)
        used = self._totals.seen(name)
        limited = Entry(name, size_bytes, used.first_at, used.last_at, used.hits, step.seconds)
        return Found(limited, record.version, layer.digest if layer is not None else None, is_manifest=False)


def _pointed(name: str, record: Record | DamagedRecord | None) -> TagEntry | None:
    """What a tag's record says; None when there is none, or none that can be understood."""
    try:
        return read_tag(name, record.value) if isinstance(record, Record) else None
    except DamagedRecord:
        return None


def _cached_step(name: str, record: Record | DamagedRecord | None) -> CachedStep | None:
    """What a step's record says; None when there is none, or none that can be understood."""
    if not isinstance(record, Record):
        return None
    try:
        return entry.from_manifest(CacheKey(name.rpartition("/")[2]), parse_manifest(record.value, ""))
    except (InvalidEntry, InvalidManifest, ValueError):
        return None
