"""Removes the entries that break a limit, each only as it was when it was judged."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice

from cache.errors import RecordConflict
from cache.store import Store
from cache.together import together
from cache.upkeep.digests import Digests, pack
from cache.upkeep.entry_table import EntryTable
from cache.upkeep.gc_report import PrefixReport, Report
from cache.upkeep.manifest_facts import ManifestFacts
from cache.upkeep.marking import Marking
from cache.upkeep.marks import mark, mark_of
from cache.upkeep.retention import Reason, Retention, expired
from cache.upkeep.survey import Found, Survey
from cache.upkeep.walking import in_turns

PARALLEL = 16
PIECE = 1000
_STAYS, _GOES, _CHANGED = range(3)


class Expiry:
    """Judges the entries of a survey. ``now`` is in unix seconds. What stays is marked."""

    def __init__(
        self, store: Store, survey: Survey, facts: ManifestFacts, marking: Marking, report: Report, dry_run: bool
    ) -> None:
        self._store = store
        self._survey = survey
        self._facts = facts
        self._marking = marking
        self._report = report
        self._dry_run = dry_run
        self.gone = Digests()
        """The manifests to which entries led that have been removed, and their children."""

    async def run(self, now: float) -> None:
        """Removes what breaks a limit. Raises StoreUnavailable."""
        await self._weigh()
        for retention, table in self._survey.entries.items():
            await self._judge(retention, table, now)
        self._survey.entries.clear()
        await self._add_children()

    async def _weigh(self) -> None:
        """Learns what the entries' manifests say of their sizes and seconds, reading those that no run has read."""
        tables = self._survey.entries.values()
        for number in sorted({number for table in tables for number in table.manifests.shards()}):
            shard = await self._facts.shard(number)
            for table in tables:
                await shard.read({manifest for manifest, _ in table.manifests.of(number)})
                async for manifest, row in in_turns(table.manifests.of(number)):
                    if (found := shard.get(manifest)) is not None:
                        table.weigh(row, found.size_bytes, found.seconds)
            await shard.save()

    async def _judge(self, retention: Retention, table: EntryTable, now: float) -> None:
        report = self._report.prefix(retention.name)
        became = bytearray([_STAYS]) * len(table)
        going = expired(retention, table, now)
        while piece := await asyncio.to_thread(lambda: list(islice(going, PIECE))):
            work = (partial(self._remove, table, row, reason, report) for row, reason in piece)
            for (row, _), outcome in zip(piece, await together(work, PARALLEL), strict=True):
                became[row] = outcome
        async for row in in_turns(range(len(table))):
            if became[row] == _STAYS:
                report.keep(table.entry(row))
        async for manifest, row in in_turns(table.manifests):
            if became[row] == _STAYS:
                self._marking.root(manifest)
            elif became[row] == _GOES:
                self.gone.add(manifest)
        async for blob, row in in_turns(table.blobs):
            if became[row] == _STAYS:
                self._marking.marks.add(mark_of(blob))

    async def _remove(self, table: EntryTable, row: int, reason: Reason, report: PrefixReport) -> int:
        """Removes an entry, and returns what became of it. One that somebody has written since it was read stays, as
        it is now."""
        entry = table.entry(row)
        if not self._dry_run:
            try:
                await self._store.remove(entry.name, table.version(row))
            except RecordConflict:
                again = await self._survey.again(entry.name)
                if again is not None:
                    self._keep(again, report)
                return _CHANGED
        report.expire(entry, reason)
        return _GOES

    def _keep(self, found: Found, report: PrefixReport) -> None:
        report.keep(found.entry)
        if found.target is None:
            return
        if found.is_manifest:
            self._marking.root(pack(found.target))
        else:
            self._marking.marks.add(mark(found.target))

    async def _add_children(self) -> None:
        for number in self.gone.shards():
            shard = await self._facts.shard(number)
            children: list[bytes] = []
            async for manifest, _ in in_turns(self.gone.of(number)):
                if (found := shard.get(manifest)) is not None:
                    children += found.manifests
            for child in children:
                self.gone.add(child)
