"""Work that must not take all of a disk, a network or a bucket: so much a second on the average, and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Lets ``per_second`` bytes or requests pass, None = as fast as it goes. What was not used is not saved up."""

    def __init__(
        self,
        per_second: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if per_second is not None and per_second <= 0:
            raise ValueError(f"a rate is more than nothing, got {per_second}")
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    async def spend(self, amount: int) -> None:
        """Returns when so many bytes or requests may have passed."""
        if self._per_second is None:
            return
        self._free_at = max(self._free_at, self._clock()) + amount / self._per_second
        await self._sleep(self._free_at - self._clock())
