"""Several pieces of work at once, with a limit; the first failure ends the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def together(work: Iterable[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """What each piece of work returns, in order, with at most ``limit`` running at a time.

    Raises the first failure itself, once all the rest has been cancelled and has ended.
    """
    slots = asyncio.Semaphore(limit)

    async def run(piece: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await piece()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(piece)) for piece in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
