"""Blobs on their way to the local disk: beside a write to the lower store, or copied out of it for a reader."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from cache.disk.growing import GrowingBlob
from cache.disk.tier import DiskTier
from cache.errors import CacheError, StoreUnavailable
from cache.oci.digest import Digest
from cache.store import CHUNK_BYTES, BlobStore
from cache.verify import Verifier

FIRST_BYTES = 1 << 16
log = structlog.get_logger()


class DiskCopy:
    """The bytes of a blob as they are written to the lower store, which verifies them. It never raises: where the disk
    has no room, or fails, there is no copy."""

    def __init__(self, disk: DiskTier) -> None:
        self._disk = disk
        self._path: Path | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._reserved_bytes = 0
        self._given_up = not disk.admits(1)

    async def write(self, data: bytes) -> None:
        """Appends ``data``."""
        if self._given_up:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= CHUNK_BYTES:
            await self._flush()

    async def commit(self, digest: Digest) -> None:
        """Puts the copy in its place; the lower store has found that it has this digest."""
        await self._flush()
        path, size_bytes = self._path, self._reserved_bytes
        if self._given_up or path is None:
            return
        try:
            await self._disk.adopt(path, digest, size_bytes)
            self._path, self._reserved_bytes = None, 0
        except CacheError:
            await self.discard()

    async def discard(self) -> None:
        """Removes what was written."""
        self._given_up = True
        self._pending = []
        self._disk.release(self._reserved_bytes)
        self._reserved_bytes = 0
        if self._path is not None:
            path, self._path = self._path, None
            with contextlib.suppress(StoreUnavailable):
                await self._disk.run(path.unlink, True)

    async def _flush(self) -> None:
        data, self._pending, self._pending_bytes = self._pending, [], 0
        size_bytes = sum(map(len, data))
        if self._given_up or not size_bytes:
            return
        if not self._disk.admits(self._reserved_bytes + size_bytes) or not await self._disk.reserve(size_bytes):
            await self.discard()
            return
        self._reserved_bytes += size_bytes
        try:
            if self._path is None:
                self._path = await self._disk.incoming()
            await self._disk.run(_append, self._path, data)
        except StoreUnavailable:
            await self.discard()


def _append(path: Path, data: list[bytes]) -> None:
    """Appends to a file that is there: one that was discarded meanwhile must not come back."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        for piece in data:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


class Fill:
    """A blob being copied from the lower store, once for all who read it meanwhile."""

    task: asyncio.Task[None]

    def __init__(self, lower: BlobStore, disk: DiskTier, digest: Digest, size_bytes: int) -> None:
        self.growing = GrowingBlob(size_bytes)
        self._lower = lower
        self._disk = disk
        self._digest = digest
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def opened(self) -> None:
        """Returns when the lower store has begun to give the blob. Raises BlobNotFound or StoreUnavailable."""
        await asyncio.shield(self._opened)

    def read(
        self, positions: range, run: Callable[[Callable[[], bytes]], Awaitable[bytes]]
    ) -> AsyncGenerator[bytes, None]:
        """These bytes, each piece as soon as it is there."""
        return self.growing.read(positions.start, positions.stop, run)

    async def run(self) -> None:
        """Copies the blob. Never raises: readers are told."""
        failure: CacheError = StoreUnavailable("disk cache", f"copy {self._digest}", "it was given up")
        try:
            await self._copy()
        except CacheError as error:
            failure = error
            log.warning("blob_not_copied", digest=str(self._digest), error=str(error))
        finally:
            self.growing.fail(failure)
            if not self._opened.done():
                self._opened.set_exception(failure)
                self._opened.exception()  # nobody may be waiting: that is not worth a warning

    async def _copy(self) -> None:
        size_bytes = self.growing.size_bytes
        verifier = Verifier(self._digest, size_bytes)
        if not await self._disk.reserve(size_bytes):
            raise StoreUnavailable("disk cache", f"copy {self._digest}", "all of it is being read")
        path: Path | None = None
        try:
            path = await self._disk.incoming()
            await self._disk.run(self.growing.attach, path)
            async with self._lower.open(self._digest) as chunks:
                self._opened.set_result(None)
                async for piece in _gathered(chunks):
                    await self._disk.run(self._take, verifier, piece)
                    self.growing.show(len(piece))
            verifier.finish()
            self.growing.complete()
            await self._disk.adopt(path, self._digest, size_bytes)
        except BaseException:
            self._disk.release(size_bytes)
            if path is not None:
                with contextlib.suppress(StoreUnavailable):
                    await self._disk.run(path.unlink, True)
            raise

    def _take(self, verifier: Verifier, piece: bytes) -> None:
        verifier.update(piece)
        self.growing.write(piece)


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a thread's while; the first soon, somebody waits for it."""
    pending: list[bytes] = []
    wanted_bytes = FIRST_BYTES
    async for chunk in chunks:
        pending.append(chunk)
        if sum(map(len, pending)) >= wanted_bytes:
            yield b"".join(pending)
            pending, wanted_bytes = [], CHUNK_BYTES
    if pending:
        yield b"".join(pending)
