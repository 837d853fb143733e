"""What all flushes have said of uses, merged. For gc alone: replicas write flushes, and never read."""

from __future__ import annotations

from functools import partial

from cache import paths
from cache.errors import DamagedRecord
from cache.store import Store
from cache.together import together
from cache.upkeep.shards import PARALLEL, Shards
from cache.upkeep.uses import Flushed, Used, read_uses

REMEMBERED_S = 90 * 86400.0
"""How long a use is remembered of a name that no retention looks at: one may come."""


class UsageTotals:
    """The uses of every name. Every method raises StoreUnavailable when the store fails.

    A run that dies between writing the totals and removing the flushes leaves some hits to be counted twice; when a
    name was used last is right all the same.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._merged: list[str] = []
        self._live: set[str] = set()
        self.used: Shards[Used] = Shards(store, paths.GC_USED, Used)

    async def load(self) -> None:
        """Reads the totals, and what has been written since."""
        await self.used.load()
        names = [name async for name in self._store.names(paths.USAGE)]
        for flushed in await together((partial(self._read, name) for name in names), PARALLEL):
            for name, hits in flushed.uses.items():
                self._add(name, flushed.at, hits)
        self._merged = names

    async def _read(self, name: str) -> Flushed:
        record = await self._store.get(name)
        try:
            return read_uses(name, record.value) if record is not None else Flushed(0.0, {})
        except DamagedRecord:
            return Flushed(0.0, {})  # removed with the others: it says nothing

    def _add(self, name: str, at: float, hits: int) -> None:
        before = self.used.get(name)
        if before is None:
            self.used.set(name, Used(at, at, hits))
        else:
            first_at, last_at = min(before.first_at, at), max(before.last_at, at)
            self.used.set(name, Used(first_at, last_at, before.hits + hits, before.untagged_at))

    def seen(self, name: str, now: float) -> Used:
        """The uses of a name that there is; it is first seen now when it was never seen before."""
        self._live.add(name)
        used = self.used.get(name)
        if used is None:
            used = Used(now, 0.0, 0)
            self.used.set(name, used)
        return used

    def untag(self, name: str, now: float) -> None:
        """Notes that a retention takes the tag of a manifest now."""
        used = self.seen(name, now)
        self.used.set(name, Used(used.first_at, used.last_at, used.hits, now))

    async def save(self, now: float) -> None:
        """Writes the totals, then removes the flushes that are in them."""
        for name in list(self.used):
            used = self.used.get(name)
            if used is not None and name not in self._live and now - used.last_at > REMEMBERED_S:
                self.used.remove(name)
        await self.used.save()
        await together((partial(self._store.remove, name) for name in self._merged), PARALLEL)
        self._merged = []
