"""What of a cache is kept: limits by prefix, and the decision over the entries that there are.

The last use of an entry counts, and where it was never used, when it was pushed. When bytes bind, those entries go
first that save the least time for each byte: the seconds that their step took, times how often they are used.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cache.units import parse_bytes, parse_seconds
from cache.upkeep.entry_table import EntryTable

PIECE = 4096

_EXPECTED = "expected PREFIX LIMIT[,LIMIT...] with limits idle=, age=, bytes= and entries=, for example"
_EXAMPLE = f"{_EXPECTED} 'cache idle=14d,bytes=50GB,entries=10000'"


class Reason(Enum):
    """Why an entry goes."""

    IDLE = "idle"
    AGE = "age"
    BYTES = "bytes"
    ENTRIES = "entries"


RELOAD_S = 20.0
"""How often replicas look whether something was condemned."""
KNOWN_S = 30.0
"""For so long a replica acknowledges pushes by what it has last seen of it."""
GRACE_S = 24 * 3600.0
MIN_GRACE_S = KNOWN_S + 60.0
"""The rest is for a push that has looked at its blobs, and has its manifest still to write."""


def check_grace(grace_s: float) -> float:
    """The grace itself. Raises ValueError for one in which a push might meet a deletion that it has not heard of."""
    if grace_s <= MIN_GRACE_S:
        raise ValueError(f"a grace of {grace_s:g} s is too short: expected more than {MIN_GRACE_S:g} s")
    return grace_s


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of all repositories under ``prefix`` ("" = everywhere) together; None = no such limit."""

    prefix: str
    idle_s: float | None = None
    age_s: float | None = None
    max_bytes: int | None = None
    max_entries: int | None = None

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Limits written as ``PREFIX LIMIT[,LIMIT...]``; the prefix ``*`` is everywhere. Raises ValueError."""
        parts = text.split()
        if len(parts) != 2:
            raise ValueError(f"{text!r}: {_EXAMPLE}")
        said: dict[str, str] = {}
        for item in parts[1].split(","):
            name, equals, value = item.partition("=")
            if not equals or name not in _PARSERS or name in said:
                raise ValueError(f"{text!r}: {item!r} is no limit, or is there twice: {_EXAMPLE}")
            said[name] = value
        prefix = "" if parts[0] == "*" else parts[0].removesuffix("/**").strip("/")
        return cls(
            prefix,
            idle_s=parse_seconds(said["idle"]) if "idle" in said else None,
            age_s=parse_seconds(said["age"]) if "age" in said else None,
            max_bytes=parse_bytes(said["bytes"]) if "bytes" in said else None,
            max_entries=_parse_count(said["entries"]) if "entries" in said else None,
        )

    def covers(self, place: str) -> bool:
        """True when the repository lies under the prefix, component by component."""
        return not self.prefix or f"{place}/".startswith(f"{self.prefix}/")

    @property
    def name(self) -> str:
        """The prefix as it is written."""
        return self.prefix or "*"


_PARSERS = frozenset({"idle", "age", "bytes", "entries"})


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not int(text):
        raise ValueError(f"{text!r} is not a number of entries: expected 1 or more")
    return int(text)


def retention_of(retentions: Sequence[Retention], place: str) -> Retention | None:
    """The first that covers the repository; None when nothing limits it."""
    return next((each for each in retentions if each.covers(place)), None)


def expired(retention: Retention, table: EntryTable, now: float) -> Iterator[tuple[int, Reason]]:
    """The rows of the entries that go, each with the first limit that it breaks. ``now`` is in unix seconds."""
    left = array("Q")
    for row in range(len(table)):
        if retention.age_s is not None and now - table.pushed_at[row] > retention.age_s:
            yield row, Reason.AGE
        elif retention.idle_s is not None and now - table.last_at(row) > retention.idle_s:
            yield row, Reason.IDLE
        else:
            left.append(row)
    if retention.max_entries is not None and len(left) > retention.max_entries:
        newest = array("Q", _in_order(left, lambda row: -table.last_at(row)))
        yield from ((row, Reason.ENTRIES) for row in newest[retention.max_entries :])
        left = newest[: retention.max_entries]
    if retention.max_bytes is not None:
        yield from ((row, Reason.BYTES) for row in _over(left, table, retention.max_bytes))


def _over(rows: array[int], table: EntryTable, max_bytes: int) -> Iterator[int]:
    """The least valuable ones that must go for the others to fit."""
    excess_bytes = sum(table.sizes_bytes[row] for row in rows) - max_bytes
    if excess_bytes <= 0:
        return
    for row in _in_order(rows, lambda row: (table.value(row), table.last_at(row))):
        if excess_bytes <= 0:
            return
        excess_bytes -= table.sizes_bytes[row]
        yield row


def _in_order(rows: array[int], key: Callable[[int], Any]) -> Iterator[int]:
    """The rows by their keys. Sorted in pieces: sorting a million at once would hold up all that runs beside it."""
    pieces = (sorted(rows[start : start + PIECE], key=key) for start in range(0, len(rows), PIECE))
    return heapq.merge(*pieces, key=key)


def keeps_untagged(retention: Retention, first_at: float, used_at: float, untagged_at: float, now: float) -> bool:
    """Whether a manifest that no tag leads to stays, by when it was first seen and last used.

    One whose tag a retention has taken (``untagged_at``, 0 = none has) goes unless it was used since.
    """
    if untagged_at and used_at <= untagged_at:
        return False
    if retention.age_s is not None and now - first_at > retention.age_s:
        return False
    return retention.idle_s is None or now - max(first_at, used_at) <= retention.idle_s
