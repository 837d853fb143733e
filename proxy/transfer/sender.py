"""Carries a blob from its spool to an upstream while it grows, and starts again from the spool when the upstream fails.

The client's own pace and chunks do not matter here: what has come is sent as one stream, or, where the client gave size
and digest at once, in the one request that closes the upload. The upstream's session is ours alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from cache.oci.client import RegistryClient
from cache.oci.digest import Digest
from cache.oci.errors import NotFound, RegistryError
from cache.oci.sending import Sent, Step, Way, next_step
from proxy.transfer.spool import Spool

ABANDON_S = 5.0
"""How long an upstream may take to hear that an upload is given up: a courtesy."""
QUIET_S = 5.0
"""When nothing was sent for so long, an upstream that ends the connection may just have been tired of waiting."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Whole:
    """What a client says of a blob before its first byte."""

    digest: Digest
    size_bytes: int


class Sender:
    """One upload to an upstream; after failures it is tried as often as the client's back-off schedule says."""

    def __init__(self, client: RegistryClient, repository: str) -> None:
        self._client = client
        self._repository = repository
        self._location = ""
        self._digest: asyncio.Future[Digest] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._way = Way(client.profile.upload_chunk_bytes)
        self._sent_bytes = 0
        self._confirmed_bytes = 0
        self._taken = self._closing = self._resumed = self._refused = False
        self._failed = 0
        self._offered_at = asyncio.get_running_loop().time()

    async def open(self) -> None:
        """Opens the upstream's session. Raises RegistryError as the upstream does, once it is final."""
        self._location = await self._client.retrying(lambda: self._client.start_upload(self._repository))

    def start(self, spool: Spool, whole: Whole | None = None) -> None:
        """Begins to send what comes into the spool; with ``whole``, in one request. Does nothing when it has begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(spool, whole), name=f"push {self._repository}")

    def check(self) -> None:
        """Raises what the upstream has answered, when that is final; waiting for more bytes would be of no use."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def finish(self, digest: Digest) -> None:
        """Returns when the upstream has taken the blob, whose spool is sealed. Raises RegistryError as it does."""
        if not self._digest.done():
            self._digest.set_result(digest)
        assert self._task is not None, "nothing was started"
        await asyncio.wait([self._task])
        self._task.result()

    async def close(self) -> None:
        """Gives up what is not finished, here and at the upstream."""
        self._digest.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # somebody has been told, or has left
        await self._abandon()

    async def _run(self, spool: Spool, whole: Whole | None) -> None:
        while True:
            try:
                await self._attempt(spool, whole)
            except RegistryError as error:
                if not await self._recover(error, spool):
                    continue
            self._location = ""
            return

    async def _attempt(self, spool: Spool, whole: Whole | None) -> None:
        """Sends what the upstream has not yet, and closes the upload."""
        self._closing = False
        if not self._location:
            self._sent_bytes, self._taken, self._resumed = 0, False, False
            self._location = await self._client.start_upload(self._repository)
        if whole is not None and self._sent_bytes == 0 and not self._way.chunk_bytes:
            content = self._stream(spool) if whole.size_bytes else None
            return await self._client.put_upload(self._location, whole.digest, content, whole.size_bytes)
        if self._way.chunk_bytes:
            await self._send_chunks(spool, self._way.chunk_bytes)
        elif await spool.reaches(self._sent_bytes + 1):
            self._location = await self._client.patch_upload(self._location, self._stream(spool))
        digest = await asyncio.shield(self._digest)
        self._closing = True
        await self._client.put_upload(self._location, digest)

    async def _stream(self, spool: Spool) -> AsyncIterator[bytes]:
        async for piece in spool.read(self._sent_bytes):
            self._offered_at = asyncio.get_running_loop().time()
            self._sent_bytes += len(piece)
            yield piece

    async def _send_chunks(self, spool: Spool, chunk_bytes: int) -> None:
        while await spool.reaches(self._sent_bytes + chunk_bytes) or self._sent_bytes < spool.received_bytes:
            start, stop = self._sent_bytes, min(self._sent_bytes + chunk_bytes, spool.received_bytes)
            content = spool.read(start, stop)
            self._location = await self._client.patch_upload(self._location, content, start, stop - start)
            self._sent_bytes, self._taken = stop, True
            self._note_progress(stop)
            self._client.profile.upload_chunk_bytes = chunk_bytes

    async def _recover(self, error: RegistryError, spool: Spool) -> bool:
        """Makes ready for the next attempt; True when none is needed. Raises ``error`` when there is to be none."""
        sent = Sent(self._way, bool(self._location), self._taken, self._closing, self._resumed, self._refused)
        step, way = next_step(error, sent, self._client.profile.least_chunk_bytes)
        if step is Step.GIVE_UP:
            raise error
        log.info("push_goes_on", repository=self._repository, step=step.value, error=str(error))
        if step in (Step.PAUSE, Step.ANEW):
            await self._pause(error, spool)
        if step is Step.OTHERWISE:
            self._way = way
            await self._abandon()
        elif step is Step.ANEW:
            self._location = ""
            return await self._is_there()
        else:
            self._refused = self._refused or step is Step.AGAIN
            return await self._take_up(spool)
        return False

    async def _pause(self, error: RegistryError, spool: Spool) -> None:
        """Waits before the next attempt.

        That an upstream did not wait as long as the client paused is nobody's failure, but there must be more to send.
        """
        quiet_s = asyncio.get_running_loop().time() - self._offered_at
        if self._sent_bytes == spool.received_bytes and not spool.sealed and quiet_s > QUIET_S:
            await spool.reaches(self._sent_bytes + 1)
        else:
            self._failed += 1
            await self._client.wait(error, self._failed)

    async def _take_up(self, spool: Spool) -> bool:
        """Finds out how far the upstream is; where it does not say, it must begin anew. True when it has all."""
        location, self._location = self._location, ""
        try:
            location, held_bytes = await self._client.upload_status(location)
        except NotFound:
            return await self._is_there()
        except RegistryError as error:
            log.info("push_begins_anew", repository=self._repository, error=str(error))
            return False
        self._location = location
        if 0 < held_bytes <= spool.received_bytes:
            self._sent_bytes, self._resumed = held_bytes, True
            self._note_progress(held_bytes)
        else:
            await self._abandon()
        return False

    async def _is_there(self) -> bool:
        """Whether the session has ended because the blob was taken, and only the answer was lost."""
        if not self._digest.done():
            return False
        try:
            return await self._client.head_blob(self._repository, self._digest.result()) is not None
        except RegistryError:
            return False

    def _note_progress(self, held_bytes: int) -> None:
        """Failures count anew once the upstream has more than it ever had before, and only then: this must end."""
        if held_bytes > self._confirmed_bytes:
            self._confirmed_bytes, self._failed, self._refused = held_bytes, 0, False

    async def _abandon(self) -> None:
        location, self._location = self._location, ""
        if location:
            with contextlib.suppress(RegistryError, TimeoutError):
                async with asyncio.timeout(ABANDON_S):
                    await self._client.cancel_upload(location)
