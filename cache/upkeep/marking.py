"""Finds everything that something leads to: the first half of mark and sweep.

Roots are, in a repository without a retention, all its manifests. In one with a retention they are the manifests of the
tags that stay, and those without a tag that were used, or seen first, not long ago. From a manifest the way leads to
its config, its layers and its children, and from what is kept to what refers to it. Steps of a builder's local cache
lead to their layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from cache.catalog import Catalog
from cache.errors import DamagedRecord
from cache.oci import media_types
from cache.oci.digest import Digest
from cache.record_names import Kind, Named
from cache.store import Store
from cache.upkeep.manifest_facts import Facts, ManifestFacts
from cache.upkeep.marks import Marks, mark
from cache.upkeep.retention import Retention, retention_of
from cache.upkeep.walking import read_each, records_below


@dataclass(slots=True)
class Marking:
    """What is reachable, as it is found out; ``manifests`` are the digests of all manifests that stay."""

    facts: ManifestFacts
    marks: Marks = field(default_factory=Marks)
    manifests: set[str] = field(default_factory=set)

    async def reach(self, digest: Digest, media_type: str = "") -> Facts | None:
        """Marks a manifest and all that it leads to; None when it is none that is held."""
        found = await self.facts.of(digest, media_type)
        self.marks.add(mark(digest))
        if found is None or str(digest) in self.manifests:
            return found
        self.manifests.add(str(digest))
        for blob in found.blobs:
            self.marks.add(blob)
        for child in found.manifests:
            await self.reach(Digest.parse(child))
        return found


@dataclass(frozen=True, slots=True)
class Loose:
    """A manifest of a repository with a retention to which no tag has led so far."""

    named: Named
    digest: Digest
    retention: Retention
    subject: str


class Members:
    """Marks what the repositories' members lead to."""

    def __init__(
        self,
        store: Store,
        marking: Marking,
        retentions: Sequence[Retention],
        stays: Callable[[Named, Retention], bool],
    ) -> None:
        self._store = store
        self._catalog = Catalog(store)
        self._marking = marking
        self._retentions = retentions
        self._stays = stays
        self._loose: list[Loose] = []

    async def mark_all(self) -> None:
        """Marks what they lead to, but for manifests that neither tag nor use keeps."""
        async for _ in read_each(self._members(), self._mark_known):
            pass
        async for _ in read_each(self._unknown(), self._mark_unknown):
            pass
        for loose in self._loose:
            if self._stays(loose.named, loose.retention):
                await self._marking.reach(loose.digest)
        await self._mark_referrers()

    async def _members(self) -> AsyncIterator[tuple[Named, Digest]]:
        async for named in records_below(self._store):
            if named.kind is Kind.MEMBER and (digest := named.digest) is not None:
                yield named, digest

    async def _unknown(self) -> AsyncIterator[tuple[Named, Digest]]:
        """Those that nothing leads to and that are not known to be manifests."""
        async for named, digest in self._members():
            if mark(digest) not in self._marking.marks and self._marking.facts.known(digest) is None:
                yield named, digest

    async def _mark_known(self, member: tuple[Named, Digest]) -> None:
        named, digest = member
        facts = self._marking.facts.known(digest)
        if facts is not None:
            await self._mark_manifest(named, digest, facts)

    async def _mark_unknown(self, member: tuple[Named, Digest]) -> None:
        named, digest = member
        try:
            descriptor = await self._catalog.member(named.namespace, named.repository, digest)
        except DamagedRecord:
            await self._marking.reach(digest)  # it may be a manifest
            return
        if descriptor is None or not media_types.is_manifest(descriptor.media_type):
            return
        facts = await self._marking.facts.of(digest, descriptor.media_type)
        if facts is None:
            self._marking.marks.add(mark(digest))
        else:
            await self._mark_manifest(named, digest, facts)

    async def _mark_manifest(self, named: Named, digest: Digest, facts: Facts) -> None:
        if str(digest) in self._marking.manifests:
            return
        retention = retention_of(self._retentions, named.place)
        if retention is None:
            await self._marking.reach(digest)
        else:
            self._loose.append(Loose(named, digest, retention, facts.subject))

    async def _mark_referrers(self) -> None:
        """Marks what refers to something that is marked, and what refers to that."""
        by_subject: dict[str, list[Digest]] = defaultdict(list)
        for loose in self._loose:
            by_subject[loose.subject].append(loose.digest)
        pending = [subject for subject in by_subject if subject and mark(Digest.parse(subject)) in self._marking.marks]
        while pending:
            for referring in by_subject.pop(pending.pop(), ()):
                await self._marking.reach(referring)
                pending.append(str(referring))
