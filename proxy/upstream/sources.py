"""Whom to ask for content: an upstream's mirrors first, where anybody may read the repository, then the upstream.

Mirrors are asked as nobody, so they are no way around an upstream's word: that the repository is open is asked of the
upstream itself, and remembered as any permission is; that it has a certain digest is asked of it each time, since some
mirrors give a digest out under any name. Only while the upstream cannot be asked does a mirror's own answer to a
stranger count, and then it proves nothing for later. What a mirror does not have, or gets wrong, the next source is
asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Generic, TypeVar

import structlog
from cachetools import TTLCache

from cache.errors import DigestMismatch, SizeMismatch
from cache.oci.client import BlobReply, RegistryClient
from cache.oci.digest import Digest
from cache.oci.errors import Denied, InvalidReply, RegistryError
from proxy.auth.access import Access
from proxy.auth.caller import NOBODY, Caller
from proxy.requests.routing import Proxied
from proxy.upstream.upstreams import Upstreams

T = TypeVar("T")
Question = Callable[[RegistryClient], Awaitable[T | None]]
"""Something to ask a registry; None = it does not have it."""

PRIVATE_TTL_S = 60.0
WRONG_TTL_S = 3600.0
MAX_REMEMBERED = 10_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a source answered; ``proven`` = by the upstream's word the repository has it."""

    value: T
    proven: bool


class Openness(Enum):
    """Whether anybody may read something."""

    OPEN = auto()
    CLOSED = auto()
    UNKNOWN = auto()
    """The upstream cannot be asked."""


class Sources:
    """The upstreams with their mirrors."""

    def __init__(self, upstreams: Upstreams, access: Access) -> None:
        self._upstreams = upstreams
        self._access = access
        self._closed: TTLCache[tuple[str, str], bool] = TTLCache(MAX_REMEMBERED, PRIVATE_TTL_S)
        self._wrong: TTLCache[tuple[str, Digest], bool] = TTLCache(MAX_REMEMBERED, WRONG_TTL_S)

    def upstream(self, route: Proxied, caller: Caller) -> RegistryClient:
        """The client of the upstream itself, with the caller's credential."""
        return self._upstreams.client(route.upstream, caller)

    async def check(
        self,
        route: Proxied,
        caller: Caller,
        of_mirror: Question[T],
        of_upstream: Callable[[], Awaitable[T]],
        *,
        tag: bool = False,
    ) -> Answer[T]:
        """The answer to a question that costs little: the upstream's, or of its mirrors when it cannot be asked.

        For a ``tag`` the mirrors come first where it is known that anybody may read. Raises what the upstream says.
        """
        mirrors = self._upstreams.mirrors(route.upstream, caller)
        if tag and self._access.readable(route, NOBODY) and (found := await _first(mirrors, of_mirror)) is not None:
            return Answer(found, True)
        try:
            return Answer(await of_upstream(), True)
        except RegistryError as error:
            if not error.temporary or (found := await _first(mirrors, of_mirror)) is None:
                raise
            return Answer(found, False)

    async def fetch(
        self,
        route: Proxied,
        caller: Caller,
        probe: Question[object],
        of_mirror: Question[T],
        of_upstream: Callable[[], Awaitable[T]],
        *,
        tag: bool = False,
    ) -> Answer[T]:
        """The answer to a question that costs something, so that a mirror is better asked for it.

        ``probe`` is a cheap one, to which only who may read gets an answer; of a ``tag`` it is not asked while it is
        known that anybody may. Raises what the upstream says.
        """
        openness = await self._openness(route, caller, probe, tag)
        if openness is not Openness.CLOSED:
            found = await _first(self._upstreams.mirrors(route.upstream, caller), of_mirror)
            if found is not None:
                return Answer(found, openness is Openness.OPEN)
        return Answer(await of_upstream(), True)

    @asynccontextmanager
    async def open_blob(
        self,
        route: Proxied,
        digest: Digest,
        caller: Caller,
        noting: Callable[[], AbstractAsyncContextManager[None]],
        proven: Callable[[int], Awaitable[None]],
        start: int = 0,
    ) -> AsyncIterator[BlobReply]:
        """The blob, from byte ``start`` on, from the first source that has it; where that breaks the next one goes on.

        The upstream is opened within ``noting()``. ``proven`` is awaited with the blob's size in bytes when by the
        upstream's word the repository has it. Raises what the upstream says.
        """
        openness = await self._openness(route, caller, lambda client: client.head_blob(route.repository, digest))
        mirrors = self._upstreams.mirrors(route.upstream, caller) if openness is not Openness.CLOSED else []
        trusted = [client for client in mirrors if (client.base_url, digest) not in self._wrong]
        relay = _Relay(route, digest, [*trusted, self.upstream(route, caller)], noting, start)
        try:
            async with relay:
                reply = relay.reply()
                if openness is Openness.OPEN or relay.at_upstream:
                    await proven(reply.size_bytes)
                yield reply
        except (DigestMismatch, SizeMismatch):
            for client in trusted:  # one of them, and who it was does not matter: the upstream has the last word
                self._wrong[(client.base_url, digest)] = True
            raise

    async def _openness(self, route: Proxied, caller: Caller, probe: Question[object], tag: bool = False) -> Openness:
        """Whether anybody may read what ``probe`` asks for; without mirrors it does not matter."""
        if not route.upstream.mirrors or (route.namespace, route.repository) in self._closed:
            return Openness.CLOSED
        if tag and self._access.readable(route, NOBODY):
            return Openness.OPEN
        try:
            found = await probe(self.upstream(route, replace(NOBODY, patient=caller.patient)))
        except RegistryError as error:
            if isinstance(error, Denied):
                self._closed[(route.namespace, route.repository)] = True
            return Openness.UNKNOWN if error.temporary else Openness.CLOSED
        if found is None:
            return Openness.CLOSED
        self._access.grant(route, NOBODY)
        return Openness.OPEN


async def _first(mirrors: list[RegistryClient], question: Question[T]) -> T | None:
    """What the first mirror answers that has it; None when none has."""
    for client in mirrors:
        try:
            found = await question(client)
        except RegistryError as error:
            log.info("mirror_failed", mirror=client.base_url, error=str(error))
            continue
        if found is not None:
            return found
    return None


class _Relay:
    """One blob from several registries in turn. An async context manager."""

    def __init__(
        self,
        route: Proxied,
        digest: Digest,
        clients: list[RegistryClient],
        noting: Callable[[], AbstractAsyncContextManager[None]],
        start: int,
    ) -> None:
        self._route = route
        self._digest = digest
        self._clients = clients
        self._noting = noting
        self._stack = AsyncExitStack()
        self._reply: BlobReply
        self._position = start

    @property
    def at_upstream(self) -> bool:
        """True when it is the upstream that is read from."""
        return not self._clients

    async def __aenter__(self) -> _Relay:
        self._reply = await self._open()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    def reply(self) -> BlobReply:
        """The opened blob; its chunks can be read once."""
        return BlobReply(self._reply.size_bytes, self._reply.start, self._chunks())

    async def _open(self) -> BlobReply:
        """The rest of the blob from the next registry that has it. Raises what the last one says."""
        while len(self._clients) > 1:
            client = self._clients.pop(0)
            try:
                return await self._enter(client)
            except RegistryError as error:
                log.info("mirror_failed", mirror=client.base_url, error=str(error))
        async with self._noting():
            return await self._enter(self._clients.pop())

    async def _enter(self, client: RegistryClient) -> BlobReply:
        source = client.open_blob(self._route.repository, self._digest, self._position)
        return await self._stack.enter_async_context(source)

    async def _chunks(self) -> AsyncIterator[bytes]:
        reply = self._reply
        while True:
            try:
                async for chunk in reply.chunks:
                    self._position += len(chunk)
                    yield chunk
                return
            except RegistryError as error:
                if not self._clients:
                    raise
                log.info("mirror_failed", repository=str(self._route), error=str(error))
            await self._stack.aclose()
            reply = await self._open()
            if reply.size_bytes != self._reply.size_bytes:
                reason = f"the blob has {reply.size_bytes} bytes, at its mirror {self._reply.size_bytes}"
                url = f"{self._route.upstream.url}/v2/{self._route.repository}/blobs/{self._digest}"
                raise InvalidReply("GET", url, 200, reason=reason)
