"""How a request was answered, as a value, and the headers that say so to the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Cached(Enum):
    """What the cache had to do with an answer; the value is what ``X-Cache`` says."""

    HIT = "hit"
    """It held it, and an upstream that may judge it agreed, now or a short time ago."""
    MISS = "miss"
    """The upstream was asked for it."""
    STALE = "stale"
    """It held it, and the upstream that should have been asked could not answer."""
    BYPASS = "bypass"
    """Nothing: this is not cached."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``age_s`` is how many seconds ago a tag was last checked (None = no tag); ``why`` is said of what is stale."""

    cached: Cached
    age_s: float | None = None
    why: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """``X-Cache``, and ``Age`` and ``Warning`` (RFC 9111; 110 is "response is stale") where they have a meaning."""
        said = {"X-Cache": self.cached.value}
        if self.age_s is not None:
            said["Age"] = str(max(0, int(self.age_s)))
        if self.cached is Cached.STALE:
            said["Warning"] = f'110 - "{_quotable(self.why)}"'
        return said


HIT = Outcome(Cached.HIT)
MISS = Outcome(Cached.MISS)
BYPASS = Outcome(Cached.BYPASS)


def _quotable(text: str) -> str:
    """One line of ASCII that may stand between quotes in a header."""
    return "".join(char if char.isascii() and char.isprintable() and char not in '"\\' else "?" for char in text)
