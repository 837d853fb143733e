"""Uploads to upstreams' repositories.

The client talks to us, and a sender (``proxy.transfer.sender``) to the upstream, with a spool between them: the client
may send in whatever pieces it likes, leave and come back, and the upstream may fail and be tried again, each without
the other. Both ways stream: the upstream gets the first bytes as soon as they are here. The upload counts when the
upstream has taken it; the store has it then as well.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import structlog

from cache.errors import CacheError
from cache.oci.client import RegistryClient
from cache.oci.digest import Digest
from proxy.errors import BodyBroken
from proxy.requests.routing import Proxied
from proxy.transfer.blobs import Blobs
from proxy.transfer.intake import Intake, Intakes
from proxy.transfer.sender import Sender, Whole
from proxy.transfer.uploads import Body

log = structlog.get_logger()


class ForwardedUpload:
    """One upload to an upstream."""

    def __init__(self, client: RegistryClient, intakes: Intakes, blobs: Blobs, route: Proxied) -> None:
        self._client = client
        self._intakes = intakes
        self._blobs = blobs
        self._route = route
        self._stack = AsyncExitStack()
        self._intake: Intake | None = None
        self._sender = Sender(client, route.repository)

    async def open(self) -> None:
        """Opens the upstream's session, so that a refusal is heard before the first byte. Raises RegistryError."""
        await self._sender.open()

    @property
    def received_bytes(self) -> int:
        return self._intake.spool.received_bytes if self._intake is not None else 0

    async def append(self, body: Body) -> None:
        """Takes more bytes, which is all that this waits for.

        Raises RegistryError as soon as the upstream has refused the upload, StoreUnavailable when no disk takes it.
        """
        intake = await self._opened()
        async for chunk in body.chunks:
            self._sender.check()
            await intake.take(chunk)
            self._sender.start(intake.spool)
        await intake.spool.flush()
        self._sender.check()

    async def finish(self, digest: Digest, body: Body) -> None:
        """Takes the last bytes; returns when the upstream has taken the blob. Raises as ``append``, and DigestMismatch.

        The store gets the blob while the upstream still looks at it: its bytes have proved right already.
        """
        if self.received_bytes == 0 and body.size_bytes is not None:
            await self._take_whole(Whole(digest, body.size_bytes), body)
        else:
            await self.append(body)
        intake = await self._opened()
        await intake.verify(digest)
        self._sender.start(intake.spool)
        storing = asyncio.create_task(intake.store(digest), name=f"push {digest}")
        try:
            await self._sender.finish(digest)
        finally:
            await storing
        try:
            await self._blobs.add(self._route, digest, self.received_bytes)
        except CacheError as error:
            log.warning("pushed_blob_not_noted", repository=str(self._route), digest=str(digest), error=str(error))

    async def close(self) -> None:
        """Gives up what is not finished, here and at the upstream."""
        await self._sender.close()
        await self._stack.aclose()

    async def _take_whole(self, whole: Whole, body: Body) -> None:
        """Takes a body that is all of the blob, and sends it on as that: in one request with a length."""
        intake = await self._opened(whole.digest)
        intake.spool.size_bytes = whole.size_bytes
        self._sender.start(intake.spool, whole)
        try:
            await self.append(body)
        except BodyBroken:
            # The client may come back, and go on in another way.
            intake.spool.size_bytes = None
            await self._sender.close()
            self._sender = Sender(self._client, self._route.repository)
            raise

    async def _opened(self, expected: Digest | None = None) -> Intake:
        if self._intake is None:
            self._intake = await self._stack.enter_async_context(self._intakes.open(expected))
        return self._intake
