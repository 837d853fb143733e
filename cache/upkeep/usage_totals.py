"""What all flushes have said of uses, merged. For gc alone: replicas write flushes, and never read."""

from __future__ import annotations

from functools import partial

import msgspec
import structlog

from cache import bulk, paths
from cache.errors import DamagedRecord
from cache.store import Store
from cache.together import together
from cache.upkeep.usage_table import SHARDS, UsageShard, name_mark
from cache.upkeep.uses import Flushed, Used, read_uses

REMEMBERED_S = 90 * 86400.0
"""How long a use is remembered of a name that no retention looks at: one may come."""
PARALLEL = 16

log = structlog.get_logger()


class UsageTotals:
    """The uses of every name. ``now`` is in unix seconds. Every method raises StoreUnavailable when the store fails.

    A run that dies between writing the totals and removing the flushes leaves some hits to be counted twice; when a
    name was used last is right all the same. Where the totals cannot be read, names count as used now.
    """

    def __init__(self, store: Store, now: float) -> None:
        self._store = store
        self._now = now
        self._merged: list[str] = []
        self._shards = [UsageShard() for _ in range(SHARDS)]
        self._unread: set[int] = set()

    async def load(self) -> None:
        """Reads the totals, and what has been written since."""
        totals = {name async for name in self._store.names(paths.GC_USED)}
        present = [shard for shard in range(SHARDS) if _record(shard) in totals]
        await together((partial(self._load, shard) for shard in present), PARALLEL)
        self._merged = [name async for name in self._store.names(paths.USAGE)]
        for name in self._merged:
            await self._merge(name)

    async def _load(self, shard: int) -> None:
        try:
            record = await self._store.get(_record(shard))
            if record is not None:
                self._shards[shard] = UsageShard.decode(record.value)
        except (DamagedRecord, msgspec.DecodeError) as error:
            log.warning("usage_begun_anew", record=_record(shard), reason=str(error))
            self._unread.add(shard)

    async def _merge(self, name: str) -> None:
        try:
            record = await self._store.get(name)
            flushed = read_uses(name, record.value) if record is not None else Flushed(0.0, {})
        except DamagedRecord:
            return  # removed with the others: it says nothing
        for used_name, hits in flushed.uses.items():
            mark = name_mark(used_name)
            shard = self._shards[mark >> 56]
            before = shard.get(mark)
            if before is None:
                shard.set(mark, Used(flushed.at, flushed.at, hits))
            else:
                first_at, last_at = min(before.first_at, flushed.at), max(before.last_at, flushed.at)
                shard.set(mark, Used(first_at, last_at, before.hits + hits, before.untagged_at))

    def used(self, name: str) -> Used | None:
        """The uses of a name that there is; None when it was never used nor seen."""
        mark = name_mark(name)
        shard = self._shards[mark >> 56]
        if mark >> 56 in self._unread and shard.get(mark) is None:
            shard.set(mark, Used(self._now, self._now, 0))
        shard.touch(mark)
        return shard.get(mark)

    def seen(self, name: str) -> Used:
        """The uses of a name that there is; it is first seen now when it was never seen before."""
        used = self.used(name)
        if used is None:
            used = Used(self._now, 0.0, 0)
            self._set(name, used)
        return used

    def untag(self, name: str) -> None:
        """Notes that a retention takes the tag of a manifest now."""
        used = self.seen(name)
        self._set(name, Used(used.first_at, used.last_at, used.hits, self._now))

    def _set(self, name: str, used: Used) -> None:
        mark = name_mark(name)
        self._shards[mark >> 56].set(mark, used)
        self._shards[mark >> 56].touch(mark)

    async def save(self) -> None:
        """Writes the totals, then removes the flushes that are in them."""
        await together((partial(self._save, shard) for shard in range(SHARDS)), PARALLEL)
        await bulk.remove_all(self._store, self._merged)
        self._merged = []

    async def _save(self, number: int) -> None:
        shard = self._shards[number]
        shard.forget_unused_since(self._now - REMEMBERED_S)
        if not shard.changed:
            return
        if len(shard):
            await self._store.put(_record(number), shard.encode())
        else:
            await self._store.remove(_record(number))
        shard.changed = False


def _record(shard: int) -> str:
    return f"{paths.GC_USED}{shard:02x}"
