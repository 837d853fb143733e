"""A local disk in front of a slower store.

The lower store's word counts: a write is done when it has committed, and whether a blob is there is asked of it (its
answer is believed for a short time). Content never changes under its digest, so the bytes themselves come from the disk
whenever it has them. Whatever the disk does wrong costs speed, and is never an error.

A read from a blob's beginning copies it to the disk, once for all who read it meanwhile; they follow the copy as it
grows. A read from somewhere inside a blob that is not here goes through to the lower store: it may be all that anybody
wants of a large one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import structlog
from cachetools import TLRUCache

from cache import bulk, paths, ranges
from cache.disk.copying import DiskCopy, Fill
from cache.disk.tier import DiskTier
from cache.errors import BlobNotFound, DamagedRecord, StoreUnavailable
from cache.oci.digest import Digest
from cache.record_memory import RecordMemory
from cache.store import (
    AbortRule,
    Absent,
    Aside,
    BlobWriter,
    Enumerable,
    Presigned,
    Record,
    Scrubbable,
    Store,
    StoredBlob,
    Sweepable,
    Unfinished,
)

STAT_TTL_S = 60.0
MAX_STATS = 100_000
AHEAD_BYTES = 8 << 20
"""A reader waits for a growing copy that is at most so far behind where it begins."""

log = structlog.get_logger()


class Lower(Store, Enumerable, Protocol):
    """What a tier may stand in front of."""


class TieredStore:
    """``lower`` with ``disk`` in front of it. Also LocalPaths, Enumerable, Presigned, Sweepable, Copying,
    Believing, BulkReads, BulkDeletes and, where the lower store is, Scrubbable.
    """

    def __init__(self, lower: Lower, disk: DiskTier) -> None:
        self._lower = lower
        self._disk = disk
        self._fills: dict[Digest, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stats: TLRUCache[Digest, int] = TLRUCache(MAX_STATS, ttu=_stat_until)
        self._deletions = 0
        self._records = RecordMemory()

    @property
    def url(self) -> str:
        return self._lower.url

    async def check(self) -> None:
        """As the lower store's. The disk is looked through in the background, and may fail."""
        self._disk.start()
        await self._lower.check()

    async def close(self) -> None:
        for fill in self._fills.values():
            fill.task.cancel()
        await self.settled()
        await self._disk.close()
        await self._lower.close()

    async def settled(self) -> None:
        """Returns when nothing is on its way to the disk, and what was there before is known."""
        await self._disk.started()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Blobs

    async def stat(self, digest: Digest) -> int | None:
        if (seen_bytes := self._stats.get(digest)) is not None:
            return seen_bytes
        deletions = self._deletions
        try:
            size_bytes = await self._lower.stat(digest)
        except StoreUnavailable as error:
            held_bytes = self._disk.size_of(digest)
            if held_bytes is None:
                raise
            log.warning("store_failed", error=str(error), instead="disk")
            return held_bytes
        if size_bytes is not None:
            if deletions == self._deletions:
                self._stats[digest] = size_bytes
        elif self._disk.size_of(digest) is not None:
            await self._drop(digest)
        return size_bytes

    @asynccontextmanager
    async def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        ranges.check_bounds(start, stop)
        async with AsyncExitStack() as stack:
            chunks = await self._from_disk(stack, digest, start, stop) or await self._from_copy(
                stack, digest, start, stop
            )
            if chunks is None:
                yield await stack.enter_async_context(self._lower.open(digest, start, stop))
                return
            unbroken = self._unbroken(chunks, digest, start, stop)
            stack.push_async_callback(unbroken.aclose)
            yield unbroken

    @asynccontextmanager
    async def writer(self, expected: Digest | None = None) -> AsyncGenerator[BlobWriter, None]:
        async with self._lower.writer(expected) as writer:
            held = expected is not None and self._disk.size_of(expected) is not None
            copy = None if held else DiskCopy(self._disk)
            tiered = _Writer(self, writer, copy)
            try:
                yield tiered
            finally:
                if copy is not None and not tiered.committed:
                    await copy.discard()

    async def delete(self, digest: Digest) -> None:
        await self._lower.delete(digest)
        await self._drop(digest)

    async def read_all(self, digests: Sequence[Digest], limit_bytes: int) -> Sequence[bytes | None]:
        """The first ``limit_bytes`` of each blob as the lower store has it, None for one that is not there."""
        return await bulk.read_all(self._lower, digests, limit_bytes)

    async def delete_all(self, digests: Sequence[Digest]) -> None:
        """Removes the blobs and their copies."""
        await bulk.delete_all(self._lower, digests)
        for digest in digests:
            await self._drop(digest)

    async def blobs(self, under: str = "", after: Digest | None = None) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob of the lower store with its size in bytes, in order: those that begin so, and come after one."""
        async for found in self._lower.blobs(under, after):
            yield found

    def local_path(self, digest: Digest) -> Path | None:
        """The blob's file on the disk; None when it is only in the lower store, or nowhere. Blocks."""
        return self._disk.local_path(digest)

    async def presigned_url(self, digest: Digest, expires_s: int) -> str | None:
        """The lower store's URL for the blob; None when it gives none, or says that the blob is not there any more."""
        if not isinstance(self._lower, Presigned):
            return None
        if await self._lower.stat(digest) is None:  # what is remembered of it may be a minute old
            self.doubt(digest)
            return None
        return await self._lower.presigned_url(digest, expires_s)

    @asynccontextmanager
    async def open_stored(self, digest: Digest) -> AsyncGenerator[StoredBlob, None]:
        """All of the blob as it lies in the lower store. Raises BlobNotFound."""
        async with self._scrubbable().open_stored(digest) as stored:
            yield stored

    async def put_aside(self, digest: Digest, version: str) -> Aside:
        """Moves the blob into the lower store's quarantine; a copy on the disk stays, it was verified."""
        aside = await self._scrubbable().put_aside(digest, version)
        self.doubt(digest)
        return aside

    async def remove_aside(self, digest: Digest) -> None:
        """Removes the blob from the lower store's quarantine."""
        await self._scrubbable().remove_aside(digest)

    def _scrubbable(self) -> Scrubbable:
        if not isinstance(self._lower, Scrubbable):
            raise StoreUnavailable(self.url, "look after blobs", "it cannot put any aside")
        return self._lower

    def doubt(self, digest: Digest | None) -> None:
        """Forgets that a blob was in the lower store, None = of all blobs."""
        self._deletions += 1
        if digest is None:
            self._stats.clear()
        else:
            self._stats.pop(digest, None)

    def copies(self) -> list[Digest]:
        """What the disk has a copy of."""
        return self._disk.held()

    @asynccontextmanager
    async def open_copy(self, digest: Digest) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """All of a copy. Raises BlobNotFound, StoreUnavailable."""
        async with self._disk.open(digest, 0, None) as chunks:
            yield chunks

    async def drop_copy(self, digest: Digest) -> None:
        """Removes the disk's copy."""
        await self._disk.remove(digest)

    async def unfinished(self) -> Unfinished:
        """What is on its way into the lower store."""
        return await self._lower.unfinished() if isinstance(self._lower, Sweepable) else Unfinished()

    async def sweep(self, older_than_s: float) -> Unfinished:
        """Removes what writers have left in the lower store."""
        return await self._lower.sweep(older_than_s) if isinstance(self._lower, Sweepable) else Unfinished()

    async def abort_rule(self) -> timedelta | None:
        """The lower store's rule against unfinished uploads; None also where it has no such thing."""
        return await self._lower.abort_rule() if isinstance(self._lower, AbortRule) else None

    # Records

    async def get(self, name: str) -> Record | None:
        if (remembered := self._records.get(name)) is not None:
            return remembered
        changes = self._records.changes
        record = await self._lower.get(name)
        if record is not None and paths.is_lasting(name):
            self._records.remember(name, record, changes)
        return record

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        self._records.forget(name)
        try:
            return await self._lower.put(name, value, expected)
        finally:
            self._records.forget(name)

    async def remove(self, name: str, expected: str | None = None) -> None:
        self._records.forget(name)
        try:
            await self._lower.remove(name, expected)
        finally:
            self._records.forget(name)

    async def get_all(self, names: Sequence[str]) -> Sequence[Record | DamagedRecord | None]:
        """For each name the record as the lower store has it, None when there is none, or what is wrong with it."""
        return await bulk.get_all(self._lower, names)

    async def remove_all(self, names: Sequence[str]) -> None:
        """Removes the records, whatever they are now."""
        for name in names:
            self._records.forget(name)
        try:
            await bulk.remove_all(self._lower, names)
        finally:
            for name in names:
                self._records.forget(name)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix``, in no order."""
        async for name in self._lower.names(prefix):
            yield name

    # Between the two

    def keep(self, copy: DiskCopy, digest: Digest, size_bytes: int) -> None:
        """Puts the copy of a blob that the lower store has taken on the disk; its writer need not wait for that."""
        self._stats[digest] = size_bytes
        self._in_background(copy.commit(digest))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _drop(self, digest: Digest) -> None:
        self.doubt(digest)
        try:
            await self._disk.remove(digest)
        except StoreUnavailable as error:
            log.warning("disk_cache_failed", error=str(error))

    async def _from_disk(
        self, stack: AsyncExitStack, digest: Digest, start: int, stop: int | None
    ) -> AsyncIterator[bytes] | None:
        """The bytes from the disk, kept there until ``stack`` ends; None when it does not have them."""
        if self._disk.size_of(digest) is None:
            return None
        try:
            stack.enter_context(self._disk.pinned(digest))
            return await stack.enter_async_context(self._disk.open(digest, start, stop))
        except (BlobNotFound, StoreUnavailable) as error:
            log.warning("disk_cache_left", digest=str(digest), error=str(error))
            self._disk.forget(digest)
            return None

    async def _from_copy(
        self, stack: AsyncExitStack, digest: Digest, start: int, stop: int | None
    ) -> AsyncIterator[bytes] | None:
        """The bytes of a copy that grows, which is begun where that makes sense; None where it does not."""
        fill = self._fills.get(digest)
        if fill is None and start == 0:
            size_bytes = await self.stat(digest)
            fill = self._fills.get(digest)
            if fill is None and size_bytes is not None and self._disk.admits(size_bytes):
                fill = self._begin(digest, size_bytes)
        if fill is None or start > fill.growing.written_bytes + AHEAD_BYTES:
            return None
        try:
            await fill.opened()
        except StoreUnavailable:
            return None  # the lower store itself may say why
        positions = ranges.clip(start, stop, fill.growing.size_bytes)
        chunks = fill.read(positions, self._disk.run)
        stack.push_async_callback(chunks.aclose)
        return chunks

    def _begin(self, digest: Digest, size_bytes: int) -> Fill:
        fill = self._fills[digest] = Fill(self._lower, self._disk, digest, size_bytes)
        fill.task = self._in_background(fill.run())
        fill.task.add_done_callback(lambda _: self._fills.pop(digest))
        return fill

    async def _unbroken(
        self, chunks: AsyncIterator[bytes], digest: Digest, start: int, stop: int | None
    ) -> AsyncGenerator[bytes, None]:
        """``chunks``, and where the disk fails the rest from the lower store."""
        position = start
        try:
            async for chunk in chunks:
                position += len(chunk)
                yield chunk
            return
        except StoreUnavailable as error:
            log.warning("disk_cache_left", digest=str(digest), at=position, error=str(error))
            self._disk.forget(digest)
        try:
            async with self._lower.open(digest, position, stop) as rest:
                async for chunk in rest:
                    yield chunk
        except BlobNotFound as error:
            raise StoreUnavailable(self.url, f"read {digest}", "it went while it was read") from error


class _Writer:
    """Writes to both; what the lower store says is what counts."""

    def __init__(self, store: TieredStore, lower: BlobWriter, copy: DiskCopy | None) -> None:
        self._store = store
        self._lower = lower
        self._copy = copy
        self.committed = False

    async def write(self, data: bytes) -> None:
        await self._lower.write(data)
        if self._copy is not None:
            await self._copy.write(data)

    async def commit(self, digest: Digest) -> int:
        size_bytes = await self._lower.commit(digest)
        self.committed = True
        if self._copy is not None:
            self._store.keep(self._copy, digest, size_bytes)
        return size_bytes


def _stat_until(digest: Digest, size_bytes: int, now: float) -> float:
    """Until when a size is believed; what was asked at once must not be asked again at once."""
    return now + STAT_TTL_S * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
