"""A server on a real socket that answers as a test tells it: for faults that a real registry cannot be made to show."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from multidict import CIMultiDict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """One request that came in."""

    method: str
    path: str
    query: str
    headers: CIMultiDict[str]


@dataclass
class Fake:
    """A running fake: where it is, and what it was asked."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)

    def count(self, method: str, part: str = "") -> int:
        """How many requests of this method had ``part`` in their path."""
        return sum(request.method == method and part in request.path for request in self.seen)


@asynccontextmanager
async def fake_registry(
    handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Fake]:
    """A server whose every reply is what ``handler`` makes."""
    fake = Fake()

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = CIMultiDict(request.headers)
        fake.seen.append(
            Seen(request.method, request.raw_path.partition("?")[0], request.rel_url.raw_query_string, headers)
        )
        return await handler(request)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        fake.url = f"{'https' if tls else 'http'}://{host}:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()


def self_signed(folder: Path) -> ssl.SSLContext:
    """The server side of TLS with a certificate for 127.0.0.1 that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(alternative, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def send_part(request: web.Request, body: bytes, announced_bytes: int, status: int = 200, **headers: str):
    """Announces so many bytes, sends ``body``, and breaks the connection."""
    response = web.StreamResponse(
        status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    response.content_length = announced_bytes
    await response.prepare(request)
    await response.write(body)
    assert request.transport is not None
    request.transport.close()
    return response
