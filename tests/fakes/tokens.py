"""A Bearer token server (distribution's "Token Authentication Specification") in front of a real docker-registry."""

from __future__ import annotations

import base64
import datetime
import functools
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import BasicAuth, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.peers import Registry, start_registry

SERVICE = "registry.tests"
ISSUER = "tokens.tests"
IDENTITY_TOKEN = "identity-token-of-crossdock"


@dataclass
class TokenServer:
    """What the server knows and has seen; tests change its attributes to script it."""

    users: dict[str, str] = field(default_factory=lambda: {"crossdock": "correct horse"})
    anonymous_pull: bool = True
    granted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The prefixes of the repositories that a user may use; users who are not named here may use all."""
    lifetime_s: int = 300
    issue_bad_tokens: int = 0
    """How many of the next tokens carry a signature that the registry refuses."""
    seen: list[dict[str, str]] = field(default_factory=list)
    """Each request: method, user, scope."""
    url: str = ""
    _key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @functools.cached_property
    def certificate(self) -> x509.Certificate:
        """The self-signed certificate of the signing key."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return builder.not_valid_after(now + datetime.timedelta(days=1)).sign(self._key, hashes.SHA256())

    async def handle(self, request: web.Request) -> web.Response:
        """GET with Basic or nothing; POST with a refresh token."""
        form = await request.post() if request.method == "POST" else request.query
        scopes = [str(value) for value in form.getall("scope", [])]
        user = self._identity(request, str(form.get("refresh_token", "")))
        self.seen.append({"method": request.method, "user": user or "", "scope": " ".join(scopes)})
        if user is None:
            return web.json_response({"details": "incorrect username or password"}, status=401)
        return web.json_response({"token": self._token(user, " ".join(scopes).split()), "expires_in": self.lifetime_s})

    def _identity(self, request: web.Request, refresh_token: str) -> str | None:
        if request.method == "POST":
            return "identity" if refresh_token == IDENTITY_TOKEN else None
        if "Authorization" not in request.headers:
            return ""
        basic = BasicAuth.decode(request.headers["Authorization"], encoding="utf-8")
        return basic.login if self.users.get(basic.login) == basic.password else None

    def _token(self, user: str, scopes: list[str]) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 60, "exp": now + self.lifetime_s}
        access = [granted for scope in scopes if (granted := self._grant(user, scope))]
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        parts = (header, claims | {"jti": secrets.token_hex(8), "access": access})
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
        if self.issue_bad_tokens:
            self.issue_bad_tokens -= 1
            return f"{signed.decode()}.{_base64url(bytes(256)).decode()}"
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return f"{signed.decode()}.{_base64url(signature).decode()}"

    def _grant(self, user: str, scope: str) -> dict[str, Any] | None:
        kind, name, actions = scope.split(":")
        if not name.startswith(self.granted.get(user, ("",))):
            return None
        wanted = set(actions.split(","))
        allowed = wanted if user else wanted & ({"pull"} if self.anonymous_pull else set())
        return {"type": kind, "name": name, "actions": sorted(allowed)} if allowed else None


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@asynccontextmanager
async def start_token_server() -> AsyncIterator[TokenServer]:
    """A token server at ``TokenServer.url`` (its realm)."""
    server = TokenServer()
    app = web.Application()
    app.router.add_route("*", "/token", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    try:
        yield server
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class TokenRegistry:
    """A real registry and the token server that it trusts."""

    registry: Registry
    tokens: TokenServer
    username: str = "crossdock"
    password: str = "correct horse"


@asynccontextmanager
async def start_token_registry(tmp: Path) -> AsyncIterator[TokenRegistry]:
    """A docker-registry that wants Bearer tokens, with the server that issues them."""
    async with start_token_server() as tokens:
        tmp.mkdir(parents=True, exist_ok=True)
        bundle = tmp / "tokens.pem"
        bundle.write_bytes(tokens.certificate.public_bytes(serialization.Encoding.PEM))
        auth = {"realm": tokens.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
        with start_registry(tmp, auth={"token": auth}) as registry:
            yield TokenRegistry(registry, tokens)


@pytest.fixture
async def token_registry(tmp_path: Path) -> AsyncIterator[TokenRegistry]:
    """An empty registry behind Bearer tokens: anonymous users may pull, ``crossdock`` may do all."""
    async with start_token_registry(tmp_path / "token-registry") as started:
        yield started
