"""aiohttp sessions for registries and for where they send us, kept apart by how near to us they may lead.

They change nothing on the way. aiohttp's defaults are wrong for blobs: a total time-out of five minutes, bodies
decompressed, redirects followed with their URLs quoted anew and limits on headers that long tokens and signed URLs
exceed.

The addresses that a name resolves to are checked where they are about to be connected to, so a name that means another
address a moment later (DNS rebinding) leads nowhere either.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from cache.oci.networks import Network, may_reach, parse_address
from cache.oci.redirect import RefusedRedirect
from cache.tls import ABORTS_WHAT_IS_CLOSED

MAX_CONNECTIONS = 256
HEADER_BYTES = 64 * 1024
READ_BUFFER_BYTES = 1 << 19
DNS_TTL_S = 30
USER_AGENT = "crossdock"


class RefusedAddress(OSError):
    """A name that resolves only to addresses where we may not be sent."""


class Reply(aiohttp.ClientResponse):
    """A reply that remembers the address of who gave it, "" when that is not known."""

    peer: str = ""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        place = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        self.peer = place[0] if place else ""
        return await super().start(connection)


class Connections:
    """HTTP sessions by the nearest network that they may lead to; None = wherever, for hosts that are configured."""

    def __init__(self, timeout: aiohttp.ClientTimeout, resolver: AbstractResolver) -> None:
        self._timeout = timeout
        self._resolver = resolver
        self._sessions: dict[Network | None, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Closes all sessions."""
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    def session(self, host: str, nearest: Network | None) -> aiohttp.ClientSession:
        """The session for a request to ``host``, which must be no nearer than ``nearest``.

        Raises RefusedRedirect when it is an IP address that is; for a name the request fails with RefusedAddress.
        """
        if nearest is not None and parse_address(host) is not None and not may_reach(nearest, host):
            raise RefusedRedirect(_refusal(host))
        if nearest not in self._sessions:
            self._sessions[nearest] = self._open(nearest)
        return self._sessions[nearest]

    def _open(self, nearest: Network | None) -> aiohttp.ClientSession:
        resolver = self._resolver if nearest is None else _Guarded(self._resolver, nearest)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                ttl_dns_cache=DNS_TTL_S,
                resolver=resolver,
                enable_cleanup_closed=ABORTS_WHAT_IS_CLOSED,
            ),
            response_class=Reply,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,
            requote_redirect_url=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT},
        )


class _Guarded(AbstractResolver):
    """Only addresses that are no nearer than ``nearest``."""

    def __init__(self, resolver: AbstractResolver, nearest: Network) -> None:
        self._resolver = resolver
        self._nearest = nearest

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [result for result in found if may_reach(self._nearest, result["host"])]
        if not allowed:
            raise RefusedAddress(_refusal(host))
        return allowed

    async def close(self) -> None:
        """Nothing: the resolver belongs to all sessions."""


def _refusal(host: str) -> str:
    return (
        f"sends us to {host}, at an address in a nearer network than its own:"
        " if that is meant, name that host in a redirect-host setting"
    )
