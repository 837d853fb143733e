"""Bytes that come in, by a fill or a push: read by others while they come, verified, and stored at the end.

They go to a spool as they come. Once they have proved to have their digest the store gets them: a store of files has
given the spool its file and only moves it to its name; another one is sent a copy, of which a few at a time are under
way, whatever comes in meanwhile. A store that fails costs the caching, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from cache.errors import CacheError, DigestMismatch, SizeMismatch, StoreUnavailable
from cache.oci.digest import Digest
from cache.store import BlobStore, IncomingFiles
from proxy.transfer.spool import Spool
from proxy.transfer.spool_file import SpoolFile

THREADS = 16
COPIES = 4
"""So many blobs are copied into a store at a time: a writer of a bucket holds several parts in memory."""

log = structlog.get_logger()


class Intake:
    """One blob on its way in."""

    def __init__(self, spool: Spool, expected: Digest | None, store: BlobStore, copies: asyncio.Semaphore) -> None:
        self.spool = spool
        self._expected = expected
        self._store = store
        self._copies = copies

    async def take(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises StoreUnavailable when no disk takes them.

        Raises SizeMismatch as soon as there are more than were announced for the digest that is expected.
        """
        if self._expected is not None:
            self._check_size(self._expected, self.spool.received_bytes + len(chunk), complete=False)
        await self.spool.append(chunk)

    async def verify(self, digest: Digest) -> None:
        """Returns when all is here and has this digest; whoever reads gets the last byte then.

        Raises SizeMismatch when there is more or less than was announced, DigestMismatch, StoreUnavailable.
        """
        self._check_size(digest, self.spool.received_bytes, complete=True)
        actual = await self.spool.digest(digest.algorithm)
        if actual != digest:
            raise DigestMismatch(digest, actual, self.spool.received_bytes)
        self.spool.seal()

    def _check_size(self, digest: Digest, actual_bytes: int, *, complete: bool) -> None:
        announced_bytes = self.spool.size_bytes
        if announced_bytes is not None and (
            actual_bytes > announced_bytes or (complete and actual_bytes < announced_bytes)
        ):
            raise SizeMismatch(digest, announced_bytes, actual_bytes)

    async def store(self, digest: Digest) -> bool:
        """Puts what was verified into the store. False when it did not take it, which is logged."""
        try:
            if not await self.spool.keep(digest):
                await self._copy(digest)
        except CacheError as error:
            log.warning("blob_not_stored", digest=str(digest), error=str(error))
            return False
        return True

    async def _copy(self, digest: Digest) -> None:
        async with self._copies, self._store.writer(digest) as writer:
            async for piece in self.spool.read(0):
                await writer.write(piece)
            await writer.commit(digest)


class Intakes:
    """Opens intakes over a store; the threads that hash and write are theirs."""

    def __init__(self, store: BlobStore, spool_dir: Path | None) -> None:
        self._store = store
        self._spool_dir = spool_dir
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="intake")
        self._copies = asyncio.Semaphore(COPIES)

    @asynccontextmanager
    async def open(self, expected: Digest | None = None, size_bytes: int | None = None) -> AsyncIterator[Intake]:
        """An intake for a blob, as far as digest and size are known beforehand.

        What has not been verified when the context ends has failed for those who read it. Raises StoreUnavailable.
        """
        home = self._store if isinstance(self._store, IncomingFiles) else None
        loop = asyncio.get_running_loop()
        algorithm = expected.algorithm if expected is not None else "sha256"
        file = await loop.run_in_executor(self._threads, SpoolFile, home, self._spool_dir, algorithm)
        spool = Spool(file, size_bytes, self._threads)
        try:
            yield Intake(spool, expected, self._store, self._copies)
        except Exception as error:
            spool.fail(error)
            raise
        finally:
            spool.fail(StoreUnavailable("spool", "be completed", "the transfer was given up"))
            await loop.run_in_executor(self._threads, file.discard)

    async def close(self) -> None:
        """Ends the threads, once all intakes have ended."""
        await asyncio.to_thread(self._threads.shutdown)
