"""What a run of gc did, or would do: as a value, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from cache.units import told_bytes, told_seconds
from cache.upkeep.entry_table import Entry
from cache.upkeep.retention import Reason

LARGEST = 5


@dataclass(slots=True)
class PrefixReport:
    """What became of the entries under one retention; ``largest`` are those that are kept, as (bytes, name)."""

    kept: int = 0
    kept_bytes: int = 0
    expired: Counter[str] = field(default_factory=Counter)
    expired_bytes: int = 0
    largest: list[tuple[int, str]] = field(default_factory=list)

    def keep(self, entry: Entry) -> None:
        """Counts an entry that stays."""
        self.kept += 1
        self.kept_bytes += entry.size_bytes
        if len(self.largest) < LARGEST or entry.size_bytes > self.largest[-1][0]:
            self.largest = sorted([*self.largest, (entry.size_bytes, entry.name)], reverse=True)[:LARGEST]

    def expire(self, entry: Entry, reason: Reason) -> None:
        """Counts an entry that goes."""
        self.expired[reason.value] += 1
        self.expired_bytes += entry.size_bytes


@dataclass(slots=True)
class Report:
    """A run of gc. Entries' bytes count what several share for each of them; ``freed_bytes`` is what the store got
    back.

    ``condemned`` blobs are deleted by a later run, not before ``due_s`` seconds from now; ``unreachable`` is all that
    nothing leads to. ``waiting`` = the run changed nothing, as the grace of an earlier one is not over yet.
    """

    dry_run: bool = False
    waiting: bool = False
    manifests: int = 0
    manifests_read: int = 0
    prefixes: dict[str, PrefixReport] = field(default_factory=dict)
    unreachable: int = 0
    unreachable_bytes: int = 0
    condemned: int = 0
    due_s: float = 0.0
    rescued: int = 0
    freed: int = 0
    freed_bytes: int = 0
    unfinished_batches: int = 0

    def prefix(self, name: str) -> PrefixReport:
        """The report on one retention."""
        return self.prefixes.setdefault(name, PrefixReport())

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        for name, found in sorted(self.prefixes.items()):
            yield f"{name}: kept {found.kept:,} entries, {told_bytes(found.kept_bytes)}"
            if found.expired:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.expired.items()))
                yield f"  expired {found.expired.total():,} ({reasons}), {told_bytes(found.expired_bytes)}"
            yield from (f"  {told_bytes(size_bytes):>9}  {entry}" for size_bytes, entry in found.largest)
        would = "would be " if self.dry_run else ""
        if self.waiting:
            yield f"{self.condemned:,} blobs wait for their deletion, in {told_seconds(self.due_s)} at the earliest"
            return
        yield f"{self.manifests:,} manifests kept, {self.manifests_read:,} read"
        yield f"{self.unreachable:,} blobs are unreachable, {told_bytes(self.unreachable_bytes)}"
        if not self.dry_run:
            yield f"{self.freed:,} blobs deleted, {told_bytes(self.freed_bytes)} freed, {self.rescued:,} spared"
        yield f"{self.condemned:,} blobs {would}condemned, to be deleted in {told_seconds(self.due_s)} at the earliest"
        if self.unfinished_batches:
            yield f"{self.unfinished_batches} batches are left to the next run: the store was too slow"
