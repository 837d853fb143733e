"""Fetching blobs that are not held yet: each once, for everybody who asks meanwhile.

A fill belongs to the proxy and not to the client that asked first: it goes on when that client leaves. What arrives
goes into a spool, which all who ask read while it grows, and once its digest has proved right into the store; until the
store has it, the spool goes on answering.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol

import structlog

from cache.errors import CacheError
from cache.oci.client import BlobReply
from cache.oci.digest import Digest
from cache.oci.errors import OCIError, Unreachable
from proxy.transfer.intake import Intake, Intakes
from proxy.transfer.spool import Spool


class BlobSource(Protocol):
    """Where a blob comes from; it takes itself up again where a connection breaks."""

    async def __aenter__(self) -> BlobReply: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    async def stored(self) -> bool:
        """Whether somebody else has put the blob into the store meanwhile."""


FILLS_PER_UPSTREAM = 32
"""Each takes up to a megabyte of memory and a connection."""
SLOW_S = 60.0
SLOW_BYTES = 64 * 1024
STORE_S = 10.0
"""How long an ending proxy waits for what has come to get into the store."""

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

    @property
    def whole(self) -> bool:
        """Whether all has come and is right; it may be on its way into the store still."""
        return self.spool is not None and self.spool.sealed

    @property
    def failed(self) -> bool:
        """Whether who follows it gets no more."""
        return self.spool is not None and self.spool.failed

    def fail(self, error: Exception) -> None:
        """Says why there is nothing, or no more, to be had; nothing happens when all is here already."""
        if self.spool is not None:
            self.spool.fail(error)
        else:
            self._opened.set_exception(error)
            self._opened.exception()  # nobody may be waiting: that is not worth a warning


class Progress:
    """Tells a transfer that goes on from one that only drips: it has no end otherwise that could be waited for."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._bytes = 0

    def enough(self, size_bytes: int, now: float) -> bool:
        """Takes note of more bytes; False when fewer than SLOW_BYTES came within SLOW_S."""
        self._bytes += size_bytes
        if now - self._since < SLOW_S:
            return True
        moved, self._since, self._bytes = self._bytes, now, 0
        return moved >= SLOW_BYTES


class Fills:
    """All fills that run now, at most one per digest."""

    def __init__(self, intakes: Intakes) -> None:
        self._intakes = intakes
        self._running: dict[Digest, Fill] = {}
        self._tasks: dict[Fill, asyncio.Task[None]] = {}
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(FILLS_PER_UPSTREAM))

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    def running(self, digest: Digest) -> Fill | None:
        """The fill of this blob, if one runs; one that has failed and is being tidied up does not."""
        fill = self._running.get(digest)
        return None if fill is not None and fill.failed else fill

    def start(self, upstream: str, digest: Digest, owner: object, source: BlobSource) -> Fill:
        """Begins a fill; there must be none of this digest.

        It waits while as many run from the same ``upstream`` as may, so that one that is slow holds up no other.
        """
        fill = self._running[digest] = Fill(digest, owner)
        running = self._run(fill, self._slots[upstream], source)
        self._tasks[fill] = asyncio.create_task(running, name=f"fill {digest}")
        return fill

    async def settled(self, digest: Digest) -> None:
        """Returns when the store has what a fill has brought whole, if one has; at once otherwise."""
        fill = self._running.get(digest)
        if fill is not None and fill.whole:
            await asyncio.wait([self._tasks[fill]])

    async def close(self) -> None:
        """Ends all fills; who reads them gets a short body. What has come whole still gets into the store."""
        whole = [task for fill, task in self._tasks.items() if fill.whole]
        if whole:
            await asyncio.wait(whole, timeout=STORE_S)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fill: Fill, slot: asyncio.Semaphore, source: BlobSource) -> None:
        failure: Exception = Unreachable("GET", f"blob {fill.digest}", reason="the proxy gave it up")
        try:
            await self._fetch(fill, slot, source)
        except (OCIError, CacheError) as error:
            failure = error
            log.warning("blob_fetch_failed", digest=str(fill.digest), error=str(error))
        except Exception:  # a fault of ours: readers must not wait for ever
            log.exception("blob_fetch_broke", digest=str(fill.digest))
        finally:
            del self._tasks[fill]
            if self._running.get(fill.digest) is fill:
                del self._running[fill.digest]
            fill.fail(failure)

    async def _fetch(self, fill: Fill, slot: asyncio.Semaphore, source: BlobSource) -> None:
        async with AsyncExitStack() as stack:
            async with slot:
                reply = await stack.enter_async_context(source)
                intake = await stack.enter_async_context(self._intakes.open(fill.digest, reply.size_bytes))
                fill.begin(intake.spool)
                await _take_all(intake, reply, fill.digest)
            log.info("blob_fetched", digest=str(fill.digest), bytes=reply.size_bytes)
            if not await source.stored():
                await intake.store(fill.digest)


async def _take_all(intake: Intake, reply: BlobReply, digest: Digest) -> None:
    progress = Progress(time.monotonic())
    async for chunk in reply.chunks:
        await intake.take(chunk)
        if not progress.enough(len(chunk), time.monotonic()):
            raise Unreachable("GET", f"blob {digest}", reason=f"fewer than {SLOW_BYTES} bytes a minute")
    await intake.verify(digest)
