"""Once per key at a time: who asks while the answer is being made waits for that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Work under keys. It belongs to the flight and not to the caller who came first: it goes on when they leave.

    Nothing is kept: the next call after the work has ended starts it anew.
    """

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, factory: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of ``factory()``, or of the one that is under way for ``key``; every caller gets its exception.

        Cancelling a caller cancels its waiting only.
        """
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(factory())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        # Not shield(): that reports the exception of work that nobody waits for any more as unhandled.
        await asyncio.wait([task])
        return task.result()

    async def close(self) -> None:
        """Cancels all work, and returns when it has ended; its callers see CancelledError."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        """How many keys are being worked on."""
        return len(self._tasks)

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # marks it as seen: all callers may have left
