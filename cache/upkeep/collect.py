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
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from cache import paths
from cache.oci.digest import Digest
from cache.record_names import Kind, Named
from cache.store import Absent, Enumerable, Store
from cache.together import together
from cache.upkeep.condemned import BATCH, MAX_BATCHES, State, publish, read_batch, read_state
from cache.upkeep.entries import Entries
from cache.upkeep.expiry import Expiry
from cache.upkeep.gc_report import Report
from cache.upkeep.manifest_facts import ManifestFacts
from cache.upkeep.marking import Marking, Members
from cache.upkeep.marks import mark
from cache.upkeep.retention import GRACE_S, Retention, check_grace, keeps_untagged
from cache.upkeep.sweep import ABANDONED_S, Sweep, Swept
from cache.upkeep.usage_totals import UsageTotals
from cache.upkeep.walking import records_below

PARALLEL = 16


@dataclass(frozen=True, slots=True)
class Collection:
    """What to collect and how.

    ``grace_s`` is how long a condemned blob stays. ``offline`` = nothing else uses the store: no grace is needed.
    """

    retentions: tuple[Retention, ...] = ()
    grace_s: float = GRACE_S
    offline: bool = False
    dry_run: bool = False
    abandoned_s: float = ABANDONED_S

    def __post_init__(self) -> None:
        if not self.offline:
            check_grace(self.grace_s)


@dataclass(slots=True)
class _Unreachable:
    """The blobs that nothing leads to, as many as can be condemned at a time, and how many there are in all."""

    sizes_bytes: dict[Digest, int] = field(default_factory=dict)
    count: int = 0
    total_bytes: int = 0


async def collect(store: Store, how: Collection, now: Callable[[], float] = time.time) -> Report:
    """Collects what nobody needs, and reports. ``now`` gives unix seconds.

    A dry run writes and deletes nothing. Raises StoreUnavailable, and RecordConflict when another run has condemned
    something meanwhile.
    """
    return await _Run(store, how, now).collect()


class _Run:
    def __init__(self, store: Store, how: Collection, now: Callable[[], float]) -> None:
        self._store = store
        self._how = how
        self._now = now
        self._totals = UsageTotals(store)
        self._marking = Marking(ManifestFacts(store))
        self._gone: set[Digest] = set()
        self._report = Report(dry_run=how.dry_run)

    async def collect(self) -> Report:
        state, version = await read_state(self._store)
        due_s = 0.0 if self._how.offline else state.at + self._how.grace_s - self._now()
        pending = await self._condemned_by(state) if due_s > 0 and not self._how.dry_run else set()
        if pending:
            self._report.waiting, self._report.condemned, self._report.due_s = True, len(pending), due_s
            return self._report
        await self._totals.load()
        await self._marking.facts.load()
        await self._expire()
        await self._mark()
        unreachable = await self._unreachable()
        self._tell(unreachable)
        if self._how.dry_run:
            return self._report
        if await self._sweep(state, unreachable):
            state = await self._condemn(state, unreachable, version)
            if self._how.offline:
                await self._sweep(state, unreachable)
        await self._remember()
        return self._report

    async def _condemned_by(self, state: State) -> set[Digest]:
        """What is condemned and has not been deleted."""
        names = [paths.condemned(state.run, number) for number in range(state.batches)]
        batches = await together((partial(read_batch, self._store, name) for name in names), PARALLEL)
        return {Digest.parse(digest) for found in batches if found is not None for digest in found[0].doomed}

    async def _expire(self) -> None:
        now = self._now()
        entries = Entries(self._store, self._marking.facts, self._totals, self._how.retentions, now)
        expiry = Expiry(self._store, entries, self._report, now, self._how.dry_run)
        async for found in expiry.kept():
            if found.target is None:
                continue
            if found.is_manifest:
                await self._marking.reach(found.target)
            else:
                self._marking.marks.add(mark(found.target))
        self._gone = set(expiry.gone)
        for digest in expiry.gone:
            facts = self._marking.facts.known(digest)
            self._gone |= set(map(Digest.parse, facts.manifests)) if facts is not None else set()

    async def _mark(self) -> None:
        await Members(self._store, self._marking, self._how.retentions, self._stays).mark_all()

    def _stays(self, named: Named, retention: Retention) -> bool:
        """Whether a manifest without a tag stays: also one that is first seen now, unless its tag goes now."""
        digest = named.digest
        assert digest is not None, "a member is about a digest"
        name = paths.member(named.namespace, named.repository, digest)
        if digest in self._gone:
            self._totals.untag(name, self._now())
        used = self._totals.seen(name, self._now())
        return keeps_untagged(retention, used.first_at, used.last_at, used.untagged_at, self._now())

    async def _unreachable(self) -> _Unreachable:
        found = _Unreachable()
        async for digest, size_bytes in self._blobs():
            if mark(digest) in self._marking.marks:
                continue
            found.count += 1
            found.total_bytes += size_bytes
            if len(found.sizes_bytes) < BATCH * MAX_BATCHES:
                found.sizes_bytes[digest] = size_bytes
        return found

    async def _blobs(self) -> AsyncIterator[tuple[Digest, int]]:
        if isinstance(self._store, Enumerable):
            async for found in self._store.blobs():
                yield found

    def _tell(self, unreachable: _Unreachable) -> None:
        report = self._report
        report.manifests, report.manifests_read = len(self._marking.manifests), self._marking.facts.read
        report.unreachable, report.unreachable_bytes = unreachable.count, unreachable.total_bytes
        report.condemned, report.due_s = len(unreachable.sizes_bytes), self._how.grace_s

    async def _sweep(self, state: State, unreachable: _Unreachable) -> bool:
        """Deletes what is condemned; False when something of it is left to the next run."""
        if not state.batches:
            return True
        members = await self._members_of(set(map(mark, await self._condemned_by(state))))
        swept = await Sweep(self._store, self._marking, members, self._how.abandoned_s).run(state)
        self._count(swept, unreachable)
        return not swept.unfinished

    async def _members_of(self, doomed: set[int]) -> dict[int, list[str]]:
        """The names of the records that say which repositories have these blobs."""
        members: dict[int, list[str]] = defaultdict(list)
        async for named in records_below(self._store):
            digest = named.digest if named.kind is Kind.MEMBER else None
            if digest is not None and mark(digest) in doomed:
                members[mark(digest)].append(paths.member(named.namespace, named.repository, digest))
        return members

    def _count(self, swept: Swept, unreachable: _Unreachable) -> None:
        report = self._report
        report.freed += len(swept.deleted)
        report.freed_bytes += sum(unreachable.sizes_bytes.pop(digest, 0) for digest in swept.deleted)
        report.condemned = len(unreachable.sizes_bytes)
        report.rescued += swept.rescued
        report.unfinished_batches += swept.unfinished

    async def _condemn(self, swept: State, unreachable: _Unreachable, version: str | Absent) -> State:
        """Publishes what is unreachable, then removes the batches of runs that died before they had published them.

        Those were listed before: of what somebody else publishes after us nothing is removed.
        """
        left = [name async for name in self._store.names(paths.GC_CONDEMNED)]
        if not unreachable.sizes_bytes and not swept.batches and not left:
            return swept
        run = secrets.token_hex(8)
        state = await publish(self._store, unreachable.sizes_bytes, run, self._now(), version)
        await together((partial(self._store.remove, name) for name in left), PARALLEL)
        return state

    async def _remember(self) -> None:
        self._marking.facts.forget_but(self._marking.manifests)
        await self._marking.facts.save()
        await self._totals.save(self._now())
