"""Which names the proxy answers to."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from proxy.auth.hosts import KnownHosts
from tests.proxy.running import get, running_proxy

KNOWN = KnownHosts(frozenset({"proxy.test"}))


@pytest.mark.parametrize(
    ("host", "arrived_at", "accepted"),
    [
        ("proxy.test", "10.0.0.5", True),
        ("Proxy.Test.:5000", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5:5000", "10.0.0.5", True),
        ("10.0.0.5", "::ffff:10.0.0.5", True),
        ("[fe80::1]:5000", "fe80::1%eth0", True),
        ("[FD00:0::1]", "fd00::1", True),
        ("10.0.0.6", "10.0.0.5", False),
        ("localhost", "10.0.0.5", False),
        ("127.0.0.1", "10.0.0.5", False),
        ("localhost:5000", "127.0.0.1", True),
        ("registry.localhost", "::1", True),
        ("127.0.0.1", "127.0.0.2", True),
        ("[::1]", "127.0.0.1", True),
        ("evil.test", "127.0.0.1", False),
        ("proxy.test.evil.test", "127.0.0.1", False),
        ("evil.test@proxy.test", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("", "", False),
        ("proxy.test:port", "127.0.0.1", False),
    ],
)
def test_which_names_are_ours(host: str, arrived_at: str, accepted: bool):
    assert KNOWN.accept(host, arrived_at) is accepted


async def exchange(url: str, request: str) -> str:
    """The whole answer to bytes that no client library would send."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.replace("\n", "\r\n").encode())
    try:
        return (await asyncio.wait_for(reader.read(), 10)).decode()
    finally:
        writer.close()


@pytest.mark.parametrize("path", ["/v2/", "/healthz", "/_crossdock/v1/token", "/nothing"])
async def test_an_unknown_host_is_refused_before_anything_else(tmp_path: Path, path: str):
    async with running_proxy(tmp_path, {}, hosts=("proxy.test",)) as proxy:
        status, headers, body = await get(proxy.url + path, Host="evil.test")
        assert (status, "WWW-Authenticate" in headers) == (421, False)
        assert b"--host" in body
        assert b"evil.test" not in body
        for host in ("proxy.test:80", "localhost", socket.gethostname()):
            assert (await get(proxy.url + path, Host=host))[0] in (200, 401, 404)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /healthz HTTP/1.1\nConnection: close\n\n", 400),
        ("GET /healthz HTTP/1.0\n\n", 400),
        ("GET /healthz HTTP/1.1\nHost: localhost\nHost: localhost\nConnection: close\n\n", 400),
        ("GET /healthz HTTP/1.1\nHost:\nConnection: close\n\n", 421),
        ("GET http://evil.test/healthz HTTP/1.1\nHost: localhost\nConnection: close\n\n", 421),
        ("GET /healthz HTTP/1.1\nHost: localhost\nConnection: close\n\n", 200),
    ],
)
async def test_hosts_that_are_missing_or_there_twice(tmp_path: Path, request_: str, status: int):
    async with running_proxy(tmp_path, {}) as proxy:
        assert (await exchange(proxy.url, request_)).split()[1] == str(status)
