"""Garbage collection beside a store's users: what a retention says goes, then what nothing leads to any more.

A run does this, in this order:

1. It merges what replicas have written of uses, and removes the entries that break a limit: a tag only at the version
   that was judged, so that a push of the same tag wins.
2. It marks all that something leads to (``cache.upkeep.marking``).
3. It deletes what an earlier run condemned, if the grace is over, nobody has spared it and the marks of *this* run do
   not lead to it (``cache.upkeep.sweep``).
4. It condemns what nothing leads to now (``cache.upkeep.condemned``), for a later run to delete.

Why no acknowledged push is lost. A push is acknowledged once its manifest's record is written, and before that every
blob that it names was looked at (or stored) by the replica that took it. Let T be when the blob was condemned.

- *Looked at after the replica learned of it* (T + KNOWN_S at the latest: a replica that has not read what is condemned
  for so long refuses the push): the replica first wrote the blob's name into the batch, under compare-and-swap. Either
  that was before the batch was closed, and the blob stays; or it was after, and the blob was treated as absent, so the
  push was refused or the upload waited for the deletion to end and stored the bytes anew. The same holds for a mount
  and a manifest that is pushed again; a HEAD or a GET does it as far as the replica knows.
- *Looked at before*: then the manifest was written soon after, long before T + grace. The marking that decides on the
  blob begins after T + grace, so it meets the manifest, and the blob is marked. Content that is moved from tag to tag
  while a marking runs may be missed by that one; it is condemned at worst, and the next marking meets it.
- *Uploaded or mounted, and its manifest is still to come*: it may be condemned, and stays for the grace. So the grace
  is the longest time that a push may take from its first blob to its manifest; by then the manifest's own check keeps
  it. After that the push is refused (MANIFEST_BLOB_UNKNOWN), never acknowledged and then lost.
- *Disk tiers* believe for a minute that a blob is there. A replica makes them doubt it when it finds the blob's batch
  done with, and doubt everything when it learns of the next run: by the manifest's own check the store itself answers.
- *Clocks*: only the end of the grace is judged by a clock (that of the machine on which gc runs); it may be wrong by
  the grace less MIN_GRACE_S.

Two runs at once: whoever closes a batch, by compare-and-swap, deletes it; who publishes second finds the state changed
and gives up. A run that dies leaves the tags that it had not removed, batches that are open (the next run sweeps them),
closed (the next run goes on with them when nobody has for a while) or unnamed (the next run removes them).

Pulled content may lose a blob at any time: it is fetched again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from cache import bulk, paths
from cache.oci.digest import Digest
from cache.store import Absent, Store
from cache.upkeep.condemned import BATCH, MAX_BATCHES, Condemning, State, batches_of, read_state
from cache.upkeep.digests import Digests
from cache.upkeep.expiry import Expiry
from cache.upkeep.gc_report import Report
from cache.upkeep.manifest_facts import ManifestFacts
from cache.upkeep.marking import Marking
from cache.upkeep.marks import Marks, mark, mark_of
from cache.upkeep.pace import Pace
from cache.upkeep.paced_store import PacedStore
from cache.upkeep.places import Place
from cache.upkeep.retention import GRACE_S, Retention, check_grace, keeps_untagged
from cache.upkeep.survey import Survey
from cache.upkeep.sweep import ABANDONED_S, Sweep
from cache.upkeep.usage_totals import UsageTotals


@dataclass(frozen=True, slots=True)
class Collection:
    """What to collect and how.

    ``grace_s`` is how long a condemned blob stays. ``offline`` = nothing else uses the store: no grace is needed. The
    store is asked at most ``requests_per_second`` times a second, None = as fast as it goes.
    """

    retentions: tuple[Retention, ...] = ()
    grace_s: float = GRACE_S
    offline: bool = False
    dry_run: bool = False
    requests_per_second: float | None = None
    abandoned_s: float = ABANDONED_S

    def __post_init__(self) -> None:
        if not self.offline:
            check_grace(self.grace_s)


async def collect(store: Store, how: Collection, now: Callable[[], float] = time.time) -> Report:
    """Collects what nobody needs, and reports. ``now`` gives unix seconds.

    A dry run writes and deletes nothing. Raises StoreUnavailable, and RecordConflict when another run has condemned
    something meanwhile.
    """
    return await _Run(store, how, now).collect()


class _Run:
    def __init__(self, unpaced: Store, how: Collection, now: Callable[[], float]) -> None:
        self._unpaced = unpaced
        self._pace = Pace(how.requests_per_second)
        store = self._store = PacedStore(unpaced, self._pace)
        self._how = how
        self._now = now
        self._totals = UsageTotals(store, now())
        self._facts = ManifestFacts(store, keeps=not how.dry_run)
        self._report = Report(dry_run=how.dry_run)

    async def collect(self) -> Report:
        state, version = await read_state(self._store)
        condemned = await self._condemned_by(state)
        due_s = 0.0 if self._how.offline else state.at + self._how.grace_s - self._now()
        if len(condemned) and due_s > 0 and not self._how.dry_run:
            self._report.waiting, self._report.condemned, self._report.due_s = True, len(condemned), due_s
            return self._report
        await self._totals.load()
        await self._facts.open()
        survey = Survey(self._store, self._totals, self._how.retentions, condemned)
        await survey.look()
        marking = await self._mark(survey)
        if self._how.dry_run:
            await self._condemn(marking.marks, None)
            return self._report
        if await self._sweep(survey, marking.marks, state):
            state = await self._condemn(marking.marks, (state, version))
            if self._how.offline:
                await survey.look_for(await self._condemned_by(state))
                if await self._sweep(survey, marking.marks, state):
                    self._report.condemned = 0
        else:
            await self._condemn(marking.marks, None)
        await self._totals.save()
        return self._report

    async def _condemned_by(self, state: State) -> Marks:
        """What is condemned and has not been deleted."""
        marks = Marks()
        async for _, batch in batches_of(self._store, state):
            for digest in batch.doomed:
                marks.add(mark(Digest.parse(digest)))
        return marks

    async def _mark(self, survey: Survey) -> Marking:
        """Removes what breaks a limit, and marks what something leads to then."""
        marking = Marking(self._store, self._facts, survey.places)
        for blob, _ in survey.unlimited:
            marking.marks.add(mark_of(blob))
        expiry = Expiry(self._store, survey, self._facts, marking, self._report, self._how.dry_run)
        await expiry.run(self._now())
        await marking.mark_members(survey.members)
        await marking.keep_loose(_Untagged(self._totals, expiry.gone, self._now()).stays)
        self._report.manifests, self._report.manifests_read = len(marking.reached), self._facts.read
        return marking

    async def _sweep(self, survey: Survey, marks: Marks, state: State) -> bool:
        """Deletes what is condemned; False when something of it is left to the next run."""
        sweep = Sweep(self._unpaced, self._pace, marks, self._facts, survey, self._how.abandoned_s)
        swept = await sweep.run(state)
        self._report.freed += swept.deleted
        self._report.freed_bytes += swept.deleted_bytes
        self._report.rescued += swept.rescued
        self._report.unfinished_batches += swept.unfinished
        return not swept.unfinished

    async def _condemn(self, marks: Marks, swept: tuple[State, str | Absent] | None) -> State:
        """Counts what is unreachable. In the place of what was ``swept`` it is published, and then the batches of runs
        are removed that died before they had published them.

        Those were listed before: of what somebody else publishes after us nothing is removed.
        """
        report, run = self._report, Condemning(self._store, secrets.token_hex(8))
        left = [name async for name in self._store.names(paths.GC_CONDEMNED)] if swept is not None else []
        async for digest, size_bytes in self._unreachable(marks):
            report.unreachable += 1
            report.unreachable_bytes += size_bytes
            if swept is not None:
                await run.add(digest, size_bytes)
        report.condemned, report.due_s = min(report.unreachable, BATCH * MAX_BATCHES), self._how.grace_s
        if swept is None:
            return State()
        state, version = swept
        if not report.unreachable and not state.batches and not left:
            return state
        state = await run.publish(self._now(), version)
        await bulk.remove_all(self._store, left)
        return state

    async def _unreachable(self, marks: Marks) -> AsyncIterator[tuple[Digest, int]]:
        """The blobs that nothing leads to, with their sizes in bytes, in order."""
        async for digest, size_bytes in self._store.blobs():
            if mark(digest) not in marks:
                yield digest, size_bytes


class _Untagged:
    """Which manifests stay that no tag leads to; asked shard by shard. ``gone`` are those whose tags go now."""

    def __init__(self, totals: UsageTotals, gone: Digests, now: float) -> None:
        self._totals = totals
        self._gone = gone
        self._now = now
        self._shard = -1
        self._gone_here: set[bytes] = set()

    def stays(self, manifest: bytes, place: Place) -> bool:
        """Whether a manifest stays: also one that is first seen now, unless its tag goes now."""
        assert place.retention is not None, "only a retention makes a manifest loose"
        if manifest[0] != self._shard:
            self._shard = manifest[0]
            self._gone_here = {gone for gone, _ in self._gone.of(self._shard)}
        name = place.member(manifest)
        if manifest in self._gone_here:
            self._totals.untag(name)
        used = self._totals.seen(name)
        return keeps_untagged(place.retention, used.first_at, used.last_at, used.untagged_at, self._now)
