"""Going through the records of a store, many at a time and never all in memory. For maintenance: this lists."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from cache import record_names
from cache.record_names import Named
from cache.store import Store
from cache.together import together

BATCH = 256
PARALLEL_READS = 16
T = TypeVar("T")
U = TypeVar("U")


async def records_below(store: Store, place: str = "") -> AsyncIterator[Named]:
    """The records of all repositories at and below a place ("" = of all there are), in no order.

    Raises StoreUnavailable, and ValueError for what can be no place.
    """
    for prefix in record_names.prefixes(place):
        async for name in store.names(prefix):
            named = record_names.parse(name)
            if named is not None:
                yield named


async def read_each(items: AsyncIterator[T], read: Callable[[T], Awaitable[U]]) -> AsyncIterator[U]:
    """What ``read`` makes of each item, in order, some at a time. Raises what it raises."""
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            for result in await _read_all(batch, read):
                yield result
            batch = []
    for result in await _read_all(batch, read):
        yield result


async def _read_all(batch: list[T], read: Callable[[T], Awaitable[U]]) -> list[U]:
    return await together((functools.partial(read, item) for item in batch), PARALLEL_READS)
