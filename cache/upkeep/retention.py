"""What of a cache is kept: limits by prefix, and the decision over the entries that there are.

An entry is a tag, or a step of a builder's local cache. Its last use counts, and where it was never used, when it was
pushed. When bytes bind, those entries go first that save the least time for each byte: the seconds that their step
took, times how often they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from cache.units import parse_bytes, parse_seconds

ASSUMED_S = 10.0
"""What a step took whose entry does not say it, as Kaniko's do not."""

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

    @property
    def value(self) -> float:
        """The seconds that it has saved for each of its bytes; its first use is yet to come."""
        return (self.seconds or ASSUMED_S) * (1 + self.hits) / max(1, self.size_bytes)


def expired(retention: Retention, entries: Iterable[Entry], now: float) -> Iterator[tuple[Entry, Reason]]:
    """The entries that go, each with the first limit that it breaks. ``now`` is in unix seconds."""
    left: list[Entry] = []
    for entry in entries:
        if retention.age_s is not None and now - entry.pushed_at > retention.age_s:
            yield entry, Reason.AGE
        elif retention.idle_s is not None and now - entry.last_at > retention.idle_s:
            yield entry, Reason.IDLE
        else:
            left.append(entry)
    if retention.max_entries is not None and len(left) > retention.max_entries:
        left.sort(key=lambda entry: entry.last_at, reverse=True)
        yield from ((entry, Reason.ENTRIES) for entry in left[retention.max_entries :])
        del left[retention.max_entries :]
    if retention.max_bytes is not None:
        yield from ((entry, Reason.BYTES) for entry in _over(left, retention.max_bytes))


def _over(entries: list[Entry], max_bytes: int) -> Iterator[Entry]:
    """The least valuable ones that must go for the others to fit."""
    excess_bytes = sum(entry.size_bytes for entry in entries) - max_bytes
    for entry in sorted(entries, key=lambda entry: (entry.value, entry.last_at)):
        if excess_bytes <= 0:
            return
        excess_bytes -= entry.size_bytes
        yield entry


def keeps_untagged(retention: Retention, first_at: float, used_at: float, untagged_at: float, now: float) -> bool:
    """Whether a manifest that no tag leads to stays, by when it was first seen and last used.

    One whose tag a retention has taken (``untagged_at``, 0 = none has) goes unless it was used since.
    """
    if untagged_at and used_at <= untagged_at:
        return False
    if retention.age_s is not None and now - first_at > retention.age_s:
        return False
    return retention.idle_s is None or now - max(first_at, used_at) <= retention.idle_s
