"""Coming to an end without breaking what runs.

Told to stop, the proxy says so to its load balancer, begins no new uploads and lets go of each connection after the
reply on it. Once nobody is waited for, or the time is over, it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BALANCER_S = 5.0
"""How long connections still come after a balancer could know that none should; at most a quarter of all the time."""
PROBED_S = 60.0
TICK_S = 0.05


class Drain:
    """Whether the proxy is ending, and what it still does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = clock()
        self._probed_at: float | None = None
        self.draining = False
        self.requests = 0
        """Requests being answered."""

    @property
    def up_s(self) -> float:
        """How long the proxy has been there."""
        return self._clock() - self._started_at

    def probed(self) -> None:
        """Notes that somebody asked whether the proxy is ready: there is a load balancer."""
        self._probed_at = self._clock()

    def balancer_s(self, limit_s: float) -> float:
        """How long to go on taking connections: only where a balancer looks at our readiness does that help anybody."""
        probed = self._probed_at is not None and self._clock() - self._probed_at < PROBED_S
        return min(BALANCER_S, limit_s / 4) if probed else 0.0

    async def idle(self, uploads: Callable[[], int], limit_s: float) -> bool:
        """Returns True when no request runs and no upload is under way, False when that lasts longer than the limit."""
        until = self._clock() + limit_s
        while self.requests or uploads():
            if self._clock() >= until:
                return False
            await asyncio.sleep(TICK_S)
        return True
