"""A blob is fetched once for the whole cluster: one replica fills, the others follow it.

Who misses a blob takes its lease (``cache.leases``) and asks the upstream. Who finds it taken reads what the holder has
so far, and goes on reading while it grows: its own clients follow its own spool, and it verifies the digest itself.
When the holder dies, or says nothing and does not renew its lease either, the first follower that notices takes it over
and goes on at the upstream where its spool stands. A holder that only stood still, and goes on when another has its
lease, harms nobody: it has the same verified bytes, gives up no lease but its own, and stores nothing twice. That the
client may read was asked of the upstream before, by everybody for himself.

A bucket that fails costs the sharing and nothing else: each then fetches for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import aiohttp
import structlog

from cache import paths
from cache.errors import CacheError
from cache.leases import Held, Leases, Other
from cache.oci.client import BlobReply
from cache.oci.digest import Digest
from cache.oci.errors import InvalidReply
from cache.oci.replies import content_length
from cache.store import BlobStore
from proxy.cluster.replicas import Replicas
from proxy.errors import ReplicaGone
from proxy.observe.metrics import Metrics
from proxy.transfer.fills import BlobSource

FILLS_PATH = "/_crossdock/v1/fills/"
LEASE_S = 15.0
WATCH_S = LEASE_S / 6
"""How long a holder may say nothing before its followers look whether it renews its lease. It does so every third of it
however silent its own source is, so who stands still is noticed within a lease's time and two such looks."""
COMMIT_S = 60.0
"""How long a follower waits for the holder to put the blob into the store."""
LOOK_S = 0.25

OpenUpstream = Callable[[int], AbstractAsyncContextManager[BlobReply]]
"""Opens the blob upstream, from a byte on."""
Prove = Callable[[], Awaitable[object]]
"""Asks the upstream whether who wants the blob may read it, and raises what it says when not."""

log = structlog.get_logger()


class FillSources(Protocol):
    """Says where a blob that is not held is fetched from."""

    def source(self, digest: Digest, upstream: OpenUpstream, prove: Prove) -> BlobSource:
        """The blob; ``upstream`` opens it there with the credentials of who wants it."""


class UpstreamAlone:
    """A proxy that has no other replicas asks the upstream."""

    def source(self, digest: Digest, upstream: OpenUpstream, prove: Prove) -> BlobSource:
        """The blob upstream."""
        return _Upstream(upstream(0))


@dataclass(frozen=True, slots=True)
class _Upstream:
    opened: AbstractAsyncContextManager[BlobReply]

    async def __aenter__(self) -> BlobReply:
        return await self.opened.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self.opened.__aexit__(kind, error, trace)

    async def stored(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class ClusterFills:
    """This replica's part in the fills of the cluster."""

    store: BlobStore
    leases: Leases
    replicas: Replicas
    metrics: Metrics

    def source(self, digest: Digest, upstream: OpenUpstream, prove: Prove) -> ClusterSource:
        """The blob, from the upstream or from the replica that fetches it."""
        return ClusterSource(self, digest, upstream, prove)


class ClusterSource:
    """One blob for one fill, from one place after the other. An async context manager that gives the blob's reply.

    The lease, where this replica has it, is held until the context ends: until the blob is in the store.
    """

    def __init__(self, cluster: ClusterFills, digest: Digest, upstream: OpenUpstream, prove: Prove) -> None:
        self._cluster = cluster
        self._digest = digest
        self._upstream = upstream
        self._prove = prove
        self._proven = False
        self._leased = AsyncExitStack()
        self._opened = AsyncExitStack()
        self._holder = ""
        self._position = 0
        self._held: Held | None = None
        self._leads = False
        self._store_failed = False

    async def __aenter__(self) -> BlobReply:
        try:
            reply = await self._next(dead="")
        except BaseException:
            await self._close(None, None, None)
            raise
        return BlobReply(reply.size_bytes, 0, self._chunks(reply))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(kind, error, trace)

    async def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._leased:
            await self._opened.__aexit__(kind, error, trace)

    async def stored(self) -> bool:
        """Whether another replica has put the blob into the store; waits while one may be about to."""
        if self._held is not None and self._held.lost.is_set():
            self._leads = False  # another took over while we stood still
        if self._leads:
            return False
        for _ in range(int(COMMIT_S / LOOK_S)):
            if await self._cluster.store.stat(self._digest) is not None:
                return True
            if await self._lease(dead="") is None:
                return False
            await asyncio.sleep(LOOK_S)
        return False

    async def _chunks(self, reply: BlobReply) -> AsyncIterator[bytes]:
        size_bytes = reply.size_bytes
        while True:
            try:
                async for chunk in reply.chunks:
                    self._position += len(chunk)
                    yield chunk
                return
            except (aiohttp.ClientError, TimeoutError, CacheError) as error:
                log.warning("fill_source_broke", digest=str(self._digest), at_byte=self._position, reason=_told(error))
                self._store_failed = self._store_failed or isinstance(error, CacheError)
            reply = await self._next(dead=self._holder)
            if reply.size_bytes != size_bytes:
                reason = f"the blob has {reply.size_bytes} bytes, and had {size_bytes} at another replica"
                raise InvalidReply("GET", f"blob {self._digest}", 200, reason=reason)

    async def _next(self, dead: str) -> BlobReply:
        """The rest of the blob from where it can be had now. Raises what the upstream says."""
        while True:
            await self._opened.aclose()
            holder = await self._lease(dead)
            if holder is None:
                return await self._lead()
            if (reply := await self._stored_part()) is not None:
                return reply
            await self._prove_once()
            try:
                return await self._follow(holder)
            except ReplicaGone as error:
                log.info("replica_gone", replica=holder, reason=_told(error))
                dead = holder
            except NotFilling:
                await asyncio.sleep(LOOK_S)  # it is about to begin, or has just ended

    async def _lease(self, dead: str) -> str | None:
        """Who fetches the blob; None when it is for us to do: we have the lease, or there is no having it."""
        if self._leads:
            return None
        try:
            taken = await self._cluster.leases.take(paths.fill_lease(self._digest), LEASE_S, dead=dead)
        except CacheError as error:
            log.warning("store_failed", error=str(error))
            return None
        if isinstance(taken, Other):
            return taken.holder
        self._held = await self._leased.enter_async_context(self._cluster.leases.kept(taken, LEASE_S))
        self._leads = True
        return None

    async def _lead(self) -> BlobReply:
        self._leads = True
        if (reply := await self._stored_part()) is not None:
            return reply  # whoever had the lease before has just ended
        self._cluster.metrics.cluster_fill("taken_over" if self._position else "led")
        return await self._opened.enter_async_context(self._upstream(self._position))

    async def _stored_part(self) -> BlobReply | None:
        """The rest of the blob from the store, which may have it by now."""
        size_bytes = None if self._store_failed else await self._cluster.store.stat(self._digest)
        if size_bytes is None:
            return None
        await self._prove_once()
        chunks = await self._opened.enter_async_context(self._cluster.store.open(self._digest, self._position))
        return BlobReply(size_bytes, self._position, chunks)

    async def _prove_once(self) -> None:
        if not self._proven:
            await self._prove()
            self._proven = True

    async def _follow(self, holder: str) -> BlobReply:
        """The rest of the blob as the holder gets it. Raises NotFilling, ReplicaGone."""
        self._holder = holder
        target = f"{FILLS_PATH}{self._digest}"
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        asked = self._cluster.replicas.ask(holder, "GET", target, headers)
        try:
            async with asyncio.timeout(WATCH_S):
                reply = await self._opened.enter_async_context(asked)
        except TimeoutError as error:
            raise NotFilling from error
        length_bytes = content_length(reply.headers)
        if reply.status != (206 if self._position else 200) or length_bytes is None:
            raise NotFilling
        self._cluster.metrics.cluster_fill("followed")
        return BlobReply(self._position + length_bytes, self._position, self._followed(reply))

    async def _followed(self, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """What the holder gives out. Raises TimeoutError once nothing comes and the lease is no longer its."""
        while not reply.content.at_eof():
            try:
                async with asyncio.timeout(WATCH_S):
                    chunk = await reply.content.readany()
            except TimeoutError:
                if await self._lease(dead="") != self._holder:
                    raise TimeoutError(f"{self._holder} says nothing, and has lost its lease") from None
            else:
                yield chunk


class NotFilling(Exception):
    """The replica does not give that blob out now. Whether it lives, its lease will tell."""


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
