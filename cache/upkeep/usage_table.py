"""Uses by the million, by a hash of the name that was used: some fifty bytes each.

The hash has eight bytes: by chance two names share one in some hundred billion such stores, and are then used as one.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

import msgspec

from cache.upkeep.uses import Used

SHARDS = 256
_LEAST_PENDING = 64


def name_mark(name: str) -> int:
    """The hash of a name; its first byte is its shard."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A shard as its record holds it: columns, in the order of the marks."""

    marks: list[int]
    first_at: list[float]
    last_at: list[float]
    hits: list[int]
    untagged_at: list[float]


class UsageShard:
    """The uses of the names in one shard: sorted columns, and what has not been sorted in yet."""

    def __init__(self) -> None:
        self._marks = array("Q")
        self._first_at = array("d")
        self._last_at = array("d")
        self._hits = array("Q")
        self._untagged_at = array("d")
        self._live = bytearray()
        self._pending: dict[int, Used] = {}
        self._pending_live: set[int] = set()
        self.changed = False

    @classmethod
    def decode(cls, value: bytes) -> UsageShard:
        """The shard that a record holds. Raises msgspec.DecodeError."""
        stored = msgspec.msgpack.decode(value, type=_Stored)
        lengths = {len(column) for column in msgspec.structs.astuple(stored)}
        if len(lengths) != 1 or any(a >= b for a, b in zip(stored.marks, stored.marks[1:], strict=False)):
            raise msgspec.DecodeError("the columns are not of one length, or not in order")
        shard = cls()
        shard._marks.extend(stored.marks)
        shard._first_at.extend(stored.first_at)
        shard._last_at.extend(stored.last_at)
        shard._hits.extend(stored.hits)
        shard._untagged_at.extend(stored.untagged_at)
        shard._live.extend(bytes(len(stored.marks)))
        return shard

    def encode(self) -> bytes:
        """What a record holds of it."""
        self._merge()
        times = list(self._first_at), list(self._last_at)
        return msgspec.msgpack.encode(_Stored(list(self._marks), *times, list(self._hits), list(self._untagged_at)))

    def __len__(self) -> int:
        return len(self._marks) + len(self._pending)

    def get(self, mark: int) -> Used | None:
        """The uses of a name; None when there are none."""
        row = self._row(mark)
        if row is None:
            return self._pending.get(mark)
        return Used(self._first_at[row], self._last_at[row], self._hits[row], self._untagged_at[row])

    def set(self, mark: int, used: Used) -> None:
        """Notes the uses of a name."""
        self.changed = True
        row = self._row(mark)
        if row is not None:
            self._first_at[row], self._last_at[row] = used.first_at, used.last_at
            self._hits[row], self._untagged_at[row] = used.hits, used.untagged_at
            return
        self._pending[mark] = used
        if len(self._pending) > max(_LEAST_PENDING, len(self._marks) // 4):
            self._merge()

    def touch(self, mark: int) -> None:
        """Notes that there is something of this name."""
        row = self._row(mark)
        if row is not None:
            self._live[row] = 1
        elif mark in self._pending:
            self._pending_live.add(mark)

    def forget_unused_since(self, moment: float) -> None:
        """Forgets the names of which nothing is there, and that have not been used since (unix seconds)."""
        self._merge()
        kept = [row for row in range(len(self._marks)) if self._live[row] or self._last_at[row] >= moment]
        if len(kept) < len(self._marks):
            self._keep(kept)
            self.changed = True

    def _row(self, mark: int) -> int | None:
        row = bisect_left(self._marks, mark)
        return row if row < len(self._marks) and self._marks[row] == mark else None

    def _merge(self) -> None:
        if not self._pending:
            return
        for mark, used in self._pending.items():
            self._marks.append(mark)
            self._first_at.append(used.first_at)
            self._last_at.append(used.last_at)
            self._hits.append(used.hits)
            self._untagged_at.append(used.untagged_at)
            self._live.append(mark in self._pending_live)
        self._pending, self._pending_live = {}, set()
        self._keep(sorted(range(len(self._marks)), key=self._marks.__getitem__))

    def _keep(self, rows: list[int]) -> None:
        """Keeps these rows, in this order."""
        self._marks = array("Q", [self._marks[row] for row in rows])
        self._first_at = array("d", [self._first_at[row] for row in rows])
        self._last_at = array("d", [self._last_at[row] for row in rows])
        self._hits = array("Q", [self._hits[row] for row in rows])
        self._untagged_at = array("d", [self._untagged_at[row] for row in rows])
        self._live = bytearray([self._live[row] for row in rows])
