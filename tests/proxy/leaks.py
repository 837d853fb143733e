"""What a finished transfer must not leave behind: files, descriptors, tasks."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path


async def until(condition: Callable[[], object], within_s: float = 10) -> None:
    """Returns when the condition holds. Raises TimeoutError when it does not."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def incoming(store: Path) -> list[str]:
    """The files of a store's blobs that are on their way in."""
    directory = store / "v1/incoming"
    return os.listdir(directory) if directory.exists() else []


def spools() -> list[str]:
    """What the descriptors of this process refer to, as far as it could be a spool."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the one that lists
            continue
        if "(deleted)" in target or "/incoming/" in target or "/blobs/" in target:
            found.append(target)
    return found


def transfers() -> list[str]:
    """The tasks that carry blobs."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().split()[0] in ("fill", "push")]


@asynccontextmanager
async def nothing_left(store: Path) -> AsyncIterator[None]:
    """After the block, soon, no spool is left: no file, no descriptor, no task."""
    before = Counter(spools())
    yield

    def is_clean() -> bool:
        return not incoming(store) and not transfers() and not Counter(spools()) - before

    try:
        try:
            await until(is_clean, within_s=1)
        except TimeoutError:
            gc.collect()  # a cycle may hold a descriptor; looking for one is slow in a large process
            await until(is_clean)
    except TimeoutError:
        raise AssertionError(f"left: {incoming(store)}, {Counter(spools()) - before}, {transfers()}") from None
