"""When to try again: a pure back-off schedule, and what ``Retry-After`` means (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Backoff:
    """``tries`` attempts in all; the pause before the next grows from ``first_s`` by ``factor``, up to ``limit_s``."""

    tries: int = 3
    first_s: float = 1.0
    factor: float = 3.0
    limit_s: float = 30.0

    def __post_init__(self) -> None:
        if self.tries < 1 or self.first_s < 0 or self.factor < 1 or self.limit_s < 0:
            raise ValueError(f"not a back-off schedule: {self}")

    @property
    def for_resuming(self) -> Backoff:
        """For taking up again what has partly come and would be lost: three times as many tries, if any."""
        return self if self.tries == 1 else replace(self, tries=3 * self.tries)

    def delay_s(self, failed: int, asked_s: float | None = None, jitter: float = 0.0) -> float | None:
        """The pause in seconds after ``failed`` failed attempts; None when it is time to give up.

        ``asked_s`` is what the server asked for: never waited less, and when it is more than ``limit_s`` the server
        says that trying is of no use now. ``jitter`` (0 to 1) shortens our own pause by up to a quarter.
        """
        if failed >= self.tries or (asked_s is not None and asked_s > self.limit_s):
            return None
        own = min(self.limit_s, self.first_s * self.factor ** (failed - 1))
        return max(asked_s or 0.0, own * (1 - jitter / 4))


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After`` header; None when there is none that can be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when - now).total_seconds()) if when.tzinfo is not None else None
