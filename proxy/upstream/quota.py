"""An upstream's rate limit for one account, as a value: what it said is left, and what is spent since.

Read from ``ratelimit-limit`` and ``ratelimit-remaining`` (``100;w=21600``: so many manifests in so many seconds) and
from ``Retry-After``. Docker Hub counts GETs of manifests; asking with HEAD is free and says what is left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.upstream.circuit import Pace

RESERVE = 0.25
"""The part of a limit that is kept from those who can wait."""
BELIEVED_S = 60.0
"""How long "nothing left" is believed without asking again."""
WINDOW_S = 3600.0
"""The window of a limit that does not name one."""
MAX_CLOSED_S = 6 * 3600.0
PATIENT_WAIT_S = 900.0
"""The longest that those who can wait are told to."""
_STATED = re.compile(r"\s*(\d{1,9})\s*(?:;\s*w\s*=\s*(\d{1,9}))?\s*(?:[;,].*)?")


@dataclass(frozen=True, slots=True)
class Quota:
    """What is known: ``remaining`` of ``limit`` (None = not said) at ``said_at``, in a window of ``window_s`` seconds.

    ``pending`` requests count against the limit and have no reply yet. Until ``closed_until`` the account is refused;
    it was ``refusals`` times in a row.
    """

    limit: int | None = None
    remaining: int | None = None
    window_s: float = WINDOW_S
    said_at: float = 0.0
    pending: int = 0
    closed_until: float = 0.0
    refusals: int = 0

    def left(self, now: float) -> int | None:
        """How many requests may still be made; None = not known."""
        if self.remaining is None or now - self.said_at >= self.window_s:
            return None
        return self.remaining - self.pending

    def wait_s(self, now: float, costs: bool, patient: bool) -> float:
        """How long a request has to wait; 0 = it may be made now.

        ``costs`` = it counts against the limit; ``patient`` = it is for somebody who leaves the reserve to others.
        """
        if now < self.closed_until:
            return self.closed_until - now
        left = self.left(now)
        if not costs or left is None:
            return 0.0
        if patient and self.limit is not None and left < self.limit * RESERVE:
            return max(1.0, min(PATIENT_WAIT_S, self.said_at + self.window_s - now))
        return max(0.0, self.said_at + BELIEVED_S - now) if left <= 0 else 0.0

    def spent(self, now: float) -> Quota:
        """After a request that counts was made. One that is made with nothing left is a trial; others wait for it."""
        left = self.left(now)
        said_at = now if left is not None and left <= 0 else self.said_at
        return replace(self, pending=self.pending + 1, said_at=said_at)

    def settled(self) -> Quota:
        """After the reply to a request that counts has come, or will not come any more."""
        return replace(self, pending=max(0, self.pending - 1))

    def stated(self, headers: Mapping[str, str], now: float) -> Quota:
        """After a reply with these headers; what they do not say stays."""
        limit, remaining = _read(headers, "ratelimit-limit"), _read(headers, "ratelimit-remaining")
        if remaining is None:
            return self
        window_s = float(remaining[1] or (limit[1] if limit else None) or WINDOW_S)
        return replace(
            self, limit=limit[0] if limit else self.limit, remaining=remaining[0], window_s=window_s, said_at=now
        )

    def refused(self, asked_s: float | None, now: float, pace: Pace) -> Quota:
        """After a 429: closed for as long as it asks; for a short, growing time when it does not say."""
        closed_s = min(asked_s, MAX_CLOSED_S) if asked_s is not None else pace.open_s(self.refusals + 1)
        return replace(self, closed_until=now + closed_s, refusals=self.refusals + 1)

    def served(self) -> Quota:
        """After a reply that was no 429."""
        return replace(self, refusals=0) if self.refusals else self


def _read(headers: Mapping[str, str], name: str) -> tuple[int, int | None] | None:
    """The number and the window in seconds of one header; None when it is not there or says something else."""
    match = _STATED.fullmatch(headers.get(name, ""))
    return (int(match[1]), int(match[2]) if match[2] else None) if match else None
