"""One bucket for the parts of the store: every request with its patience, and a store's errors instead of S3's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from cache.errors import StoreFull, StoreUnavailable
from cache.s3.answers import CredentialsExpired, S3Answer, ServerFailed, Throttled
from cache.s3.capabilities import AMAZON
from cache.s3.location import S3Location
from cache.s3.patience import BULK, INTERACTIVE, Patience, RetryBudget, Window
from cache.s3.session import S3Session
from cache.s3.wire import NOTHING, Body, S3Reply, S3Wire

UPLOADS_IN_FLIGHT = 32
"""Parts under way at a time, of all writers together."""

_FULL = frozenset({"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"})
T = TypeVar("T")
Answers = tuple[type[S3Answer], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that has been read whole."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def etag(self) -> str:
        """The object's ETag, in quotes."""
        return self.headers.get("etag", "")


class S3Bucket:
    """Requests to a bucket. Those of the answers that ``expect`` names are raised as they are; everything else becomes
    StoreUnavailable, after as many attempts as ``patience`` has. ``operation`` is what the error says that was tried.

    ``capabilities`` are those that ``cache.s3.probe`` found; Amazon's before.
    """

    def __init__(self, location: S3Location) -> None:
        self.location = location
        self.capabilities = AMAZON
        self._session = S3Session(location)
        self._wire = S3Wire(self._session)
        self._retries = RetryBudget()
        self._lane = _Lane(UPLOADS_IN_FLIGHT)

    async def request(
        self,
        operation: str,
        method: str,
        name: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body = NOTHING,
        expect: Answers = (),
    ) -> Reply:
        """The whole reply to a request for the object of a stored name."""
        patience = INTERACTIVE if body.size_bytes <= 1 << 20 else BULK
        return await self._run(
            operation, lambda: self._exchange(method, name, "", headers or {}, body, patience), expect, patience
        )

    async def post(self, operation: str, query: str, headers: dict[str, str], body: Body) -> Reply:
        """The whole reply to a POST to the bucket itself."""

        async def attempt() -> Reply:
            return await self._exchange("POST", None, query, headers, body, BULK)

        return await self._run(operation, attempt, (), BULK)

    async def open(self, operation: str, name: str, headers: dict[str, str], expect: Answers) -> S3Reply:
        """The reply to a GET, whose body is still to be read; to be closed."""

        async def attempt() -> S3Reply:
            async with _within(INTERACTIVE.answer_s):
                return await self._wire.send("GET", self.location.key(name), "", headers, NOTHING)

        return await self._run(operation, attempt, expect, INTERACTIVE)

    async def send_part(self, operation: str, name: str, query: str, headers: dict[str, str], body: Body) -> str:
        """Uploads a part of a multipart upload, when its turn comes, and returns its ETag."""

        async def attempt() -> Reply:
            async with self._lane.turn():
                return await self._exchange("PUT", name, query, headers, body, BULK)

        return (await self._run(operation, attempt, (), BULK)).etag

    async def call(self, operation: str, method: str, expect: Answers = (), **parameters: Any) -> dict[str, Any]:
        """The reply of a boto3 method."""
        return await self._run(operation, lambda: self._session.call(method, **parameters), expect, BULK)

    async def presign(self, operation: str, name: str, expires_s: int) -> str:
        """A URL with which anybody can GET the object of a stored name for a while."""
        key = self.location.key(name)
        return await self._run(operation, lambda: self._session.presign(key, expires_s), (), INTERACTIVE)

    def failure(self, operation: str, reason: str) -> StoreUnavailable:
        """The store's error for something that is none in S3's eyes."""
        return StoreUnavailable(self.location.url, operation, reason)

    async def close(self) -> None:
        """Closes connections and threads."""
        await self._wire.close()
        await self._session.close()

    async def _exchange(
        self, method: str, name: str | None, query: str, headers: dict[str, str], body: Body, patience: Patience
    ) -> Reply:
        key = self.location.key(name) if name is not None else ""
        async with _within(patience.attempt_s(body.size_bytes)):
            reply = await self._wire.send(method, key, query, headers, body)
            try:
                content = await reply.whole()
            finally:
                reply.close()
        return Reply(reply.status, {name.lower(): value for name, value in reply.headers.items()}, content)

    async def _run(self, operation: str, attempt: Callable[[], Awaitable[T]], expect: Answers, patience: Patience) -> T:
        failed = 0
        renewed = False
        while True:
            try:
                result = await attempt()
            except expect:
                raise
            except CredentialsExpired as error:
                if renewed:
                    raise self._unavailable(operation, error) from error
                renewed = True
                self._session.renew()
            except S3Answer as error:
                failed += 1
                pause_s = patience.pause_s(failed, random.random()) if error.temporary else None  # noqa: S311 - no secret
                if pause_s is None or not self._retries.take():
                    raise self._unavailable(operation, error) from error
                await asyncio.sleep(pause_s)
            else:
                self._retries.succeeded()
                return result

    def _unavailable(self, operation: str, error: S3Answer) -> StoreUnavailable:
        kind = StoreFull if error.code in _FULL or error.status == 507 else StoreUnavailable
        return kind(self.location.url, operation, str(error))


class _Lane:
    """Lets as many uploads run at a time as the server seems to bear."""

    def __init__(self, most: int) -> None:
        self._window = Window(most)
        self._running = 0
        self._left = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a place, and learns from how it went."""
        async with self._left:
            await self._left.wait_for(lambda: self._running < self._window.limit)
            self._running += 1
        try:
            yield
            self._window.succeeded()
        except Throttled:
            self._window.throttled()
            raise
        finally:
            self._running -= 1
            async with self._left:
                self._left.notify_all()


@asynccontextmanager
async def _within(limit_s: float) -> AsyncIterator[None]:
    """Gives an attempt up as one without an answer after ``limit_s`` seconds."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise ServerFailed(0, f"no answer within {limit_s:.0f} s") from error
