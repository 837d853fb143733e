"""A store that is asked no more often than so many times a second, so that gc leaves it to those who push and pull."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from cache import bulk
from cache.errors import DamagedRecord
from cache.oci.digest import Digest
from cache.store import Absent, BlobWriter, BulkDeletes, Enumerable, Record, Store
from cache.upkeep.pace import Pace

T = TypeVar("T")
PAGE = 1000
"""Names that a bucket lists, or deletes, with one request."""


class PacedStore:
    """``store`` at a pace. Also Enumerable (of nothing where the store is not), BulkReads and BulkDeletes."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace

    @property
    def url(self) -> str:
        return self._store.url

    async def check(self) -> None:
        await self._store.check()

    async def close(self) -> None:
        await self._store.close()

    async def stat(self, digest: Digest) -> int | None:
        await self._pace.spend(1)
        return await self._store.stat(digest)

    @asynccontextmanager
    async def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        await self._pace.spend(1)
        async with self._store.open(digest, start, stop) as chunks:
            yield chunks

    @asynccontextmanager
    async def writer(self, expected: Digest | None = None) -> AsyncGenerator[BlobWriter, None]:
        await self._pace.spend(1)
        async with self._store.writer(expected) as writer:
            yield writer

    async def delete(self, digest: Digest) -> None:
        await self._pace.spend(1)
        await self._store.delete(digest)

    async def blobs(self, under: str = "", after: Digest | None = None) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in order: those that begin so, and come after that one."""
        if isinstance(self._store, Enumerable):
            async for blob in self._listed(self._store.blobs(under, after)):
                yield blob

    async def get(self, name: str) -> Record | None:
        await self._pace.spend(1)
        return await self._store.get(name)

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        await self._pace.spend(1)
        return await self._store.put(name, value, expected)

    async def remove(self, name: str, expected: str | None = None) -> None:
        await self._pace.spend(1)
        await self._store.remove(name, expected)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix``, in no order."""
        async for name in self._listed(self._store.names(prefix)):
            yield name

    async def _listed(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        await self._pace.spend(1)
        left = PAGE
        async for item in items:
            yield item
            left -= 1
            if not left:
                await self._pace.spend(1)
                left = PAGE

    async def get_all(self, names: Sequence[str]) -> Sequence[Record | DamagedRecord | None]:
        """For each name the record, None when there is none, or what is wrong with it."""
        await self._pace.spend(len(names))
        return await bulk.get_all(self._store, names)

    async def read_all(self, digests: Sequence[Digest], limit_bytes: int) -> Sequence[bytes | None]:
        """The first ``limit_bytes`` of each blob, None for one that is not there."""
        await self._pace.spend(len(digests))
        return await bulk.read_all(self._store, digests, limit_bytes)

    async def delete_all(self, digests: Sequence[Digest]) -> None:
        """Removes the blobs."""
        await self._pace.spend(deletions(self._store, len(digests)))
        await bulk.delete_all(self._store, digests)

    async def remove_all(self, names: Sequence[str]) -> None:
        """Removes the records, whatever they are now."""
        await self._pace.spend(deletions(self._store, len(names)))
        await bulk.remove_all(self._store, names)


def deletions(store: Store, count: int) -> int:
    """How many requests it takes a store to delete so many things."""
    return math.ceil(count / PAGE) if isinstance(store, BulkDeletes) else count
