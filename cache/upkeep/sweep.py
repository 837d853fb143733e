"""Deletes what was condemned and nobody has spared: the second half of mark and sweep."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from cache import paths, record_names
from cache.catalog import Catalog
from cache.errors import RecordConflict
from cache.oci.digest import Digest
from cache.oci.referrers import without_referrer
from cache.store import Store
from cache.together import together
from cache.upkeep.condemned import Batch, State, encode, read_batch
from cache.upkeep.marking import Marking
from cache.upkeep.marks import mark

PARALLEL = 32
DELETE_S = 60.0
"""A run deletes a batch within so long of closing it, or not at all: after ABANDONED_S another may go on with it."""
ABANDONED_S = 3 * DELETE_S

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """What was deleted, what was spared since it was condemned, and how many batches were left to the next run."""

    deleted: tuple[Digest, ...] = ()
    rescued: int = 0
    unfinished: int = 0


class Sweep:
    """Deletes a run's batches. ``members`` are the names of the records that say which repositories have a blob."""

    def __init__(
        self,
        store: Store,
        marking: Marking,
        members: Mapping[int, Sequence[str]],
        abandoned_s: float = ABANDONED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._marking = marking
        self._catalog = Catalog(store)
        self._members = members
        self._abandoned_s = abandoned_s
        self._clock = clock

    async def run(self, state: State) -> Swept:
        """Deletes what is condemned there, batch by batch. Raises StoreUnavailable."""
        deleted: list[Digest] = []
        rescued = unfinished = 0
        for number in range(state.batches):
            name = paths.condemned(state.run, number)
            if await read_batch(self._store, name) is None:
                continue
            closed = await self._close(name)
            gone = await self._delete(closed[0]) if closed is not None else None
            if closed is None or gone is None:
                unfinished += 1
                continue
            await self._store.remove(name, closed[1])
            rescued += len(closed[0].spared)
            deleted += gone
        return Swept(tuple(deleted), rescued, unfinished)

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
                reached = tuple(digest for digest in batch.doomed if mark(Digest.parse(digest)) in self._marking.marks)
                batch = msgspec.structs.replace(batch, spared=(*batch.spared, *reached), closed=True)
            with contextlib.suppress(RecordConflict):
                return batch, await self._store.put(name, encode(batch), version)
        return None

    async def _delete(self, batch: Batch) -> list[Digest] | None:
        """What was deleted; None when that took too long."""
        doomed = [Digest.parse(digest) for digest in batch.doomed]
        members = [(name, digest) for digest in doomed for name in self._members.get(mark(digest), ())]
        try:
            async with asyncio.timeout(DELETE_S):
                await together((partial(self._remove_member, name, digest) for name, digest in members), PARALLEL)
                await together((partial(self._store.delete, digest) for digest in doomed), PARALLEL)
        except TimeoutError:
            log.warning("gc_batch_left", blobs=len(doomed))
            return None
        return doomed

    async def _remove_member(self, name: str, digest: Digest) -> None:
        """Takes a blob out of a repository, and a manifest out of what refers to its subject."""
        named = record_names.parse(name)
        if named is None or named.digest != digest:
            return  # another digest with the same mark
        facts = self._marking.facts.known(digest)
        if facts is not None and facts.subject:
            subject = Digest.parse(facts.subject)
            await self._catalog.change_referrers(
                named.namespace, named.repository, subject, lambda noted: without_referrer(noted, digest)
            )
        await self._store.remove(name)
