"""Authenticated requests to one registry, and trying again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

from aiohttp import ClientResponse

from cache.oci.auth import Authenticator, TokenCache
from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.errors import Denied, RegistryError, Unreachable
from cache.oci.gate import Gate, OpenGate
from cache.oci.observer import UNOBSERVED, Observer
from cache.oci.profile import Profile
from cache.oci.reach import Reach
from cache.oci.redirect import parse_url, same_origin
from cache.oci.retry import Backoff
from cache.oci.transport import Body, Transport, failure

T = TypeVar("T")


class RegistrySession:
    """One registry as one identity.

    ``base_url`` is ``scheme://host[:port]``, ``name`` what people call the registry (``docker.io``). ``namespace``
    tells a proxy for several registries which one is meant (distribution-spec, "Registry Proxying"). ``profile`` is
    what is known of the registry; clients of the same registry share one, so that each lesson is paid for once.
    ``reach`` says where the registry may send us; None = anywhere that ``cache.oci.redirect`` allows.
    ``gate`` may refuse requests, and hears what became of the others.
    """

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        credential: Credential = ANONYMOUS,
        tokens: TokenCache | None = None,
        *,
        name: str = "",
        namespace: str = "",
        backoff: Backoff | None = None,
        profile: Profile | None = None,
        observer: Observer = UNOBSERVED,
        reach: Reach | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.base = parse_url(base_url.rstrip("/"))
        self.base_url = base_url.rstrip("/")
        self.name = name or self.base.authority
        self.credential = credential
        self.pull_query = f"?ns={quote(namespace)}" if namespace else ""
        self.backoff = backoff or Backoff()
        self.profile = profile or Profile()
        self.gate: Gate = gate or OpenGate()
        self._transport = transport
        self._observer = observer
        self._reach = replace(reach, host=self.base.host or "") if reach is not None else None
        self._authenticator = Authenticator(
            transport,
            self.base_url,
            credential,
            tokens or TokenCache(),
            self.name,
            observer=observer,
            reach=self._reach,
        )

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path_and_query: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Body = None,
        scopes: tuple[str, ...] = (),
    ) -> AsyncIterator[ClientResponse]:
        """The reply to one authenticated request, whatever its status, but never 401: that is Denied.

        ``path_and_query`` begins with ``/``, or is an absolute URL (an upload's place): another origin than the
        registry's is shown no credentials. ``scopes`` are what to ask a token for (``challenge.repository_scope``).
        A refused request is made once more with fresh authorization; when ``data`` is a stream, that is the caller's to
        do, with the stream opened anew. Raises Denied, RegistryError (token server, redirects), Unreachable.
        """
        url = path_and_query if "://" in path_and_query else self.base_url + path_and_query
        ours = same_origin(self.base, parse_url(url))
        async with AsyncExitStack() as stack:
            with self.gate.enter(method, path_and_query) as passage:
                response = await self._ask(stack, method, url, headers, data, scopes if ours else None)
                passage.replied(response.status, response.headers)
            if response.status == 401:
                raise await self.failure(method, url, response)
            yield response

    async def _ask(
        self,
        stack: AsyncExitStack,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        data: Body,
        scopes: tuple[str, ...] | None,
    ) -> ClientResponse:
        """The reply, within ``stack``; ``scopes`` None = without credentials."""
        if scopes is None:
            return await stack.enter_async_context(self._send(method, url, headers, data, None))
        sent = await self._authenticator.header(scopes)
        response = await stack.enter_async_context(self._send(method, url, headers, data, sent))
        if response.status == 401 and same_origin(self.base, response.url):
            challenges = response.headers.getall("WWW-Authenticate", [])
            renewed = await self._authenticator.answer(challenges, scopes, sent)
            if renewed is not None and renewed != sent and (data is None or isinstance(data, bytes)):
                await stack.aclose()
                response = await stack.enter_async_context(self._send(method, url, headers, data, renewed))
        return response

    @asynccontextmanager
    async def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None, data: Body, authorization: str | None
    ) -> AsyncIterator[ClientResponse]:
        shown = {"Authorization": authorization} if authorization is not None else {}
        asked_at = time.monotonic()
        answered = False
        try:
            async with self._transport.request(
                method, url, {**(headers or {}), **shown}, data, self._reach
            ) as response:
                answered = True
                self._observer.answered(self.name, response.status, time.monotonic() - asked_at, response.headers)
                try:
                    yield response
                finally:
                    self._observer.received(self.name, response.content.total_bytes)
        except Unreachable:
            if not answered:
                self._observer.answered(self.name, None, time.monotonic() - asked_at, {})
            raise

    async def failure(self, method: str, url: str, response: ClientResponse) -> RegistryError:
        """The error that a reply stands for; a refusal says who we were."""
        failed = await failure(method, url, response)
        return self._authenticator.refused(failed) if isinstance(failed, Denied) else failed

    async def expect(self, response: ClientResponse, method: str, url: str, *statuses: int) -> None:
        """Returns when the reply has one of these statuses. Raises the RegistryError that it stands for otherwise."""
        if response.status not in statuses:
            raise await self.failure(method, url, response)

    async def retrying(self, operation: Callable[[], Awaitable[T]]) -> T:
        """What ``operation`` returns; tried again after temporary failures, by the back-off schedule.

        Not while the gate is shut: somebody waits, and perhaps something older can be had elsewhere at once.
        """
        failed = 0
        while True:
            try:
                return await operation()
            except RegistryError as error:
                failed += 1
                if self.gate.shut:
                    raise
                await self.pause(error, failed)

    async def pause(self, error: RegistryError, failed: int, backoff: Backoff | None = None) -> None:
        """Waits before the next try; raises ``error`` itself when there should be none, as when it is final."""
        if not error.temporary:
            raise error
        await self.wait(error, failed, backoff)

    async def wait(self, error: RegistryError, failed: int, backoff: Backoff | None = None) -> None:
        """Waits before the next try, whatever ``error`` is; raises it once that was tried often enough."""
        jitter = random.random()  # noqa: S311 - spreads retries, protects nothing
        delay_s = (backoff or self.backoff).delay_s(failed, error.retry_after_s, jitter)
        if delay_s is None:
            raise error
        await asyncio.sleep(delay_s)
