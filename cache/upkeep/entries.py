"""The entries of a store that a retention limits: tags, and steps of a builder's local cache.

A tag says when it was pushed, or last confirmed by its upstream. A step's own date is of no use, as reproducible builds
set it: a step counts from the run of gc that saw it first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from cache import entry, paths, record_names
from cache.catalog import read_tag
from cache.entry import InvalidEntry
from cache.errors import DamagedRecord
from cache.keys import CacheKey
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import parse_manifest
from cache.record_names import Kind, Named
from cache.store import Store
from cache.upkeep.manifest_facts import ManifestFacts
from cache.upkeep.retention import Entry, Retention, retention_of
from cache.upkeep.usage_totals import UsageTotals
from cache.upkeep.walking import read_each, records_below

LAYERS = record_names.LAYERS.rstrip("/")
"""The place of a builder's local cache, as a retention names it."""


@dataclass(frozen=True, slots=True)
class Found:
    """An entry at the version at which it was read, the limits that it is under (None = it stays), and the manifest or
    the layer that it leads to (None = nothing)."""

    entry: Entry
    version: str
    retention: Retention | None
    target: Digest | None
    is_manifest: bool


class Entries:
    """Reads the entries of a store. Raises StoreUnavailable."""

    def __init__(
        self,
        store: Store,
        facts: ManifestFacts,
        totals: UsageTotals,
        retentions: Sequence[Retention],
        now: float,
    ) -> None:
        self._store = store
        self._facts = facts
        self._totals = totals
        self._retentions = retentions
        self._now = now

    async def all(self) -> AsyncIterator[Found]:
        """The tags of repositories under a retention, and all steps of a builder's local cache.

        A record that cannot be understood is passed over, and stays.
        """
        async for found in read_each(self._limited(), self._tag):
            if found is not None:
                yield found
        async for found in read_each(self._store.names(record_names.LAYERS), self._step):
            if found is not None:
                yield found

    async def again(self, found: Found) -> Found | None:
        """The entry as it is now; None when it is gone."""
        named = record_names.parse(found.entry.name)
        if named is None:
            return await self._step(found.entry.name)
        return await self._tag((named, found.retention)) if found.retention is not None else found

    async def _limited(self) -> AsyncIterator[tuple[Named, Retention]]:
        async for named in records_below(self._store):
            retention = retention_of(self._retentions, named.place) if named.kind is Kind.TAG else None
            if retention is not None:
                yield named, retention

    async def _tag(self, tag: tuple[Named, Retention]) -> Found | None:
        named, retention = tag
        name = paths.tag(named.namespace, named.repository, named.rest)
        try:
            record = await self._store.get(name)
            pointed = read_tag(name, record.value) if record is not None else None
        except DamagedRecord:
            return None
        if record is None or pointed is None:
            return None
        descriptor = pointed.descriptor
        facts = await self._facts.of(descriptor.digest, descriptor.media_type)
        size_bytes, seconds = (facts.size_bytes, facts.seconds) if facts is not None else (descriptor.size, 0.0)
        limited = self._entry(name, size_bytes, pointed.checked_at, seconds)
        # Who asks by digest uses the image too: they have resolved the tag, or have it pinned.
        by_digest = self._totals.used.get(paths.member(named.namespace, named.repository, descriptor.digest))
        if by_digest is not None and by_digest.last_at > limited.used_at:
            limited = replace(limited, used_at=by_digest.last_at)
        return Found(limited, record.version, retention, descriptor.digest, is_manifest=True)

    async def _step(self, name: str) -> Found | None:
        """The step under a record's name; None when there is none, or none that can be understood."""
        try:
            record = await self._store.get(name)
            if record is None:
                return None
            step = entry.from_manifest(CacheKey(name.rpartition("/")[2]), parse_manifest(record.value, ""))
        except (DamagedRecord, InvalidEntry, InvalidManifest, ValueError):
            return None
        layer = step.layer.descriptor if step.layer is not None else None
        size_bytes = len(record.value) + (layer.size if layer is not None else 0)
        limited = self._entry(name, size_bytes, 0.0, step.seconds)
        target = layer.digest if layer is not None else None
        return Found(limited, record.version, retention_of(self._retentions, LAYERS), target, is_manifest=False)

    def _entry(self, name: str, size_bytes: int, pushed_at: float, seconds: float) -> Entry:
        used = self._totals.seen(name, self._now)
        return Entry(name, size_bytes, pushed_at or used.first_at, used.last_at, used.hits, seconds)
