"""Sets of digests that hold millions: eight bytes each.

A mark is the first eight bytes of a digest. Two digests with the same mark are taken for one, and then the one that
nobody needs is kept as long as the other: a collision costs space and never content. By chance there is one in some
hundred billion such stores.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from cache.oci.digest import Digest

_SHARDS = 256
_LEAST_PENDING = 512


def mark(digest: Digest) -> int:
    """The mark of a digest."""
    return int(digest.hex[:16], 16)


def mark_of(packed: bytes) -> int:
    """The mark of the digest that has these bytes."""
    return int.from_bytes(packed[:8])


class Marks:
    """A growing set of marks: sorted arrays, one for each first byte, and what has not been sorted in yet."""

    def __init__(self, marks: Iterable[int] = ()) -> None:
        self._sorted = [array("Q") for _ in range(_SHARDS)]
        self._pending: list[set[int]] = [set() for _ in range(_SHARDS)]
        for each in marks:
            self.add(each)

    def add(self, mark: int) -> bool:
        """Adds a mark; False when it was there."""
        if mark in self:
            return False
        shard = mark >> 56
        pending = self._pending[shard]
        pending.add(mark)
        if len(pending) >= max(_LEAST_PENDING, len(self._sorted[shard]) // 4):
            self._sorted[shard] = array("Q", sorted([*self._sorted[shard], *pending]))
            pending.clear()
        return True

    def __contains__(self, mark: int) -> bool:
        shard = mark >> 56
        if mark in self._pending[shard]:
            return True
        found = self._sorted[shard]
        place = bisect_left(found, mark)
        return place < len(found) and found[place] == mark

    def __len__(self) -> int:
        return sum(map(len, self._sorted)) + sum(map(len, self._pending))
