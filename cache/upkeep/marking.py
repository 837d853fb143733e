"""Finds everything that something leads to: the first half of mark and sweep.

Roots are, in a repository without a retention, all its manifests. In one with a retention they are the manifests of the
tags that stay, and those without a tag that were used, or seen first, not long ago. From a manifest the way leads to
its config, its layers and its children, and from what is kept to what refers to it. Steps of a builder's local cache
lead to their layers.

Which of a repository's members are manifests is known of those that an earlier run has read. A member that is none of
them, and that no known manifest *of the same repository* names as a blob, is looked up: that another repository's
manifest names it says nothing of what it is here.

Manifests are gone through shard by shard, so that what is known of them is never all in memory; children that lie in
other shards wait for the next round.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable, Iterable

from cache import bulk
from cache.catalog import read_member
from cache.errors import DamagedRecord
from cache.oci import media_types
from cache.store import Store
from cache.upkeep.digests import SHARDS, Digests
from cache.upkeep.manifest_facts import Facts, FactsShard, ManifestFacts
from cache.upkeep.marks import Marks, mark_of
from cache.upkeep.places import Place, Places
from cache.upkeep.walking import in_pieces, in_turns

READ_AT_ONCE = 256


class Marking:
    """What is reachable, as it is found out: ``marks`` of blobs, and ``reached``, the manifests that stay."""

    def __init__(self, store: Store, facts: ManifestFacts, places: Places) -> None:
        self._store = store
        self._facts = facts
        self._places = places
        self.marks = Marks()
        self.reached = Digests()
        self._pending = Digests()
        self._named = Marks()
        """Blobs that a known manifest of the same repository names: their marks, with the repository's salt."""
        self.loose = Digests()
        """Manifests of repositories with a retention, by their repository: to be kept by tags, or by their use."""
        self._subjects = array("Q")
        self._referring = Digests()
        """Loose ones with a subject; their numbers say where in ``_subjects`` its mark is."""

    def root(self, manifest: bytes) -> None:
        """Takes a manifest for one that stays."""
        self._pending.add(manifest)

    async def mark_members(self, members: Digests) -> None:
        """Marks what repositories' members lead to, but for the loose ones, and what the roots so far lead to.

        The members are used up.
        """
        unknown = Digests()
        for number in range(SHARDS):
            shard = await self._facts.shard(number)
            await self._visit(shard)
            held: set[bytes] = set()
            async for member, place in in_turns(members.take(number)):
                held.add(member)
                found = shard.get(member)
                if found is None:
                    unknown.add(member, place)
                else:
                    self._take(member, found, self._places[place])
            await self._visit(shard)
            shard.forget_but(held.union(manifest for manifest, _ in self.reached.of(number)))
            await shard.save()
        await self._mark_unknown(unknown)
        await self.settle()

    async def _mark_unknown(self, unknown: Digests) -> None:
        """Looks up what nobody has read: those that are manifests after all are read, and are roots or loose."""
        for number in unknown.shards():
            shard: FactsShard | None = None
            async for piece in in_pieces(self._unnamed(unknown.take(number)), READ_AT_ONCE):
                manifests = [found async for found in self._manifests_of(piece)]
                if manifests:
                    shard = shard or await self._facts.shard(number)
                    await shard.read(manifest for manifest, _ in manifests)
                for manifest, place in manifests:
                    found = shard.get(manifest) if shard is not None else None
                    if found is None:
                        self.marks.add(mark_of(manifest))
                    else:
                        self._take(manifest, found, place)
            if shard is not None:
                await shard.save()

    async def _unnamed(self, members: Iterable[tuple[bytes, int]]) -> AsyncIterator[tuple[bytes, Place]]:
        async for member, number in in_turns(members):
            place = self._places[number]
            if mark_of(member) ^ place.salt not in self._named:
                yield member, place

    async def _manifests_of(self, members: list[tuple[bytes, Place]]) -> AsyncIterator[tuple[bytes, Place]]:
        """Those of these members that are manifests, by their records."""
        names = [place.member(member) for member, place in members]
        records = await bulk.get_all(self._store, names)
        for (member, place), name, record in zip(members, names, records, strict=True):
            try:
                if isinstance(record, DamagedRecord):
                    raise record
                if record is not None and media_types.is_manifest(read_member(name, record.value).media_type):
                    yield member, place
            except DamagedRecord:
                self.root(member)  # it may be a manifest

    def _take(self, manifest: bytes, found: Facts, place: Place) -> None:
        for blob in found.blobs:
            self._named.add(blob ^ place.salt)
        if place.retention is None:
            self.root(manifest)
            return
        self.loose.add(manifest, place.number)
        if found.subject:
            self._referring.add(manifest, len(self._subjects))
            self._subjects.append(mark_of(found.subject))

    async def keep_loose(self, stays: Callable[[bytes, Place], bool]) -> None:
        """Marks what the loose manifests lead to that neither a tag has led to nor ``stays`` says no to, and then what
        refers to anything that is marked."""
        for number in self.loose.shards():
            reached = {manifest for manifest, _ in self.reached.of(number)}
            async for manifest, place in in_turns(self.loose.take(number)):
                if manifest not in reached and stays(manifest, self._places[place]):
                    self.root(manifest)
        await self.settle()
        await self._mark_referrers()

    async def _mark_referrers(self) -> None:
        """Marks what refers to something that is marked, and what refers to that."""
        while True:
            waiting = Digests()
            async for manifest, subject in in_turns(self._referring):
                if self._subjects[subject] in self.marks:
                    self.root(manifest)
                else:
                    waiting.add(manifest, subject)
            if len(waiting) == len(self._referring):
                return
            self._referring = waiting
            await self.settle()

    async def settle(self) -> None:
        """Marks what the roots lead to, and what that leads to."""
        while shards := self._pending.shards():
            for number in shards:
                shard = await self._facts.shard(number)
                await self._visit(shard)
                await shard.save()

    async def _visit(self, shard: FactsShard) -> None:
        """Marks what the roots in a shard lead to; children become roots."""
        roots = {manifest for manifest, _ in self._pending.take(shard.number)}
        if not roots:
            return
        roots.difference_update([manifest for manifest, _ in self.reached.of(shard.number)])
        await shard.read(roots)
        async for manifest in in_turns(roots):
            self.marks.add(mark_of(manifest))
            found = shard.get(manifest)
            if found is None:
                continue
            self.reached.add(manifest)
            for blob in found.blobs:
                self.marks.add(blob)
            for child in found.manifests:
                self.root(child)
