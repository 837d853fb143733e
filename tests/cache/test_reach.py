"""Where a registry may send us: token servers, redirects and uploads' places, by name and by the address behind it.

The machine has no address in the internet to serve from, so two loopback addresses play the parts: ``PUBLIC`` and
``PRIVATE``.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from cache.oci import networks, transport
from cache.oci.client import RegistryClient
from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from cache.oci.errors import Misled, Unreachable
from cache.oci.networks import Network, may_reach, network_of
from cache.oci.reach import Reach, is_own_realm
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from tests.fakes.registry import Fake, fake_registry

PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"
DATA = b"content"
DIGEST = Digest.of(DATA)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("8.8.8.8", Network.PUBLIC),
        ("2606:4700::1", Network.PUBLIC),
        ("10.1.2.3", Network.PRIVATE),
        ("192.168.0.1", Network.PRIVATE),
        ("172.31.0.1", Network.PRIVATE),
        ("100.64.0.1", Network.PRIVATE),
        ("fd00::1", Network.PRIVATE),
        ("::ffff:10.0.0.1", Network.PRIVATE),
        ("64:ff9b::a00:1", Network.PRIVATE),
        ("2002:a00:1::", Network.PRIVATE),
        ("127.0.0.1", Network.LOOPBACK),
        ("::1", Network.LOOPBACK),
        ("::ffff:127.9.9.9", Network.LOOPBACK),
        ("169.254.169.254", None),
        ("::ffff:169.254.169.254", None),
        ("64:ff9b::a9fe:a9fe", None),
        ("fe80::1%eth0", None),
        ("fd00:ec2::254", None),
        ("100.100.100.200", None),
        ("0.0.0.0", None),
        ("::", None),
        ("224.0.0.1", None),
        ("ff02::1", None),
        ("255.255.255.255", None),
        ("name.test", None),
    ],
)
def test_how_far_out_an_address_is(address: str, network: Network | None):
    assert network_of(address) is network
    assert may_reach(Network.PUBLIC, address) is (network is Network.PUBLIC)
    assert may_reach(Network.PRIVATE, address) is (network in (Network.PUBLIC, Network.PRIVATE))
    assert may_reach(Network.LOOPBACK, address) is (network is not None)


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry-1.docker.io", "AUTH.Docker.io.", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("ghcr.io", "ghcr.io", True),
        ("a.registry.corp.test", "auth.corp.test", False),
        ("a.registry.corp.test", "x.y.registry.corp.test", True),
        ("registry-1.docker.io", "docker.io.evil.test", False),
        ("registry-1.docker.io", "evildocker.io", False),
        ("ghcr.io", "evil.io", False),
        ("gitlab.com", "registry.com", False),
        ("registry.co.uk", "evil.co.uk", False),
        ("registry.corp.co.uk", "auth.corp.co.uk", True),
        ("registry", "registry", True),
        ("registry", "auth", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "20.0.0.1", False),
        ("1.10.0.0", "2.10.0.0", False),
        ("localhost", "evil.localhost", False),
        ("[::1]", "::2", False),
    ],
)
def test_which_token_servers_go_with_a_registry(registry: str, realm: str, trusted: bool):
    assert is_own_realm(registry, realm) is trusted


@dataclass
class Names(AbstractResolver):
    """A resolver that knows what it is told."""

    addresses: dict[str, list[str]] = field(default_factory=dict)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self.addresses:
            raise OSError(f"{host} is no name here")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.addresses[host]
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The names in these tests; 127.0.0.1 counts as public and 127.0.0.2 as private."""
    parts = {PUBLIC: Network.PUBLIC, PRIVATE: Network.PRIVATE}
    for module in (networks, transport):
        monkeypatch.setattr(module, "network_of", lambda host: parts.get(host) or network_of(host))
    return Names(
        {
            "registry.corp.test": [PUBLIC],
            "inner.corp.test": [PRIVATE],
            "cdn.test": [PUBLIC],
            "private.test": [PRIVATE],
            "both.test": [PRIVATE, PUBLIC],
            "metadata.test": ["169.254.169.254"],
        }
    )


@dataclass
class World:
    """A registry that sends its clients elsewhere, and that elsewhere."""

    names: Names
    there: dict[str, Fake]
    location: str = ""
    """Where blobs and uploads are; ``{public}`` and ``{private}`` stand for the ports there."""
    realm: str = ""
    token_location: str = ""

    def place(self, text: str) -> str:
        return text.format(**{name: fake.url.rpartition(":")[2] for name, fake in self.there.items()})

    async def registry(self, request: web.Request) -> web.Response:
        if self.realm and not request.headers.get("Authorization", "").startswith("Bearer"):
            challenge = f'Bearer realm="{self.place(self.realm)}",service="s"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if not self.location:
            return web.Response(body=DATA)
        status = 202 if request.method == "POST" else 307
        return web.Response(status=status, headers={"Location": self.place(self.location)})

    async def elsewhere(self, request: web.Request) -> web.Response:
        if request.path == "/again":
            return web.Response(status=307, headers={"Location": self.place("http://private.test:{private}/blob")})
        if request.path == "/token":
            if self.token_location:
                return web.Response(status=307, headers={"Location": self.place(self.token_location)})
            return web.json_response({"token": "a-token"})
        return web.Response(body=DATA, status=201 if request.method == "PUT" else 200)


@asynccontextmanager
async def world(names: Names) -> AsyncIterator[World]:
    made = World(names, {})
    async with (
        fake_registry(made.registry) as public_registry,
        fake_registry(made.registry, host=PRIVATE) as private_registry,
        fake_registry(made.elsewhere) as public,
        fake_registry(made.elsewhere, host=PRIVATE) as private,
    ):
        made.there.update(registry=public_registry, inner=private_registry, public=public, private=private)
        yield made


@asynccontextmanager
async def client(world: World, base: str, reach: Reach | None) -> AsyncIterator[RegistryClient]:
    async with Transport(resolver=world.names) as opened:
        yield RegistryClient(
            opened, world.place(base), Credential("u", "secret"), reach=reach, backoff=Backoff(tries=1)
        )


async def fetch(world: World, base: str, reach: Reach | None) -> bytes:
    """The blob as a client gets it."""
    async with client(world, base, reach) as registry, registry.open_blob("a", DIGEST) as reply:
        return b"".join([chunk async for chunk in reply.chunks])


OUTER, INNER = "http://registry.corp.test:{registry}", "http://inner.corp.test:{inner}"
ALLOWED = Reach(private_hosts=frozenset({"private.test"}))


@pytest.mark.parametrize(
    ("base", "location", "reach"),
    [
        (OUTER, "http://cdn.test:{public}/blob", Reach()),
        (OUTER, "http://both.test:{public}/blob", Reach()),
        (OUTER, "http://private.test:{private}/blob", ALLOWED),
        (OUTER, "http://PRIVATE.test.:{private}/blob", ALLOWED),
        (OUTER, "http://private.test:{private}/blob", None),
        (INNER, "http://private.test:{private}/blob", Reach()),
        (INNER, "http://cdn.test:{public}/blob", Reach()),
    ],
)
async def test_redirects_that_are_followed(names: Names, base: str, location: str, reach: Reach | None):
    names.addresses |= {"PRIVATE.test.": [PRIVATE], "private.test.": [PRIVATE]}
    async with world(names) as made:
        made.location = location
        assert await fetch(made, base, reach) == DATA


@pytest.mark.parametrize(
    ("base", "location"),
    [
        (OUTER, "http://private.test:{private}/blob"),
        (OUTER, "http://10.0.0.1/blob"),
        (OUTER, "http://[::ffff:10.0.0.1]/blob"),
        (OUTER, "http://100.64.0.1/blob"),
        (OUTER, "http://0.0.0.0/blob"),
        (OUTER, "http://metadata.test/latest"),
        (OUTER, "http://cdn.test:{public}/again"),
        (INNER, "http://metadata.test/latest"),
        (INNER, "http://169.254.169.254/latest"),
        (INNER, "http://cdn.test:{public}/again"),
    ],
)
async def test_redirects_into_nearer_networks_are_refused(names: Names, base: str, location: str):
    async with world(names) as made:
        made.location = location
        with pytest.raises(Misled) as caught:
            await fetch(made, base, Reach())
        assert not caught.value.temporary
        assert not made.there["private"].seen


async def test_a_name_that_cannot_be_resolved_is_no_refusal(names: Names):
    async with world(names) as made:
        made.location = "http://nowhere.test/blob"
        with pytest.raises(Unreachable):
            await fetch(made, OUTER, Reach())


@pytest.mark.parametrize(
    ("base", "reach", "taken"),
    [(OUTER, Reach(), False), (INNER, Reach(), True), (OUTER, ALLOWED, True), (OUTER, None, True)],
)
async def test_an_uploads_place_is_as_limited_as_a_redirect(names: Names, base: str, reach: Reach | None, taken: bool):
    async with world(names) as made, client(made, base, reach) as registry:
        made.location = "http://private.test:{private}/upload"
        location = await registry.start_upload("a")
        if taken:
            await registry.put_upload(location, DIGEST)
        else:
            with pytest.raises(Misled):
                await registry.put_upload(location, DIGEST)
        assert len(made.there["private"].seen) == taken


@pytest.mark.parametrize("place", ["http://169.254.169.254/x", "http://localhost/x", "http://u:p@cdn.test/x"])
async def test_an_uploads_place_by_address_is_checked_for_everybody(names: Names, place: str):
    async with world(names) as made, client(made, OUTER, None) as registry:
        made.location = place
        with pytest.raises(Exception, match="sends us"):
            await registry.start_upload("a")


@pytest.mark.parametrize(
    ("realm", "token_location", "reach"),
    [
        ("http://auth.corp.test:{public}/token", "", Reach()),
        ("http://cdn.test:{public}/token", "", Reach(realm_hosts=frozenset({"cdn.test"}))),
        ("http://private.test:{private}/token", "", Reach(realm_hosts=frozenset({"private.test"}))),
        ("http://cdn.test:{public}/token", "", None),
        ("http://auth.corp.test:{public}/token", "http://other.corp.test:{public}/other", Reach()),
    ],
)
async def test_token_servers_that_are_trusted(names: Names, realm: str, token_location: str, reach: Reach | None):
    names.addresses |= {"auth.corp.test": [PUBLIC], "other.corp.test": [PUBLIC]}
    async with world(names) as made:
        made.realm, made.token_location = realm, token_location
        if token_location:
            with pytest.raises(Exception, match="token server"):  # it was followed, to what gives no token
                await fetch(made, OUTER, reach)
        else:
            assert await fetch(made, OUTER, reach) == DATA


@pytest.mark.parametrize(
    ("realm", "token_location"),
    [
        ("http://cdn.test:{public}/token", ""),
        ("http://inside.corp.test:{private}/token", ""),
        ("http://private.test:{private}/token", ""),
        ("http://auth.corp.test:{public}/token", "http://cdn.test:{public}/other"),
    ],
)
async def test_token_servers_elsewhere_see_nothing(names: Names, realm: str, token_location: str):
    names.addresses |= {"auth.corp.test": [PUBLIC], "inside.corp.test": [PRIVATE]}
    async with world(names) as made:
        made.realm, made.token_location = realm, token_location
        with pytest.raises(Misled) as caught:
            await fetch(made, OUTER, Reach())
        seen = [request for name in ("public", "private") for request in made.there[name].seen]
        assert [request.path for request in seen] == (["/token"] if token_location else [])
        said = str(caught.value)
        assert "secret" not in said
        if "cdn.test" in realm:
            assert all(part in said for part in ("cdn.test", "registry.corp.test", "realm-host"))
