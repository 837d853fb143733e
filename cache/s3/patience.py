"""How often and how long a request to S3 is tried again: pure decisions.

Two kinds of requests differ: those that somebody waits for get a few quick attempts, since seconds of waiting are worse
than an error that the caller can serve around; bytes on their way in the background get a long breath. All draw on one
budget of retries, so that a server in trouble is not asked several times as often by all of us.
"""

from __future__ import annotations

from dataclasses import dataclass

RETRY_COST = 5
RETRY_BUDGET = 500
"""As in the AWS tools' standard mode: a retry costs 5 of 500, every success gives one back."""

MIN_RATE_BYTES_S = 256 * 1024
"""Slower than that, an upload counts as stuck."""


@dataclass(frozen=True, slots=True)
class Patience:
    """``attempts`` in all; pauses that double from ``first_s`` up to ``limit_s``; ``answer_s`` for one attempt."""

    attempts: int
    first_s: float
    limit_s: float
    answer_s: float

    def pause_s(self, failed: int, jitter: float) -> float | None:
        """The pause after ``failed`` attempts in seconds, None = give up. ``jitter`` is random, from 0 to 1: replicas
        must not come back all at once, so it takes up to half of the pause."""
        if failed >= self.attempts:
            return None
        return min(self.limit_s, self.first_s * 2.0 ** (failed - 1)) * (1 - jitter / 2)

    @property
    def longest_pause_s(self) -> float:
        """The sum of all pauses at the most."""
        return sum(self.pause_s(failed, 0.0) or 0.0 for failed in range(1, self.attempts))

    def attempt_s(self, body_bytes: int) -> float:
        """How long one attempt may take that sends a body of this size."""
        return self.answer_s + body_bytes / MIN_RATE_BYTES_S


INTERACTIVE = Patience(attempts=3, first_s=0.1, limit_s=0.4, answer_s=5.0)
"""For what a client waits for: at most 0.3 s are spent on pauses."""

BULK = Patience(attempts=6, first_s=0.25, limit_s=8.0, answer_s=60.0)
"""For bytes on their way in, and for maintenance."""


class RetryBudget:
    """What retries may still cost, shared by all requests of a store."""

    def __init__(self) -> None:
        self._left = RETRY_BUDGET

    def take(self) -> bool:
        """Pays for one retry; False when nothing is left for it."""
        if self._left < RETRY_COST:
            return False
        self._left -= RETRY_COST
        return True

    def succeeded(self) -> None:
        """Gives back a little."""
        self._left = min(RETRY_BUDGET, self._left + 1)


class Window:
    """How many parts may be on their way at a time: one fewer half when the server wants less, slowly more again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)

    @property
    def limit(self) -> int:
        """How many now, at least one."""
        return int(self._limit)

    def throttled(self) -> None:
        """Halves the limit."""
        self._limit = max(1.0, self._limit / 2)

    def succeeded(self) -> None:
        """Widens the limit by one for every whole window that went well."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
