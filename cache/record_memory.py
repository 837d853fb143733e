"""Records in memory that may be a little old: bounded by bytes, each for a short time of its own length.

Only for records that are written once and then read often. Those that change are not for it: another replica may have
changed them, and whoever reads them back after an acknowledged change must see it.
"""

from __future__ import annotations

import random

from cachetools import TLRUCache

from cache.store import Record

TTL_S = 30.0
MEMORY_BYTES = 16 << 20
_OVERHEAD_BYTES = 400  # of an entry in Python, about


class RecordMemory:
    """Records by name. Nothing is remembered of what is absent."""

    def __init__(self, limit_bytes: int = MEMORY_BYTES, ttl_s: float = TTL_S) -> None:
        self._ttl_s = ttl_s
        self._changes = 0
        self._records: TLRUCache[str, Record] = TLRUCache(limit_bytes, ttu=self._until, getsizeof=_size_bytes)

    def get(self, name: str) -> Record | None:
        """The record, if it is remembered."""
        return self._records.get(name)

    @property
    def changes(self) -> int:
        """How often something was forgotten: to be read before a record is fetched, and given to ``remember``."""
        return self._changes

    def remember(self, name: str, record: Record, changes: int) -> None:
        """Keeps a record that was fetched, unless something has changed since: perhaps that very record."""
        if changes == self._changes and _size_bytes(record) <= self._records.maxsize:
            self._records[name] = record

    def forget(self, name: str) -> None:
        """Forgets the record, and what others are fetching now."""
        self._changes += 1
        self._records.pop(name, None)

    def _until(self, name: str, record: Record, now: float) -> float:
        """Records that came together must not go together: each stays for half to all of the time."""
        return now + self._ttl_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _size_bytes(record: Record) -> int:
    return len(record.value) + _OVERHEAD_BYTES
