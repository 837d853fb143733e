"""A blob's bytes from a registry: a range where one is asked for, taken up again where the connection broke."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType

import aiohttp
import msgspec
from aiohttp import ClientResponse

from cache.oci.challenge import repository_scope
from cache.oci.digest import Digest
from cache.oci.errors import InvalidReply, RegistryError, Unreachable
from cache.oci.replies import content_length, content_range
from cache.oci.session import RegistrySession
from cache.oci.transport import check_plain, unanswered


class BlobReply(msgspec.Struct, frozen=True):
    """A blob, or a part of it, on its way: the whole blob's size, the first byte's place, and the bytes."""

    size_bytes: int
    start: int
    chunks: AsyncIterator[bytes]


class Download:
    """One reading of a blob, over as many requests as it takes. An async context manager."""

    def __init__(
        self, session: RegistrySession, repository: str, digest: Digest, start: int = 0, stop: int | None = None
    ) -> None:
        self._session = session
        self._path = f"/v2/{repository}/blobs/{digest}{session.pull_query}"
        self._url = session.base_url + self._path
        self._scopes = (repository_scope(repository, "pull"),)
        self._start = start
        self._stop = stop
        self._position = start
        self._size_bytes = 0
        self._stack = AsyncExitStack()
        self._response: ClientResponse
        self._skip_bytes = 0
        self._failed = 0

    async def __aenter__(self) -> Download:
        await self._session.retrying(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def reply(self) -> BlobReply:
        """The opened blob; its chunks can be read once."""
        return BlobReply(self._size_bytes, self._start, self._chunks())

    async def _open(self) -> None:
        """Asks for what is still missing."""
        await self._stack.aclose()
        ranged = self._position > 0 or self._stop is not None
        last = "" if self._stop is None else str(self._stop - 1)
        headers = {"Range": f"bytes={self._position}-{last}"} if ranged else {}
        request = self._session.request("GET", self._path, headers=headers, scopes=self._scopes)
        response = await self._stack.enter_async_context(request)
        await self._session.expect(response, "GET", self._url, 200, 206)
        check_plain(response)
        self._skip_bytes, self._size_bytes = self._placed(response)
        self._response = response

    def _placed(self, response: ClientResponse) -> tuple[int, int]:
        """How many bytes to skip before the first wanted one (a registry may ignore Range), and the blob's size."""
        if response.status == 200:
            first, size = 0, content_length(response.headers)
        else:
            stated = content_range(response.headers)
            first, size = (stated[0], stated[2]) if stated else (self._position, None)
        if first > self._position:
            raise InvalidReply("GET", self._url, response.status, reason=f"asked for {self._position}, got {first}")
        if size is None:
            raise InvalidReply("GET", self._url, response.status, reason="the reply does not say how long the blob is")
        if self._start > size:
            raise RegistryError("GET", self._url, 416, reason=f"byte {self._start} of {size}")
        return self._position - first, size

    async def _chunks(self) -> AsyncIterator[bytes]:
        stop = self._size_bytes if self._stop is None else min(self._stop, self._size_bytes)
        while self._position < stop:
            try:
                async for chunk in self._rest(stop - self._position):
                    self._position += len(chunk)
                    self._failed = 0
                    yield chunk
                if self._position < stop:
                    raise Unreachable("GET", self._url, reason=f"the body ended at byte {self._position} of {stop}")
            except Unreachable as error:
                await self._resume(error)

    async def _rest(self, wanted: int) -> AsyncIterator[bytes]:
        """At most ``wanted`` bytes of the present reply."""
        try:
            async for chunk in self._response.content.iter_any():
                fresh = chunk[self._skip_bytes :] if self._skip_bytes else chunk
                self._skip_bytes -= min(self._skip_bytes, len(chunk))
                if fresh:
                    yield fresh[:wanted]
                    wanted -= min(wanted, len(fresh))
                if not wanted:
                    return
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
            raise unanswered("GET", self._url, error) from error

    async def _resume(self, error: RegistryError) -> None:
        """Opens the blob again at the present position, as often as the schedule allows without progress."""
        while True:
            self._failed += 1
            await self._session.pause(error, self._failed, self._session.backoff.for_resuming)
            try:
                return await self._open()
            except RegistryError as again:
                error = again
