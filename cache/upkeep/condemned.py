"""The blobs that gc means to delete, and how whoever still wants one keeps it.

gc publishes what it found unreachable in records of up to BATCH digests, then ``gc/state``, which replicas read every
RELOAD_S; one that has not been able to for KNOWN_S acknowledges no push (``require_known``). A record is *open* at
first: whoever relies on a blob of it writes its name into the record (``keep``), under compare-and-swap, before
anything is answered. After the grace gc *closes* the record, under compare-and-swap too: what was not spared by then is
decided, and from then on counts as absent for everybody. Then it is deleted, and the record with it. One record decides
for each blob, so there is no moment in which one side thinks that it is kept and the other that it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from cache import paths
from cache.errors import CacheError, CondemnedUnknown, DamagedRecord, RecordConflict, StoreUnavailable
from cache.oci.digest import Digest
from cache.singleflight import SingleFlight
from cache.store import ABSENT, Absent, Believing, Records
from cache.together import together
from cache.upkeep.marks import Marks, mark
from cache.upkeep.retention import KNOWN_S, RELOAD_S

BATCH = 1000
MAX_BATCHES = 1000
"""So many batches are condemned at a time: it bounds what replicas remember (eight bytes for a blob), and what a run of
gc does."""
WAIT_S = 30.0
"""How long a push waits for the deletion of the blob that it brings again."""
_POLL_S = 0.2
_READ_AT_ONCE = 16

T = TypeVar("T")
log = structlog.get_logger()


class State(msgspec.Struct, frozen=True):
    """What is condemned now: the run's name, how many batches it had, and since when (unix seconds)."""

    run: str = ""
    batches: int = 0
    at: float = 0.0


class Batch(msgspec.Struct, frozen=True):
    """Some condemned blobs, as ``algorithm:hex`` and in order, with their sizes; ``spared`` ones of them stay.

    Closed = decided.
    """

    digests: tuple[str, ...]
    spared: tuple[str, ...] = ()
    closed: bool = False
    sizes_bytes: tuple[int, ...] = ()

    @property
    def doomed_bytes(self) -> int:
        """The size of those that are to be deleted."""
        spared = frozenset(self.spared)
        sizes = zip(self.digests, self.sizes_bytes, strict=False)
        return sum(size_bytes for digest, size_bytes in sizes if digest not in spared)

    @property
    def doomed(self) -> tuple[str, ...]:
        """Those that are to be deleted."""
        spared = frozenset(self.spared)
        return tuple(digest for digest in self.digests if digest not in spared)


async def read_state(records: Records) -> tuple[State, str | Absent]:
    """What is condemned, and the record's version for a compare-and-swap. Raises StoreUnavailable, DamagedRecord."""
    found = await records.get(paths.GC_STATE)
    if found is None:
        return State(), ABSENT
    return _decode(paths.GC_STATE, found.value, State), found.version


async def read_batch(records: Records, name: str) -> tuple[Batch, str] | None:
    """A batch and its record's version; None when it is done with. Raises StoreUnavailable, DamagedRecord."""
    found = await records.get(name)
    return (_decode(name, found.value, Batch), found.version) if found is not None else None


async def batches_of(records: Records, state: State) -> AsyncIterator[tuple[int, Batch]]:
    """The batches of a run that are not done with, by their numbers. Raises StoreUnavailable, DamagedRecord."""
    for start in range(0, state.batches, _READ_AT_ONCE):
        numbers = range(start, min(start + _READ_AT_ONCE, state.batches))
        names = (paths.condemned(state.run, number) for number in numbers)
        found = await together((partial(read_batch, records, name) for name in names), _READ_AT_ONCE)
        for number, batch in zip(numbers, found, strict=True):
            if batch is not None:
                yield number, batch[0]


def _decode(name: str, value: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise DamagedRecord(name, str(error)) from error


def encode(value: State | Batch) -> bytes:
    """A record's value."""
    return msgspec.msgpack.encode(value)


@dataclass(slots=True)
class _View:
    """What a replica knows to be condemned: marks of the blobs, and the batches, each by its first blob, in order."""

    run: str = ""
    marks: Marks = field(default_factory=Marks)
    firsts: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    kept: set[Digest] = field(default_factory=set)

    def add(self, number: int, batch: Batch) -> None:
        """Learns of the next batch."""
        if batch.digests:
            self.firsts.append(batch.digests[0])
            self.numbers.append(number)
            for digest in batch.digests:
                self.marks.add(mark(Digest.parse(digest)))

    def batch_of(self, digest: Digest) -> int | None:
        """The number of the batch that the blob is in, if it is in one."""
        if mark(digest) not in self.marks:
            return None
        place = bisect_right(self.firsts, str(digest))
        return self.numbers[place - 1] if place else None


class Condemned:
    """What is condemned, as one replica knows it. Raises StoreUnavailable when the store fails."""

    def __init__(self, records: Records, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._url = url
        self._clock = clock
        self._view = _View()
        self._known_at = -math.inf
        self._reloads: SingleFlight[None, None] = SingleFlight()
        self._reloading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Learns what is condemned, and goes on learning it."""
        await self._reload_or_tell()
        self._reloading = asyncio.create_task(self._keep_reloading(), name="reload what is condemned")

    async def close(self) -> None:
        """Learns no more."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)
        await self._reloads.close()

    async def reload(self) -> None:
        """Learns what is condemned now. Raises DamagedRecord too."""
        began_at = self._clock()
        state, _ = await read_state(self._records)
        if state.run != self._view.run:
            view = _View(state.run)
            async for number, batch in batches_of(self._records, state):
                view.add(number, batch)
            self._doubt(None)  # what the run before had condemned is gone, and we no longer know what that was
            self._view = view
        self._known_at = began_at

    async def require_known(self) -> None:
        """Returns when a push may rely on ``keep``: when we know what was condemned until a moment ago.

        Raises CondemnedUnknown when that cannot be read: gc may be about to delete what the push needs.
        """
        if self._clock() - self._known_at <= KNOWN_S:
            return
        try:
            await self._reloads.run(None, self.reload)
        except CacheError as error:
            raise CondemnedUnknown(self._url, str(error)) from error

    async def keep(self, digest: Digest) -> bool:
        """Sees to it that the blob is not deleted, before anybody is told that it is there.

        False when that is decided already: then it is as good as absent. Asks for nothing while nothing is condemned.
        """
        view = self._view
        if not view.firsts or digest in view.kept:
            return True
        number = view.batch_of(digest)
        if number is None:
            return True
        return await self._keep(view, paths.condemned(view.run, number), digest)

    async def admit(self, digest: Digest) -> None:
        """Returns when the blob can be stored and stays: when it is kept, or its deletion is over.

        Raises StoreUnavailable when that deletion does not end.
        """
        until = self._clock() + WAIT_S
        while not await self.keep(digest):
            if self._clock() > until:
                raise StoreUnavailable(self._url, f"store {digest}", "gc is deleting an older copy of it")
            await asyncio.sleep(_POLL_S)

    async def _keep(self, view: _View, name: str, digest: Digest) -> bool:
        while (found := await read_batch(self._records, name)) is not None:
            batch, version = found
            if str(digest) in batch.spared or str(digest) not in batch.digests:
                view.kept.add(digest)
                return True
            if batch.closed:
                return False
            spared = msgspec.structs.replace(batch, spared=(*batch.spared, str(digest)))
            with contextlib.suppress(RecordConflict):
                await self._records.put(name, encode(spared), version)
                view.kept.add(digest)
                log.info("condemned_blob_kept", digest=str(digest), run=view.run)
                return True
        self._doubt(digest)
        view.kept.add(digest)  # the batch is done with: the store itself knows now whether the blob is there
        return True

    def _doubt(self, digest: Digest | None) -> None:
        if isinstance(self._records, Believing):
            self._records.doubt(digest)

    async def _keep_reloading(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            await self._reload_or_tell()

    async def _reload_or_tell(self) -> None:
        try:
            await self._reloads.run(None, self.reload)
        except CacheError as error:
            log.warning("condemned_not_read", error=str(error))


class Condemning:
    """Condemns blobs in the place of what was: written batch by batch as they are found, and published at the end."""

    def __init__(self, records: Records, run: str) -> None:
        self._records = records
        self._run = run
        self._found: list[tuple[str, int]] = []
        self._batches = 0
        self.blobs = 0
        """How many are condemned: MAX_BATCHES batches at the most."""

    async def add(self, digest: Digest, size_bytes: int) -> None:
        """Condemns a blob. They must come in order. Raises StoreUnavailable."""
        if self.blobs == BATCH * MAX_BATCHES:
            return
        self._found.append((str(digest), size_bytes))
        self.blobs += 1
        if len(self._found) == BATCH:
            await self._write()

    async def _write(self) -> None:
        digests, sizes_bytes = zip(*self._found, strict=True)
        self._found = []
        name = paths.condemned(self._run, self._batches)
        self._batches += 1
        await self._records.put(name, encode(Batch(digests, sizes_bytes=sizes_bytes)))

    async def publish(self, at: float, expected: str | Absent) -> State:
        """Puts it in force; returns the new state.

        The state is written last, so that what it names is there. Raises RecordConflict when somebody else has changed
        it since ``expected``; what was written is removed then.
        """
        if self._found:
            await self._write()
        state = State(self._run, self._batches, at)
        try:
            await self._records.put(paths.GC_STATE, encode(state), expected)
        except RecordConflict:
            for number in range(self._batches):
                await self._records.remove(paths.condemned(self._run, number))
            raise
        return state
