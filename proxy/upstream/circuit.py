"""A circuit breaker as a value: an upstream that does not answer is left alone for a short, growing time.

While the circuit is open requests fail at once, so that whoever can be answered with something older is, and whoever
cannot tries elsewhere. When the time is over one request at a time is let through to see whether the upstream is back.
Every change gives a new value; what time it is comes in from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TIMED_OUT = 4
"""Somebody has waited for it already: that is enough."""
NOT_REACHED = 2
"""Once may be a connection that was closed while it was idle."""
SERVER_ERROR = 1
"""A 5xx: perhaps of one repository alone."""
ENOUGH = 4
"""The weight of failures, without a success between them, that opens the circuit."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a circuit stays open: ``first_s``, doubled each time that trying again fails, up to ``limit_s``.

    ``probe_s`` is how long the outcome of a trial is awaited before there is another.
    """

    first_s: float = 0.5
    limit_s: float = 30.0
    probe_s: float = 15.0

    def open_s(self, times: int) -> float:
        """For how long it opens the ``times``-th time in a row."""
        return min(self.limit_s, self.first_s * 2.0 ** min(times - 1, 30))


@dataclass(frozen=True, slots=True)
class Circuit:
    """``weight`` of failures since the last success; how many ``times`` it has opened since, and until when."""

    weight: int = 0
    times: int = 0
    open_until: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long requests are still refused; 0 = one may be let through."""
        return max(0.0, self.open_until - now) if self.times else 0.0

    def entered(self, now: float, pace: Pace) -> Circuit:
        """After a request was let through: while the circuit was open that was a trial, and the others wait for it."""
        return replace(self, open_until=now + pace.probe_s) if self.times else self

    def failed(self, weight: int, now: float, pace: Pace, asked_s: float = 0.0) -> Circuit:
        """After a failure of this ``weight``; ``asked_s`` is how long the upstream asked to be left alone."""
        heavier = self.weight + weight
        if heavier < ENOUGH and not self.times and not asked_s:
            return replace(self, weight=heavier)
        open_s = max(pace.open_s(self.times + 1), min(asked_s, pace.limit_s))
        return Circuit(heavier, self.times + 1, now + open_s)


CLOSED = Circuit()
"""An upstream that works, as far as is known."""
