"""Connections over TLS that are given up while the server has more to say, and does not end them either."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from cache.oci.connections import Connections
from cache.s3.location import S3Location
from cache.s3.session import S3Session
from cache.s3.wire import NOTHING, S3Wire
from tests.s3_servers import BUCKET, make_certificate

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000)


@contextmanager
def stalling_server(directory: Path) -> Iterator[str]:
    """A server that begins one reply and then neither sends nor reads."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    done = threading.Event()

    def serve() -> None:
        with listening.accept()[0] as plain, served.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(BEGUN)
            done.wait()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


async def leave_a_registry(url: str) -> None:
    connections = Connections(aiohttp.ClientTimeout(), aiohttp.ThreadedResolver())
    reply = await connections.session("127.0.0.1", None).get(url)
    await reply.content.readany()
    reply.release()
    await connections.close()


async def leave_a_bucket(url: str) -> None:
    session = S3Session(S3Location(BUCKET, "", url, "us-east-1"))
    wire = S3Wire(session)
    reply = await wire.send("GET", "key", "", {}, NOTHING)
    await reply.read()
    reply.close()
    await wire.close()
    await session.close()


@pytest.mark.parametrize("leave", [leave_a_registry, leave_a_bucket])
def test_nothing_is_open_when_the_program_ends(
    leave, tmp_path: Path, s3_credentials: None, monkeypatch: pytest.MonkeyPatch
):
    make_certificate(tmp_path)
    for variable in ("SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(tmp_path / "cert.pem"))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context())
    with stalling_server(tmp_path) as url, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(leave(url))
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
