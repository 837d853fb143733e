"""A context and a file of ADD that come over TLS through a tunnel of an HTTP proxy (RFC 9110, CONNECT)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.builder.servers import Web, serving
from tests.builder.test_contexts import packed
from tests.integration.building import Builder
from tests.s3_servers import make_certificate

NOWHERE = "https://127.0.0.1:1"
"""Where nobody listens: what comes from there has come through the proxy."""
CREDENTIALS = f"Basic {base64.b64encode(b'user:sesame').decode()}"


@asynccontextmanager
async def connect_proxy(port: int, asked: list[bytes]) -> AsyncIterator[str]:
    """The address of a proxy whose every tunnel ends at ``port`` of this machine; ``asked`` gets the requests."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request)
        allowed = f"Proxy-Authorization: {CREDENTIALS}".encode() in request
        if not allowed:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        there = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer), return_exceptions=True)

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_context_and_a_file_come_through_the_proxy(tmp_path: Path):
    make_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "cert.pem").read_bytes() + (tmp_path / "key.pem").read_bytes())
    asked: list[bytes] = []
    with serving(Web(both)) as web:
        web.answer("/c.tar", (200, {}, packed({"Dockerfile": f"FROM scratch\nADD {NOWHERE}/f /f\n"})))
        web.answer("/f", (200, {}, b"f\n"))
        async with connect_proxy(web.server.server_port, asked) as address:
            environ = {"SSL_CERT_FILE": str(tmp_path / "cert.pem"), "HTTPS_PROXY": f"http://user:sesame@{address}"}
            given = (f"{NOWHERE}/c.tar", "--no-push")
            ended = await asyncio.to_thread(Builder(tmp_path / "home", environ).must, *given)
            environ["HTTPS_PROXY"] = f"http://user:wrong@{address}"
            refused = await asyncio.to_thread(Builder(tmp_path / "home", environ).build, *given)
    assert [path for path, _ in web.asked] == ["/c.tar", "/f"]
    assert all(request.startswith(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n") for request in asked)
    assert (ended.status, refused.status) == (0, 1)
    assert not any(secret in ended.output + refused.output for secret in ("sesame", "wrong", CREDENTIALS))
    assert f"cannot fetch {NOWHERE}/c.tar: the proxy answered 407 Proxy Authentication Required" in refused.output
