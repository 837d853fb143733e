"""Who does a thing for the whole cluster: a record that one replica holds, and others take over when it is dead.

A lease is the record ``leases/<name>``: who holds it, for how long it promises to renew it, and a token. It is written
with compare-and-swap, so that there is one holder; its version is what fences an older one off, whose next renewal
fails. By the token a holder knows its lease when a write of its own was given up, and done all the same.
Nobody trusts another's clock: a lease is over when its record has not changed for its time to live, as the observer's
own clock has seen it, or when the observer could not reach its holder.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import msgspec
from cachetools import LRUCache

from cache import paths
from cache.errors import CacheError, RecordConflict
from cache.store import ABSENT, Absent, Record, Records
from cache.together import together

MAX_SEEN = 10_000
LONGEST_S = 600.0
"""A lease that promises less often than this to be renewed is left alone."""
_PARALLEL = 16


class _Content(msgspec.Struct, frozen=True):
    holder: str
    ttl_s: float
    token: str


@dataclass(frozen=True, slots=True)
class Other:
    """Somebody else holds the lease."""

    holder: str


@dataclass(slots=True)
class Held:
    """A lease that is ours; ``lost`` is set as soon as it no longer is, and what it was for must stop then."""

    name: str
    token: str
    version: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Leases:
    """Leases in a store, as one holder sees them."""

    def __init__(self, records: Records, holder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._holder = holder
        self._clock = clock
        self._seen: LRUCache[str, tuple[str, float]] = LRUCache(MAX_SEEN)  # version → when it was first seen

    async def take(self, name: str, ttl_s: float, *, dead: str = "") -> Held | Other:
        """The lease, or who holds it. It is taken from a holder that is ``dead``, or has not renewed it in time.

        Raises StoreUnavailable. Must be renewed within ``ttl_s``, and released.
        """
        record = await self._records.get(paths.lease(name))
        content = _read(record)
        expected: str | Absent = ABSENT
        if record is not None:
            if content is not None and content.holder != dead and not self._is_over(name, record.version, content):
                return Other(content.holder)
            expected = record.version
        token = secrets.token_hex(8)
        try:
            return Held(name, token, await self._write(name, ttl_s, token, expected))
        except RecordConflict:
            again = _read(await self._records.get(paths.lease(name)))
            return Other(again.holder) if again is not None else await self.take(name, ttl_s, dead=dead)

    def _is_over(self, name: str, version: str, content: _Content) -> bool:
        if content.holder == self._holder:
            return True  # of our own earlier life at this address
        now = self._clock()
        seen = self._seen.get(name)
        if seen is None or seen[0] != version:
            self._seen[name] = (version, now)
            return False
        return now - seen[1] >= content.ttl_s

    async def renew(self, held: Held, ttl_s: float) -> None:
        """Says that we live. Sets ``lost`` when somebody has taken the lease. Raises StoreUnavailable."""
        while held.version:
            try:
                held.version = await self._write(held.name, ttl_s, held.token, held.version)
                return
            except RecordConflict:
                held.version = await self._version(held)
        held.lost.set()

    async def release(self, held: Held) -> None:
        """Gives the lease up; nothing happens when it is no longer ours. Raises StoreUnavailable."""
        held.lost.set()
        while held.version:
            try:
                return await self._records.remove(paths.lease(held.name), held.version)
            except RecordConflict:
                held.version = await self._version(held)

    async def _version(self, held: Held) -> str:
        """The version of our lease, where a write of ours changed it and we did not hear of it; "" when it is lost."""
        record = await self._records.get(paths.lease(held.name))
        content = _read(record)
        return record.version if record is not None and content is not None and content.token == held.token else ""

    async def _write(self, name: str, ttl_s: float, token: str, expected: str | Absent) -> str:
        value = msgspec.json.encode(_Content(self._holder, ttl_s, token))
        return await self._records.put(paths.lease(name), value, expected)

    @asynccontextmanager
    async def kept(self, held: Held, ttl_s: float) -> AsyncIterator[Held]:
        """Renews the lease while the block runs, and releases it then."""
        keeper = asyncio.create_task(self._keep(held, ttl_s))
        try:
            yield held
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            with contextlib.suppress(CacheError):  # it ends by itself
                await self.release(held)  # also when it was given up for lost: perhaps nobody has taken it

    async def _keep(self, held: Held, ttl_s: float) -> None:
        """Renews until that has failed for so long that others may take the lease soon; a write that hangs counts."""
        now = asyncio.get_running_loop().time
        good_until = now() + ttl_s * 2 / 3
        while not held.lost.is_set():
            await asyncio.sleep(min(ttl_s / 3, max(0.0, good_until - now())))
            begun_at = now()  # others may see the new version before we hear of it
            try:
                async with asyncio.timeout_at(good_until):
                    await self.renew(held, ttl_s)
                good_until = begun_at + ttl_s * 2 / 3
            except (CacheError, TimeoutError):
                if now() >= good_until:
                    held.lost.set()


async def remove_abandoned(records: Records, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> int:
    """Removes the leases that nobody renews while they should be, and returns how many those were.

    Waits as long as the longest of them is good for, not at all when there is none. Whoever renews or takes one
    meanwhile keeps it: it is removed at the version that was seen. Raises StoreUnavailable.
    """
    names = [name async for name in records.names(paths.LEASES)]
    found = await together((partial(records.get, name) for name in names), _PARALLEL)
    seen = {name: (record.version, _good_for_s(record)) for name, record in zip(names, found, strict=True) if record}
    waiting = {name: version for name, (version, ttl_s) in seen.items() if ttl_s <= LONGEST_S}
    if not waiting:
        return 0
    await sleep(max(seen[name][1] for name in waiting))
    work = (partial(_remove_unchanged, records, name, version) for name, version in waiting.items())
    return sum(await together(work, _PARALLEL))


def _good_for_s(record: Record) -> float:
    content = _read(record)
    return content.ttl_s if content is not None else 0.0


async def _remove_unchanged(records: Records, name: str, version: str) -> bool:
    try:
        await records.remove(name, version)
    except RecordConflict:
        return False
    return True


def _read(record: Record | None) -> _Content | None:
    """None for no lease, and for one that nobody can read, which is as good as over."""
    try:
        return msgspec.json.decode(record.value, type=_Content) if record is not None else None
    except msgspec.DecodeError:
        return None
