"""HTTP for registries: requests sent, redirects followed by our own rules, failures told apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import BytesIO
from types import TracebackType
from typing import BinaryIO

import aiohttp
from aiohttp import ClientResponse
from aiohttp.abc import AbstractResolver
from cachetools import LRUCache
from yarl import URL

from cache.oci.connections import Connections, RefusedAddress, Reply
from cache.oci.errors import InvalidReply, Misled, RegistryError, Unreachable
from cache.oci.networks import Network, network_of
from cache.oci.reach import Reach
from cache.oci.redirect import RefusedRedirect, Target, follow, parse_url
from cache.oci.replies import error_of
from cache.oci.tls import HostTls

MAX_REDIRECTS = 5
MAX_PEERS = 1024
ERROR_BODY_BYTES = 64 * 1024
WHOLE_BYTES = 1 << 20
"""Bodies up to this length are handed to aiohttp in one piece."""
WRITE_TIMEOUT_S = 300.0
"""How long a registry may think about what it was sent: some copy a blob to its place before they answer."""

Body = bytes | AsyncIterator[bytes] | None


class Transport:
    """Requests to any registry. An async context manager; usable only inside it.

    ``tls`` says which certificates hosts must show (None = such as the usual authorities have signed). Time-outs are
    for connecting, for the first byte of the reply to GET and HEAD (None = as for the rest), and for silence while a
    reply is read. ``proxy_of`` gives the HTTP proxy to a URL (None = none to any). ``resolver`` gives names' addresses
    (None = the system's); ``headers`` go with every request.
    """

    def __init__(
        self,
        *,
        tls: HostTls | None = None,
        connect_timeout_s: float = 30.0,
        reply_timeout_s: float | None = None,
        read_timeout_s: float = 120.0,
        resolver: AbstractResolver | None = None,
        headers: Mapping[str, str] | None = None,
        proxy_of: Callable[[URL], str | None] | None = None,
    ) -> None:
        self._proxy_of = proxy_of
        self._tls = tls or HostTls()
        self._reply_timeout_s = reply_timeout_s
        self._reading = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s)
        write_timeout_s = max(read_timeout_s, WRITE_TIMEOUT_S)
        self._writing = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=write_timeout_s)
        self._resolver = resolver
        self._headers = headers or {}
        self._opened: Connections | None = None
        self._networks: LRUCache[str, Network] = LRUCache(MAX_PEERS)
        """Where each registry was when it last answered, by its host."""

    async def __aenter__(self) -> Transport:
        self._opened = Connections(self._reading, self._resolver or aiohttp.DefaultResolver())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        data: Body = None,
        reach: Reach | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """The reply to a request, redirects of GET and HEAD followed; its body is still to be read.

        ``reach`` is how far the registry is trusted that gave us the URL or redirects us (None = anywhere). Leaving
        early gives the connection up. Raises Unreachable when no usable reply comes, also while the body is
        read inside; RegistryError for a place where we must not go; whatever the source of ``data`` raises.
        """
        body = _Upload(data) if data is not None and not isinstance(data, bytes) else data
        response: ClientResponse | None = None
        try:
            response = await self._send(method, url, headers or {}, body, reach)
            yield response
        except aiohttp.ClientConnectionResetError:
            # Raised by aiohttp's *server* too, when whoever we serve has gone: not the registry's failure.
            raise
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, aiohttp.ClientResponseError) as error:
            raise unanswered(method, url, error) from error
        finally:
            if response is not None:
                response.release()
                await response.wait_for_close()
            if isinstance(body, _Upload):
                await body.left()

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | _Upload | None, reach: Reach | None
    ) -> Reply:
        nearest = self._networks.get(reach.host, Network.PUBLIC) if reach is not None else None
        try:
            target = Target(parse_url(url), headers)
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._once(method, target, body, self._session(target.url, reach, nearest))
                nearest = self._note(response, reach, nearest)
                following = self._follow(method, target, response)
                if following is None:
                    return response
                response.release()
                target = following
        except RefusedRedirect as error:
            raise Misled(method, url, reason=str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if isinstance(body, _Upload) and body.error is not None:
                raise body.error from error
            raise unanswered(method, url, error) from error
        raise InvalidReply(method, url, response.status, reason=f"redirects more than {MAX_REDIRECTS} times")

    def _session(self, url: URL, reach: Reach | None, nearest: Network | None) -> aiohttp.ClientSession:
        """What to reach the URL by. Raises RefusedRedirect."""
        if self._opened is None:
            raise RuntimeError("the transport is not open: use it as an async context manager")
        host = url.host or ""
        if reach is None:
            return self._opened.session(host, None)
        reach.check(host)
        return self._opened.session(host, None if reach.is_trusted(host) else nearest)

    def _note(self, response: Reply, reach: Reach | None, nearest: Network | None) -> Network | None:
        """How near the next step may lead: no nearer than any before it, counted from where the registry itself is."""
        if reach is None:
            return None
        network = network_of(response.peer)
        here = network if network is not None else Network.PRIVATE
        if reach.is_own(response.url.host or ""):
            self._networks[reach.host] = here
            return here
        return max(here, nearest or here)

    def _follow(self, method: str, target: Target, response: Reply) -> Target | None:
        try:
            return follow(target, method, response.status, response.headers.get("Location"))
        except RefusedRedirect:
            response.release()
            raise

    async def _once(
        self, method: str, target: Target, body: bytes | _Upload | None, session: aiohttp.ClientSession
    ) -> Reply:
        reads = method in ("GET", "HEAD")
        async with asyncio.timeout(self._reply_timeout_s if reads else None):
            reply = await session.request(
                method,
                target.url,
                headers={**self._headers, **target.headers},
                data=_payload(body),
                allow_redirects=False,
                ssl=self._tls.of(target.url),
                proxy=self._proxy_of(target.url) if self._proxy_of is not None else None,
                timeout=self._reading if reads else self._writing,
            )
        assert isinstance(reply, Reply)
        return reply


def _payload(body: bytes | _Upload | None) -> bytes | _Upload | BinaryIO | None:
    """The body as aiohttp wants it: long bytes as a file, which it sends piece by piece."""
    return BytesIO(body) if isinstance(body, bytes) and len(body) > WHOLE_BYTES else body


class _Upload:
    """The body of a request as aiohttp reads it.

    Remembers the source's own failure, which aiohttp would report as one of the connection.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._idle = asyncio.Event()
        self._idle.set()
        self.error: Exception | None = None

    def __aiter__(self) -> _Upload:
        return self

    async def __anext__(self) -> bytes:
        self._idle.clear()
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        finally:
            self._idle.set()

    async def left(self) -> None:
        """Returns when aiohttp has let go of the source, so that it can be closed."""
        await self._idle.wait()


def unanswered(method: str, url: str, error: Exception) -> RegistryError:
    """The error that stands for no usable reply, or for one that broke off."""
    if isinstance(error, aiohttp.ClientConnectorDNSError) and isinstance(error.os_error, RefusedAddress):
        return Misled(method, url, reason=str(error.os_error))
    found = Unreachable(method, url, reason=reason_of(error))
    found.timed_out = isinstance(error, TimeoutError)
    return found


def reason_of(error: Exception) -> str:
    """Why there was no reply, in plain words; never with a URL's query."""
    match error:
        case aiohttp.ClientConnectorError():
            return _not_connected(error)
        case aiohttp.ClientHttpProxyError():
            return f"the HTTP proxy answers {error.status}"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | ConnectionError():
            return "the connection was closed before the reply was complete"
        case aiohttp.ClientResponseError():
            return "the reply is not HTTP that can be understood"
        case aiohttp.InvalidURL() | ValueError():
            return "that is not a URL that can be requested"
        case OSError():
            return error.strerror or type(error).__name__
        case _:
            return type(error).__name__


def _not_connected(error: aiohttp.ClientConnectorError) -> str:
    match error:
        case aiohttp.ClientProxyConnectionError():
            return f"cannot connect to the HTTP proxy {error.host}:{error.port}"
        case aiohttp.ClientConnectorCertificateError():
            return f"its TLS certificate cannot be trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorDNSError():
            return f"the host name {error.host} cannot be resolved"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS failed: {error.os_error.strerror or error.os_error}"
        case _:
            return f"cannot connect: {error.os_error.strerror or error.os_error}"


async def failure(method: str, url: str, response: ClientResponse) -> RegistryError:
    """The error that a reply stands for, with what its body says."""
    try:
        body = await read_limited(response, ERROR_BODY_BYTES, "the error")
    except (InvalidReply, aiohttp.ClientError):
        body = b""
    return error_of(method, url, response.status, response.headers, body, now=datetime.now(UTC))


def check_plain(response: ClientResponse) -> None:
    """Returns when the body is as it is stored. Raises InvalidReply when it was compressed, which we never ask for."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        reason = "the body came compressed, though it was asked for as it is"
        raise InvalidReply(response.method, str(response.url), response.status, reason=reason)


async def read_limited(response: ClientResponse, limit_bytes: int, what: str) -> bytes:
    """The whole body, at most ``limit_bytes`` of it. Raises InvalidReply when ``what`` is longer."""
    parts: list[bytes] = []
    total = 0
    async for part in response.content.iter_any():
        total += len(part)
        if total > limit_bytes:
            reason = f"{what} is longer than {limit_bytes} bytes"
            raise InvalidReply(response.method, str(response.url), response.status, reason=reason)
        parts.append(part)
    return b"".join(parts)
