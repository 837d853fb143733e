"""Work that must not take all of a disk or a network: so many bytes a second on the average, and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Lets ``bytes_per_second`` pass, None = as fast as it goes. What was not used is not saved up."""

    def __init__(
        self,
        bytes_per_second: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError(f"a rate is more than nothing, got {bytes_per_second}")
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    async def spend(self, size_bytes: int) -> None:
        """Returns when so many bytes may have passed."""
        if self._bytes_per_second is None:
            return
        self._free_at = max(self._free_at, self._clock()) + size_bytes / self._bytes_per_second
        await self._sleep(self._free_at - self._clock())
