"""What a cache of bounded size holds, and what has to go: least recently used first, never what is being read.

Pure: it knows keys and sizes, and nothing of files.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Marks:
    """Above ``high_bytes`` it is made room, down to ``low_bytes``: not for every new entry, but for many at once."""

    high_bytes: int
    low_bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.low_bytes <= self.high_bytes:
            raise ValueError(f"expected 0 <= low <= high, got low {self.low_bytes} and high {self.high_bytes}")

    @classmethod
    def below(cls, size_bytes: int) -> Marks:
        """The marks of a cache that never holds more than ``size_bytes``: the low one a tenth lower."""
        return cls(size_bytes, size_bytes - size_bytes // 10)


def plan_eviction(
    entries: Iterable[tuple[K, int]], held_bytes: int, wanted_bytes: int, marks: Marks, pinned: Container[K]
) -> list[K] | None:
    """The keys that have to go so that ``wanted_bytes`` more fit; None when that cannot be.

    ``entries`` are keys with their sizes, least recently used first; ``held_bytes`` is what counts now.
    """
    if held_bytes + wanted_bytes <= marks.high_bytes:
        return []
    going: list[K] = []
    left_bytes = held_bytes + wanted_bytes
    for key, size_bytes in entries:
        if left_bytes <= marks.low_bytes:
            break
        if key not in pinned:
            going.append(key)
            left_bytes -= size_bytes
    return going if left_bytes <= marks.high_bytes else None


class Index(Generic[K]):
    """Keys with their sizes, in the order of their last use, and room that is promised to entries on their way in."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._sizes: OrderedDict[K, int] = OrderedDict()
        self._entries_bytes = 0
        self._reserved_bytes = 0
        self._pins: Counter[K] = Counter()

    @property
    def held_bytes(self) -> int:
        """The size of all entries, and of what is on its way in."""
        return self._entries_bytes + self._reserved_bytes

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._sizes)

    def keys(self) -> list[K]:
        """All keys, least recently used first."""
        return list(self._sizes)

    def use(self, key: K) -> int | None:
        """The entry's size, which counts as used just now; None when there is none."""
        if key in self._sizes:
            self._sizes.move_to_end(key)
        return self._sizes.get(key)

    def size_bytes(self, key: K) -> int | None:
        """The entry's size; None when there is none."""
        return self._sizes.get(key)

    def pin(self, key: K) -> None:
        """Keeps the entry until it is unpinned as often."""
        self._pins[key] += 1

    def unpin(self, key: K) -> None:
        """Takes back one ``pin``."""
        self._pins[key] -= 1
        if not self._pins[key]:
            del self._pins[key]

    def reserve(self, size_bytes: int) -> list[K] | None:
        """Promises room, and forgets the entries it returns, which have to go for that; None when there is no room."""
        going = self._forget(size_bytes, self._marks)
        if going is not None:
            self._reserved_bytes += size_bytes
        return going

    def shrink(self, size_bytes: int) -> list[K]:
        """Forgets the entries it returns, which have to go so that so much becomes free, or as much as can."""
        marks = Marks(self.held_bytes, max(0, self.held_bytes - size_bytes))
        return self._forget(1, marks) or []

    def release(self, size_bytes: int) -> None:
        """Takes back a promise."""
        self._reserved_bytes -= size_bytes

    def add(self, key: K, size_bytes: int) -> None:
        """Makes an entry, just used, of room that was promised."""
        self.release(size_bytes)
        self.remove(key)
        self._sizes[key] = size_bytes
        self._entries_bytes += size_bytes

    def remove(self, key: K) -> bool:
        """Forgets an entry; False when there is none."""
        size_bytes = self._sizes.pop(key, None)
        self._entries_bytes -= size_bytes or 0
        return size_bytes is not None

    def found(self, entries: Iterable[tuple[K, int]]) -> list[K]:
        """Takes in what was there before, least recently used first: all of it older than what was added meanwhile.

        Returns what has to go, as ``reserve`` does.
        """
        newer = self._sizes
        self._sizes = OrderedDict((key, size_bytes) for key, size_bytes in entries if key not in newer)
        self._sizes.update(newer)
        self._entries_bytes = sum(self._sizes.values())
        return self._forget(0, self._marks) or []

    def _forget(self, wanted_bytes: int, marks: Marks) -> list[K] | None:
        going = plan_eviction(self._sizes.items(), self.held_bytes, wanted_bytes, marks, self._pins)
        for key in going or ():
            self.remove(key)
        return going
