"""HTTPS: what is served with which certificate, and what happens when its files change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog

from cache.oci.digest import Digest
from proxy import certificate
from proxy.certificate import Certificate
from proxy.config import Tls
from proxy.errors import ConfigError
from tests.fakes.registry import self_signed
from tests.proxy.running import Proxy, running_proxy

DATA = bytes(range(256)) * 400
DIGEST = Digest.of(DATA)


def make_files(folder: Path) -> Tls:
    """A certificate and its key, in one file; made anew at each call."""
    self_signed(folder)
    return Tls(folder / "server.pem", folder / "server.pem")


def anybody() -> ssl.SSLContext:
    """A client that trusts everybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def tls_proxy(tmp_path: Path, files: Tls) -> AsyncIterator[Proxy]:
    async with running_proxy(tmp_path, {}, tls=files) as proxy:
        yield Proxy(proxy.url.replace("http:", "https:"), proxy.store)


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = proxy.url.removeprefix("https://").partition(":")
    return await asyncio.open_connection(host, int(port), ssl=anybody())


@asynccontextmanager
async def kept_connection(proxy: Proxy) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """One connection, and how to ask by it whether the proxy is well."""
    reader, writer = await connect(proxy)

    async def is_healthy() -> bool:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        return b" 200 OK" in head and await reader.readexactly(3) == b"ok\n"

    try:
        yield is_healthy
    finally:
        writer.close()
        await writer.wait_closed()


async def shown_certificate(proxy: Proxy) -> bytes:
    """What a new connection is shown."""
    _, writer = await connect(proxy)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown
    finally:
        writer.close()
        await writer.wait_closed()


async def wait_for_another(proxy: Proxy, first: bytes) -> bytes:
    """The certificate that comes after ``first``."""
    async with asyncio.timeout(20):
        while (shown := await shown_certificate(proxy)) == first:
            await asyncio.sleep(0.01)
    return shown


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(certificate, "CHECK_S", 0.01)
    async with tls_proxy(tmp_path, make_files(tmp_path)) as proxy, kept_connection(proxy) as is_healthy:
        assert await is_healthy()
        first = await shown_certificate(proxy)
        make_files(tmp_path)
        second = await wait_for_another(proxy, first)
        assert await is_healthy()
        (tmp_path / "server.pem").write_text("half a file")
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(20):
                while not logs:
                    await asyncio.sleep(0.01)
        assert logs[0]["event"] == "certificate_not_usable"
        assert await shown_certificate(proxy) == second
        make_files(tmp_path)
        assert await wait_for_another(proxy, second) != first


async def test_https_is_what_clients_are_told(tmp_path: Path):
    async with (
        tls_proxy(tmp_path, make_files(tmp_path)) as proxy,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=anybody())) as session,
    ):
        forged = {
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": "evil.test",
            "Forwarded": "proto=http;host=evil.test",
        }
        async with session.get(f"{proxy.url}/v2/", headers=forged) as response:
            assert response.status == 401
            assert f'realm="{proxy.url}/_crossdock/v1/token"' in response.headers["WWW-Authenticate"]
        async with session.post(f"{proxy.url}/v2/cache/a/blobs/uploads/?digest={DIGEST}", data=DATA) as response:
            assert response.status == 201
        async with session.get(f"{proxy.url}/v2/cache/a/blobs/{DIGEST}") as response:
            assert await response.read() == DATA


def test_old_tls_is_not_spoken(tmp_path: Path):
    assert Certificate(make_files(tmp_path)).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used_are_named_at_start(tmp_path: Path):
    good = make_files(tmp_path).certificate
    (tmp_path / "other").mkdir()
    other = make_files(tmp_path / "other").certificate
    (tmp_path / "text").write_text("not PEM")
    for certificate_, key in ((tmp_path / "none", good), (good, tmp_path / "text"), (good, tmp_path)):
        with pytest.raises(ConfigError, match=str(tmp_path)):
            Certificate(Tls(certificate_, key))
    only_key = tmp_path / "only-key"
    only_key.write_text(other.read_text().partition("-----BEGIN CERTIFICATE")[0])
    with pytest.raises(ConfigError, match="MISMATCH"):
        Certificate(Tls(good, only_key))
