"""Fetching blobs that are not held yet: each once, for everybody who asks meanwhile.

A fill belongs to the proxy and not to the client that asked first: it goes on when that client leaves. What arrives
goes into a spool, which all who ask read while it grows, and into the store, which takes it only if its digest is
right. A store that fails costs the caching, not the serving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import structlog

from cache.errors import CacheError, DigestMismatch, SizeMismatch, StoreUnavailable
from cache.oci.client import BlobReply
from cache.oci.digest import Digest
from cache.oci.errors import OCIError, Unreachable
from cache.store import BlobStore, BlobWriter
from proxy.spool import Spool

BlobSource = AbstractAsyncContextManager[BlobReply]
"""The blob upstream; it takes itself up again where the connection breaks."""

log = structlog.get_logger()


class Fill:
    """One blob on its way in. ``owner`` tells for whom it was opened."""

    def __init__(self, digest: Digest, owner: object) -> None:
        self.digest = digest
        self.owner = owner
        self.spool: Spool | None = None
        self._opened: asyncio.Future[Spool] = asyncio.get_running_loop().create_future()

    async def opened(self) -> Spool:
        """The spool, as soon as the upstream has begun to answer. Raises what went wrong before that."""
        return await asyncio.shield(self._opened)

    def begin(self, spool: Spool) -> None:
        """Says that the upstream has begun to answer."""
        self.spool = spool
        self._opened.set_result(spool)

    def end(self, error: Exception | None) -> None:
        """Says that all is here and right, or why not."""
        if self.spool is None:
            self._opened.set_exception(error or asyncio.CancelledError())
            self._opened.exception()  # nobody may be waiting: that is not worth a warning
        elif error is None:
            self.spool.seal()
        else:
            self.spool.fail(error)


class Fills:
    """All fills that run now, at most one per digest."""

    def __init__(self, store: BlobStore, spool_dir: Path | None) -> None:
        self._store = store
        self._spool_dir = spool_dir
        self._running: dict[Digest, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    def running(self, digest: Digest) -> Fill | None:
        """The fill of this blob, if one runs."""
        return self._running.get(digest)

    def start(
        self, digest: Digest, owner: object, source: BlobSource, opened: Callable[[int], Awaitable[None]]
    ) -> Fill:
        """Begins a fill; there must be none of this digest.

        ``opened`` is awaited with the size in bytes once the upstream has begun to answer, before anybody gets a byte.
        """
        fill = self._running[digest] = Fill(digest, owner)
        task = asyncio.create_task(self._run(fill, source, opened), name=f"fill {digest}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return fill

    async def close(self) -> None:
        """Ends all fills; who reads them gets a short body."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, fill: Fill, source: BlobSource, opened: Callable[[int], Awaitable[None]]) -> None:
        failure: Exception | None = Unreachable("GET", f"blob {fill.digest}", reason="the proxy gave it up")
        try:
            await self._fetch(fill, source, opened)
            failure = None
            log.info("blob_fetched", digest=str(fill.digest))
        except (OCIError, CacheError) as error:
            failure = error
            log.warning("blob_fetch_failed", digest=str(fill.digest), error=str(error))
        except Exception:
            log.exception(
                "blob_fetch_broke", digest=str(fill.digest)
            )  # a fault of ours: readers must not wait for ever
        finally:
            del self._running[fill.digest]
            fill.end(failure)

    async def _fetch(self, fill: Fill, source: BlobSource, opened: Callable[[int], Awaitable[None]]) -> None:
        async with AsyncExitStack() as stack:
            reply = await stack.enter_async_context(source)
            await opened(reply.size_bytes)
            spool = Spool(self._spool_dir, reply.size_bytes)
            intake = _Intake(fill.digest, spool, await self._enter_writer(stack, fill.digest))
            fill.begin(spool)
            async for chunk in reply.chunks:
                await intake.take(chunk)
            await intake.finish()

    async def _enter_writer(self, stack: AsyncExitStack, digest: Digest) -> BlobWriter | None:
        try:
            return await stack.enter_async_context(self._store.writer(digest))
        except StoreUnavailable as error:
            log.warning("store_failed", error=str(error))
            return None


class _Intake:
    """Where a fill's bytes go: always the spool, and the store as long as it works."""

    def __init__(self, digest: Digest, spool: Spool, writer: BlobWriter | None) -> None:
        self._digest = digest
        self._spool = spool
        self._writer = writer

    async def take(self, chunk: bytes) -> None:
        """Keeps the next bytes. Raises SizeMismatch as soon as there are more than announced."""
        if self._spool.written_bytes + len(chunk) > self._spool.size_bytes:
            raise SizeMismatch(self._digest, self._spool.size_bytes, self._spool.written_bytes + len(chunk))
        await self._spool.append(chunk)
        if self._writer is not None:
            try:
                await self._writer.write(chunk)
            except StoreUnavailable as error:
                self._give_up_storing(error)

    async def finish(self) -> None:
        """Puts the blob into the store, which verifies it. Raises SizeMismatch or DigestMismatch."""
        if self._spool.written_bytes != self._spool.size_bytes:
            raise SizeMismatch(self._digest, self._spool.size_bytes, self._spool.written_bytes)
        if self._writer is not None:
            try:
                await self._writer.commit(self._digest)
                return
            except StoreUnavailable as error:
                self._give_up_storing(error)
        actual = await self._spool.digest(self._digest.algorithm)
        if actual != self._digest:
            raise DigestMismatch(self._digest, actual, self._spool.written_bytes)

    def _give_up_storing(self, error: StoreUnavailable) -> None:
        log.warning("blob_not_stored", digest=str(self._digest), error=str(error))
        self._writer = None
