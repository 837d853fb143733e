"""Entries by the million, in columns: what a retention judges, in some two hundred bytes each.

An entry is a tag, or a step of a builder's local cache.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from cache.upkeep.digests import Digests

ASSUMED_S = 10.0
"""What a step took whose entry does not say it, as Kaniko's do not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry by its record's ``name``, with what is known of it; times are unix seconds."""

    name: str
    size_bytes: int
    pushed_at: float
    used_at: float
    hits: int = 0
    seconds: float = 0.0

    @property
    def last_at(self) -> float:
        """When it was used last, or pushed."""
        return max(self.pushed_at, self.used_at)


class EntryTable:
    """Entries, by their row, each at the version at which its record was read.

    ``manifests`` are those that tags lead to, ``blobs`` the layers of steps, with the entries' rows as their numbers.
    """

    def __init__(self) -> None:
        self._texts = bytearray()
        self._ends = array("Q")
        self._hits = array("Q")
        self._seconds = array("d")
        self.sizes_bytes = array("Q")
        self.pushed_at = array("d")
        self.used_at = array("d")
        self.manifests = Digests()
        self.blobs = Digests()

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, entry: Entry, version: str = "") -> int:
        """Adds an entry, and returns its row."""
        self._texts += f"{entry.name}\n{version}".encode()
        self._ends.append(len(self._texts))
        self._hits.append(entry.hits)
        self._seconds.append(entry.seconds)
        self.sizes_bytes.append(entry.size_bytes)
        self.pushed_at.append(entry.pushed_at)
        self.used_at.append(entry.used_at)
        return len(self) - 1

    def weigh(self, row: int, size_bytes: int, seconds: float) -> None:
        """Notes what is learned of an entry from its manifest."""
        self.sizes_bytes[row] = size_bytes
        self._seconds[row] = seconds

    def entry(self, row: int) -> Entry:
        """The entry as it was added."""
        name, _ = self._text(row)
        times = self.pushed_at[row], self.used_at[row]
        return Entry(name, self.sizes_bytes[row], *times, self._hits[row], self._seconds[row])

    def version(self, row: int) -> str:
        """The version of its record."""
        return self._text(row)[1]

    def _text(self, row: int) -> tuple[str, str]:
        start = self._ends[row - 1] if row else 0
        name, _, version = self._texts[start : self._ends[row]].decode().partition("\n")
        return name, version

    def last_at(self, row: int) -> float:
        """When it was used last, or pushed."""
        return max(self.pushed_at[row], self.used_at[row])

    def value(self, row: int) -> float:
        """The seconds that it has saved for each of its bytes; its first use is yet to come."""
        return (self._seconds[row] or ASSUMED_S) * (1 + self._hits[row]) / max(1, self.sizes_bytes[row])
