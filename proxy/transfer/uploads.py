"""Uploads under way.

A push to a hosted repository goes into the store, one to an upstream's to the upstream (``proxy.transfer.forwarded``).
Clients see sessions of ours only, under ids that cannot be guessed, and that say which replica has them
(``proxy.cluster.replicas``).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from cache.oci.digest import Digest
from cache.store import BlobStore, BlobWriter
from proxy.errors import BodyBroken, InvalidRequest, OutOfOrder, TooLarge, no_upload
from proxy.hosting.hosted import HostedRepositories
from proxy.requests.ranges import ByteRange
from proxy.requests.routing import Hosted, Route, same_place

IDLE_S = 3600.0
SWEEP_S = 60.0
MAX_SESSIONS = 10_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes that a client sends: how many (None = it does not say), and where in the upload they belong."""

    chunks: AsyncIterator[bytes]
    size_bytes: int | None
    place: ByteRange | None


class Upload(Protocol):
    """One blob on its way to a repository."""

    @property
    def received_bytes(self) -> int:
        """How much of it is here."""

    async def append(self, body: Body) -> None:
        """Takes more bytes."""

    async def finish(self, digest: Digest, body: Body) -> None:
        """Takes the last bytes, if any; returns when the blob is in its repository."""

    async def close(self) -> None:
        """Gives up what is not finished."""


class HostedUpload:
    """An upload into the store."""

    def __init__(self, store: BlobStore, hosted: HostedRepositories, route: Hosted) -> None:
        self._store = store
        self._hosted = hosted
        self._route = route
        self._stack = AsyncExitStack()
        self._writer: BlobWriter | None = None
        self.received_bytes = 0

    async def append(self, body: Body) -> None:
        """Takes more bytes. Raises StoreUnavailable."""
        writer = await self._open_writer()
        async for chunk in body.chunks:
            await writer.write(chunk)
            self.received_bytes += len(chunk)

    async def finish(self, digest: Digest, body: Body) -> None:
        """Puts the blob into the store and its repository. Raises DigestMismatch, StoreUnavailable."""
        await self.append(body)
        writer = await self._open_writer()
        await self._hosted.admit(digest)
        size_bytes = await writer.commit(digest)
        await self._hosted.add_blob(self._route, digest, size_bytes)

    async def close(self) -> None:
        await self._stack.aclose()

    async def _open_writer(self) -> BlobWriter:
        if self._writer is None:
            self._writer = await self._stack.enter_async_context(self._store.writer())
        return self._writer


@dataclass(slots=True)
class _Session:
    upload: Upload
    route: Route
    owner: str
    touched_at: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_idle_since(self, moment: float) -> bool:
        return self.touched_at < moment and not self.lock.locked()


class UploadSessions:
    """All uploads under way, by our ids. One belongs to a repository and to the identity that began it.

    ``name`` makes an id of one that is random. Once opened, sessions that are long untouched are given up.
    """

    def __init__(self, name: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._sessions)

    async def add(self, upload: Upload, route: Route, owner: str) -> str:
        """The id of a new session. Raises TooLarge when there are too many."""
        if len(self._sessions) >= MAX_SESSIONS:
            raise TooLarge(f"more than {MAX_SESSIONS} uploads are under way")
        upload_id = self._name(secrets.token_urlsafe(24))
        self._sessions[upload_id] = _Session(upload, route, owner, self._clock())
        return upload_id

    def __contains__(self, upload_id: str) -> bool:
        """Whether the session is here, whosever it is."""
        return upload_id in self._sessions

    def open(self) -> None:
        """Begins to give up what is left untouched."""
        self._sweeper = asyncio.create_task(self._keep_sweeping())

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Gives up what has been untouched for ``IDLE_S`` seconds."""
        oldest = self._clock() - IDLE_S
        idle = [upload_id for upload_id, session in self._sessions.items() if session.is_idle_since(oldest)]
        await asyncio.gather(*map(self._drop, idle))

    async def append(self, upload_id: str, route: Route, owner: str, body: Body) -> int:
        """Takes a chunk and returns how many bytes are there in all.

        Raises Unknown; OutOfOrder, when nothing is taken, and BodyBroken, when what has come is kept: the upload goes
        on then; and what the upload raises, which ends it.
        """
        async with self._held(upload_id, route, owner) as upload:
            _check_place(upload, body)
            try:
                await upload.append(body)
            except BodyBroken:
                raise
            except Exception:
                await self._drop(upload_id)
                raise
            return upload.received_bytes

    async def finish(self, upload_id: str, route: Route, owner: str, digest: Digest, body: Body) -> None:
        """Finishes the upload with its last bytes. Raises as ``append``."""
        async with self._held(upload_id, route, owner) as upload:
            _check_place(upload, body)
            try:
                await upload.finish(digest, body)
            except BodyBroken:
                raise
            except Exception:
                await self._drop(upload_id)
                raise
            await self._drop(upload_id)

    def received_bytes(self, upload_id: str, route: Route, owner: str) -> int:
        """How many bytes are there. Raises Unknown."""
        return self._get(upload_id, route, owner).upload.received_bytes

    async def end(self, upload_id: str) -> None:
        """Gives the upload up if it has not ended."""
        await self._drop(upload_id)

    async def cancel(self, upload_id: str, route: Route, owner: str) -> None:
        """Gives the upload up. Raises Unknown."""
        async with self._held(upload_id, route, owner):
            await self._drop(upload_id)

    async def close(self) -> None:
        """Gives up all uploads."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.gather(*map(self._drop, list(self._sessions)))

    @asynccontextmanager
    async def _held(self, upload_id: str, route: Route, owner: str) -> AsyncIterator[Upload]:
        """The upload, for one request at a time."""
        session = self._get(upload_id, route, owner)
        async with session.lock:
            self._get(upload_id, route, owner)  # it may have ended while we waited
            try:
                yield session.upload
            finally:
                session.touched_at = self._clock()

    def _get(self, upload_id: str, route: Route, owner: str) -> _Session:
        session = self._sessions.get(upload_id)
        if session is None or not same_place(session.route, route) or session.owner != owner:
            raise no_upload()
        return session

    async def _drop(self, upload_id: str) -> None:
        session = self._sessions.pop(upload_id, None)
        if session is not None:
            await session.upload.close()


def _check_place(upload: Upload, body: Body) -> None:
    """Raises OutOfOrder unless the chunk begins where the upload stands, InvalidRequest when it contradicts itself."""
    if body.place is None:
        return
    if body.place.start != upload.received_bytes:
        message = f"the chunk begins at byte {body.place.start}, but {upload.received_bytes} bytes are here"
        raise OutOfOrder(message, upload.received_bytes)
    if body.size_bytes is not None and body.size_bytes != body.place.length_bytes:
        raise InvalidRequest(
            "SIZE_INVALID", f"Content-Range says {body.place.length_bytes} bytes, Content-Length other"
        )
