"""Going through the records of a store, many at a time and never all in memory. For maintenance: this lists."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from cache import record_names
from cache.record_names import Named
from cache.store import Store
from cache.together import together

BATCH = 256
PARALLEL_READS = 16
TURN = 500
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


async def in_pieces(items: AsyncIterator[T], size: int) -> AsyncIterator[list[T]]:
    """The items in lists of this length; the last may be shorter."""
    piece: list[T] = []
    async for item in items:
        piece.append(item)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items of what may be long, letting others run every now and then."""
    for number, item in enumerate(items):
        if number % TURN == 0:
            await asyncio.sleep(0)
        yield item


async def read_each(items: AsyncIterator[T], read: Callable[[T], Awaitable[U]]) -> AsyncIterator[U]:
    """What ``read`` makes of each item, in order, some at a time. Raises what it raises."""
    async for piece in in_pieces(items, BATCH):
        for result in await together((functools.partial(read, item) for item in piece), PARALLEL_READS):
            yield result
