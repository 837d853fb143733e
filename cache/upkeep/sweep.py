"""Deletes what was condemned and nobody has spared: the second half of mark and sweep."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from cache import bulk, paths
from cache.catalog import Catalog
from cache.errors import RecordConflict
from cache.oci.digest import Digest
from cache.oci.referrers import without_referrer
from cache.store import Store
from cache.together import together
from cache.upkeep.condemned import Batch, State, encode, read_batch
from cache.upkeep.digests import pack, unpack
from cache.upkeep.manifest_facts import Facts, ManifestFacts
from cache.upkeep.marks import Marks, mark
from cache.upkeep.pace import Pace
from cache.upkeep.paced_store import deletions
from cache.upkeep.places import Place
from cache.upkeep.survey import Survey

PARALLEL = 32
DELETE_S = 60.0
"""A run deletes a batch within so long of closing it, or not at all: after ABANDONED_S another may go on with it."""
ABANDONED_S = 3 * DELETE_S

log = structlog.get_logger()


@dataclass(slots=True)
class Swept:
    """What was deleted, what was spared since it was condemned, and how many batches were left to the next run."""

    deleted: int = 0
    deleted_bytes: int = 0
    rescued: int = 0
    unfinished: int = 0


class Sweep:
    """Deletes a run's batches. The ``survey`` knows which repositories have what is condemned.

    A batch must be deleted soon after it was closed, so ``pace`` is kept before that.
    """

    def __init__(
        self,
        store: Store,
        pace: Pace,
        marks: Marks,
        facts: ManifestFacts,
        survey: Survey,
        abandoned_s: float = ABANDONED_S,
    ) -> None:
        self._store = store
        self._pace = pace
        self._marks = marks
        self._facts = facts
        self._catalog = Catalog(store)
        self._survey = survey
        self._abandoned_s = abandoned_s

    async def run(self, state: State) -> Swept:
        """Deletes what is condemned there, batch by batch. Raises StoreUnavailable."""
        swept = Swept()
        for number in range(state.batches):
            name = paths.condemned(state.run, number)
            found = await read_batch(self._store, name)
            if found is None:
                continue
            await self._pace.spend(4 + 2 * deletions(self._store, len(found[0].doomed)))
            closed = await self._close(name)
            if closed is None or not await self._delete(closed[0]):
                swept.unfinished += 1
                continue
            batch, version = closed
            await self._store.remove(name, version)
            swept.rescued += len(batch.spared)
            swept.deleted += len(batch.doomed)
            swept.deleted_bytes += batch.doomed_bytes
        return swept

    async def _close(self, name: str) -> tuple[Batch, str] | None:
        """The batch, decided by us; None when another run is at it."""
        while (found := await read_batch(self._store, name)) is not None:
            batch, version = found
            if batch.closed:
                await asyncio.sleep(self._abandoned_s)
                again = await read_batch(self._store, name)
                if again is None or again[1] != version:
                    return None
            else:
                reached = tuple(digest for digest in batch.doomed if mark(Digest.parse(digest)) in self._marks)
                batch = msgspec.structs.replace(batch, spared=(*batch.spared, *reached), closed=True)
            with contextlib.suppress(RecordConflict):
                return batch, await self._store.put(name, encode(batch), version)
        return None

    async def _delete(self, batch: Batch) -> bool:
        """Deletes a batch; False when that took too long."""
        doomed = [Digest.parse(digest) for digest in batch.doomed]
        try:
            async with asyncio.timeout(DELETE_S):
                members = await self._members_of(doomed)
                names = [paths.member(place.namespace, place.repository, digest) for digest, place, _ in members]
                referrers = (partial(self._unrefer, digest, place, facts) for digest, place, facts in members)
                await together(referrers, PARALLEL)
                await bulk.remove_all(self._store, names)
                await bulk.delete_all(self._store, doomed)
        except TimeoutError:
            log.warning("gc_batch_left", blobs=len(doomed))
            return False
        return True

    async def _members_of(self, doomed: list[Digest]) -> list[tuple[Digest, Place, Facts | None]]:
        """The repositories that have these, with what is known of them as manifests."""
        wanted = {pack(digest): digest for digest in doomed}
        found = []
        for number in sorted({packed[0] for packed in wanted}):
            having = [(member, place) for member, place in self._survey.doomed_members.of(number) if member in wanted]
            shard = await self._facts.shard(number) if having else None
            for member, place in having:
                facts = shard.get(member) if shard is not None else None
                found.append((wanted[member], self._survey.places[place], facts))
        return found

    async def _unrefer(self, digest: Digest, place: Place, facts: Facts | None) -> None:
        """Takes a manifest out of what refers to its subject."""
        if facts is not None and facts.subject:
            await self._catalog.change_referrers(
                place.namespace,
                place.repository,
                unpack(facts.subject),
                lambda noted: without_referrer(noted, digest),
            )
