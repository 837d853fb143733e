"""Removes the entries that break a limit, each only as it was when it was judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from functools import partial

from cache.errors import RecordConflict
from cache.oci.digest import Digest
from cache.store import Store
from cache.together import together
from cache.upkeep.entries import Entries, Found
from cache.upkeep.gc_report import Report
from cache.upkeep.retention import Reason, Retention, expired

PARALLEL = 16


class Expiry:
    """Judges all entries of a store. ``now`` is in unix seconds."""

    def __init__(self, store: Store, entries: Entries, report: Report, now: float, dry_run: bool) -> None:
        self._store = store
        self._entries = entries
        self._report = report
        self._now = now
        self._dry_run = dry_run
        self.gone: set[Digest] = set()
        """What the entries led to that have been removed."""

    async def kept(self) -> AsyncIterator[Found]:
        """The entries that stay, once the others have been removed. Raises StoreUnavailable."""
        limited: dict[Retention, dict[str, Found]] = defaultdict(dict)
        async for found in self._entries.all():
            if found.retention is None:
                yield found
            else:
                limited[found.retention][found.entry.name] = found
        for retention, by_name in limited.items():
            async for found in self._judge(retention, by_name):
                yield found

    async def _judge(self, retention: Retention, by_name: dict[str, Found]) -> AsyncIterator[Found]:
        report = self._report.prefix(retention.name)
        going = list(expired(retention, (found.entry for found in by_name.values()), self._now))
        removals = (partial(self._remove, by_name.pop(entry.name), reason) for entry, reason in going)
        for again in await together(removals, PARALLEL):
            if again is not None:
                by_name[again.entry.name] = again
        for found in by_name.values():
            report.keep(found.entry)
            yield found

    async def _remove(self, found: Found, reason: Reason) -> Found | None:
        """Removes an entry; returns it as it is now when somebody has written it since it was read."""
        if not self._dry_run:
            try:
                await self._store.remove(found.entry.name, found.version)
            except RecordConflict:
                return await self._entries.again(found)
        self._report.prefix(_name(found)).expire(found.entry, reason)
        if found.target is not None:
            self.gone.add(found.target)
        return None


def _name(found: Found) -> str:
    return found.retention.name if found.retention is not None else ""
