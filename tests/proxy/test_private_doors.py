"""Two identities and one private image: by no door does the second learn that the proxy holds it.

Each door is asked twice by somebody who may not read the image: for what the proxy holds, and for what it never saw.
Status, headers and body must be the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import aiohttp
import bcrypt
import pytest
from aiohttp import web

from cache.oci import media_types
from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.digest import Digest
from proxy.auth.rights import Rule, Rules
from proxy.config import Freshness, Upstream
from proxy.requests import pushing
from tests.fakes.registry import Fake, Seen, fake_registry
from tests.fakes.tokens import start_token_registry
from tests.peers import start_registry
from tests.proxy.running import (
    UPSTREAM,
    Image,
    Proxy,
    Script,
    client_of,
    get,
    make_image,
    push,
    running_proxy,
)
from tests.proxy.test_private import basic

ALICE = Credential("crossdock", "correct horse")
BOB = Credential("bob", "battery staple")
KEY, OTHER_KEY = "1" * 64, "2" * 64


@dataclass(frozen=True)
class Wanted:
    """Something that a client might look for: a tag, a manifest and a blob of a repository."""

    repository: str
    tag: str
    manifest: Digest
    blob: Digest

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        return (
            ("manifest", str(self.manifest)),
            ("blob", str(self.blob)),
            ("tag", self.tag),
            ("repository", self.repository),
        )


class Door(NamedTuple):
    """One request. ``headers`` are what it sends beside credentials."""

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


def doors(wanted: Wanted, mine: tuple[str, ...]) -> list[Door]:
    """Every way to ask for it, in its own repository and by way of ``mine``, repositories of who asks."""
    repository, tag, manifest, blob = wanted.repository, wanted.tag, wanted.manifest, wanted.blob
    accepted = (("Accept", media_types.OCI_MANIFEST),)
    reading = [
        Door(method, f"/v2/{place}/{path}", None, headers)
        for place in (repository, *mine)
        for method in ("GET", "HEAD")
        for path, headers in (
            (f"manifests/{tag}", ()),
            (f"manifests/{manifest}", ()),
            (f"manifests/{manifest}", accepted),
            (f"manifests/{manifest}", (("If-None-Match", f'"{manifest}"'),)),
            (f"blobs/{blob}", ()),
            (f"blobs/{blob}", (("Range", "bytes=0-9"),)),
            (f"blobs/{blob}", (("Range", "bytes=999999999-"),)),
            (f"blobs/{blob}", (("If-None-Match", f'"{blob}"'),)),
            (f"blobs/{manifest}", ()),
            (f"manifests/{blob}", ()),
            (f"referrers/{manifest}", ()),
            ("tags/list", ()),
            ("tags/list?n=1", ()),
        )
    ]
    lookups = [
        Door("POST", "/_crossdock/v1/lookup", json.dumps({"repository": place, "keys": [tag]}).encode())
        for place in (repository, *mine)
    ]
    naming = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {"mediaType": media_types.OCI_CONFIG, "digest": str(blob), "size": 2},
            "layers": [{"mediaType": media_types.OCI_LAYER, "digest": str(blob), "size": 2}],
        }
    ).encode()
    uploads = [
        Door(method, f"/v2/{place}/{path}", body, (("Content-Type", kind),))
        for place in (repository, *mine)
        for method, path, body, kind in (
            ("POST", f"blobs/uploads/?mount={blob}&from={repository}", b"", "text/plain"),
            ("POST", f"blobs/uploads/?mount={blob}&from={UPSTREAM}/{repository}", b"", "text/plain"),
            ("POST", f"blobs/uploads/?mount={blob}", b"", "text/plain"),
            ("POST", f"blobs/uploads/?mount={manifest}&from={repository}", b"", "text/plain"),
            ("POST", f"blobs/uploads/?digest={blob}", b"", "application/octet-stream"),
            ("POST", f"blobs/uploads/?digest={blob}", b"other", "application/octet-stream"),
            ("PUT", "manifests/new", naming, media_types.OCI_MANIFEST),
        )
    ]
    return [*reading, *lookups, *uploads, Door("GET", "/v2/_catalog")]


class Answer(NamedTuple):
    """What a client sees, without what differs at each request.

    ``questions`` is how often the upstream was asked for something: a client can tell by the time.
    """

    status: int
    headers: dict[str, str]
    body: str
    questions: int


async def ask(
    session: aiohttp.ClientSession, door: Door, who: Credential, wanted: Wanted, seen: Sequence[Seen]
) -> Answer:
    """The answer at a door, with names in place of what was asked for."""
    before = len(seen)

    def plain(text: str) -> str:
        for name, value in (*wanted.names, ("upload", told.get("Docker-Upload-UUID", "\0"))):
            text = text.replace(value, f"<{name}>")
        return text

    shown = basic(who) | dict(door.headers)
    async with session.request(door.method, door.path, headers=shown, data=door.body) as response:
        told = {name: value for name, value in response.headers.items() if name not in ("Date", "X-Request-ID")}
        body = (await response.read()).decode(errors="replace")
    headers = {name: plain(text) for name, text in told.items()}
    questions = sum(question.method in ("GET", "HEAD") for question in seen[before:])
    return Answer(response.status, headers, plain(body), questions)


@dataclass(frozen=True)
class World:
    """A proxy that holds Alice's image, and what else there is to look for.

    ``mine`` are Bob's own repositories, ``seen`` what the upstream was asked (empty where that cannot be seen).
    """

    proxy: Proxy
    held: Wanted
    mine: tuple[str, ...]
    seen: Sequence[Seen] = ()

    @property
    def never(self) -> tuple[Wanted, Wanted]:
        """What never was: in the same repository, and in one that is not there."""
        none = make_image(99, 1000)
        absent = Wanted(self.held.repository, OTHER_KEY, none.manifest.digest, none.layer)
        return absent, replace(absent, repository=self.held.repository[:-3] + "nil")


async def finish_upload(
    session: aiohttp.ClientSession, place: str, body: bytes, who: Credential, wanted: Wanted
) -> Answer | None:
    """The answer to a new upload that is finished as the wanted blob, with other bytes; None when none can be begun."""
    async with session.post(f"/v2/{place}/blobs/uploads/", headers=basic(who)) as response:
        location = response.headers.get("Location")
    if location is None:
        return None
    door = Door("PUT", f"{location}{'&' if '?' in location else '?'}digest={wanted.blob}", body)
    return await ask(session, door, who, wanted, ())


async def assert_nothing_shows(world: World, who: Credential) -> None:
    """All doors say the same of what is held and of what never was."""
    async with aiohttp.ClientSession(world.proxy.url) as session:
        shown = [await ask(session, door, who, world.held, world.seen) for door in doors(world.held, world.mine)]
        assert all(answer.status < 500 for answer in shown)
        for never in world.never:
            for door, answer in zip(doors(never, world.mine), shown, strict=True):
                assert await ask(session, door, who, never, world.seen) == answer, door


async def read_all(proxy: Proxy, wanted: Wanted, image: Image, who: Credential) -> None:
    """Pulls the image by every name, so that the proxy holds it, and knows it well."""
    base = f"{proxy.url}/v2/{wanted.repository}"
    for path in (
        f"manifests/{wanted.tag}",
        f"manifests/{wanted.manifest}",
        f"referrers/{wanted.manifest}",
        "tags/list",
    ):
        assert (await get(f"{base}/{path}", **basic(who)))[0] == 200, path
    for digest, data in image.blobs.items():
        for _ in range(2):
            status, _, body = await get(f"{base}/blobs/{digest}", **basic(who))
            assert (status, body) == (200, data)


def wanted_of(image: Image, repository: str) -> Wanted:
    return Wanted(repository, KEY, image.manifest.digest, image.layer)


IMAGE, BOBS = make_image(layer_bytes=2000), make_image(7, 1000)
UPLOADED = (b"", b"other", bytes(2000))
"""What is sent as the blob: nothing, too little, and as much as it has."""


@asynccontextmanager
async def bearer_world(tmp_path: Path) -> AsyncIterator[World]:
    """Before a registry whose token server lets each user into some repositories only."""
    async with start_token_registry(tmp_path / "registry") as upstream:
        upstream.tokens.users[BOB.username] = BOB.password
        upstream.tokens.granted[BOB.username] = ("bob/",)
        upstream.tokens.anonymous_pull = False
        async with proxy_before(tmp_path, upstream.registry.url) as world:
            yield world


@asynccontextmanager
async def basic_world(tmp_path: Path) -> AsyncIterator[World]:
    """Before a registry with one password; Bob has another."""
    with start_registry(tmp_path / "registry", htpasswd=True) as upstream:
        async with proxy_before(tmp_path, upstream.url) as world:
            yield world


@asynccontextmanager
async def proxy_before(tmp_path: Path, url: str) -> AsyncIterator[World]:
    """A proxy that has served Alice her image, and Bob his where he has one."""
    async with client_of(url, ALICE) as client:
        await push(client, "secret/app", KEY, IMAGE)
        await push(client, "bob/mine", "1", BOBS)
    async with running_proxy(tmp_path, {UPSTREAM: url}) as proxy:
        await get(f"{proxy.url}/v2/bob/mine/manifests/1", **basic(BOB))
        held = wanted_of(IMAGE, "secret/app")
        await read_all(proxy, held, IMAGE, ALICE)
        yield World(proxy, held, ("bob/mine", "cache/mine"))


@dataclass
class Gate:
    """A registry that lets Alice into ``secret/app``, has nothing for Bob, and hides the rest behind a status.

    What it says depends on the method and the path: nothing of that may reach a client.
    """

    status: int
    script: Script = field(default_factory=Script)

    def __post_init__(self) -> None:
        self.script.blobs = {str(digest): data for digest, data in IMAGE.blobs.items()}
        raw = IMAGE.manifest.raw
        self.script.manifests = {KEY: raw, str(IMAGE.manifest.digest): raw}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="gate"'})
        is_alice = request.headers["Authorization"] == basic(ALICE)["Authorization"]
        if is_alice and request.path.startswith("/v2/secret/app/"):
            return await self.script.handle(request)
        if "/uploads/" in request.path:  # whose place the script makes up
            return await self.script.handle(request)
        words = {"errors": [{"code": "NAME_UNKNOWN", "message": f"{request.method} {request.path}"}]}
        return web.json_response(words, status=404 if request.path.startswith("/v2/bob/") else self.status)


@asynccontextmanager
async def gated_world(tmp_path: Path, status: int) -> AsyncIterator[World]:
    """Before a registry that refuses with this status."""
    async with (
        fake_registry(Gate(status).handle) as upstream,
        running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy,
    ):
        base = f"{proxy.url}/v2/secret/app"
        for path in (f"manifests/{KEY}", f"manifests/{IMAGE.manifest.digest}", *map("blobs/{}".format, IMAGE.blobs)):
            assert (await get(f"{base}/{path}", **basic(ALICE)))[0] == 200
        yield World(proxy, wanted_of(IMAGE, "secret/app"), ("bob/mine", "cache/mine"), upstream.seen)


def forgetful(upstream: Fake) -> dict[str, Upstream]:
    """An upstream that is asked anew for what it does not have, so that each door can be looked at by itself."""
    return {UPSTREAM: Upstream(UPSTREAM, upstream.url, freshness=Freshness(negative_ttl_s=0.0))}


@asynccontextmanager
async def hosted_world(tmp_path: Path) -> AsyncIterator[World]:
    """Local users, each with a prefix of hosted repositories."""
    hashed = {user: bcrypt.hashpw(user.password.encode(), bcrypt.gensalt(4)).decode() for user in (ALICE, BOB)}
    (tmp_path / "users").write_text("".join(f"{user.username}:{text}\n" for user, text in hashed.items()))
    rules = Rules((Rule.parse(f"{ALICE.username} cache/secret all"), Rule.parse(f"{BOB.username} cache/mine all")))
    async with running_proxy(tmp_path, {}, users_file=tmp_path / "users", rules=rules) as proxy:
        async with client_of(proxy.url, ALICE) as client:
            await push(client, "cache/secret/app", KEY, IMAGE)
        held = wanted_of(IMAGE, "cache/secret/app")
        await read_all(proxy, held, IMAGE, ALICE)
        yield World(proxy, held, ("cache/mine/app",))


@asynccontextmanager
async def fetchless_world(tmp_path: Path) -> AsyncIterator[World]:
    """Bob is a local user who may read, but have nothing fetched; Alice is the upstream's."""
    hashed = bcrypt.hashpw(BOB.password.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "users").write_text(f"{BOB.username}:{hashed}\n")
    rules = Rules((Rule.parse("guest * all"), Rule.parse(f"{BOB.username} * read,write")))
    with start_registry(tmp_path / "registry", htpasswd=True) as upstream:
        async with client_of(upstream.url, ALICE) as client:
            await push(client, "secret/app", KEY, IMAGE)
        settings = {"users_file": tmp_path / "users", "rules": rules}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, **settings) as proxy:
            held = wanted_of(IMAGE, "secret/app")
            await read_all(proxy, held, IMAGE, ALICE)
            yield World(proxy, held, ("cache/mine",))


WORLDS: dict[str, Callable[[Path], AbstractAsyncContextManager[World]]] = {
    "bearer": bearer_world,
    "basic": basic_world,
    "forbidden": lambda tmp_path: gated_world(tmp_path, 403),
    "hidden": lambda tmp_path: gated_world(tmp_path, 404),
    "hosted": hosted_world,
    "no right to fetch": fetchless_world,
}


@pytest.fixture(autouse=True)
def spare_every_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the small ones of these tests, where the proxy thinks that it can."""
    monkeypatch.setattr(pushing, "SPARED_BYTES", 1)


@pytest.mark.parametrize("kind", WORLDS)
async def test_nothing_shows_that_the_proxy_holds_it(tmp_path: Path, kind: str):
    async with WORLDS[kind](tmp_path) as world:
        for who in (BOB, ANONYMOUS):
            await assert_nothing_shows(world, who)
        # It is all still there for Alice, and for nobody by way of what the others tried.
        status, _, body = await get(
            f"{world.proxy.url}/v2/{world.held.repository}/blobs/{world.held.blob}", **basic(ALICE)
        )
        assert (status, body) == (200, IMAGE.blobs[IMAGE.layer])
        for mine in world.mine:
            assert (await get(f"{world.proxy.url}/v2/{mine}/blobs/{world.held.blob}", **basic(BOB)))[0] in (401, 404)


@pytest.mark.parametrize("status", [403, 404])
async def test_nothing_shows_of_what_is_being_fetched_for_somebody_else(tmp_path: Path, status: int):
    gate = Gate(status)
    gate.script.pause_at = 500
    held = wanted_of(IMAGE, "secret/app")
    async with (
        fake_registry(gate.handle) as upstream,
        running_proxy(tmp_path, forgetful(upstream)) as proxy,
        aiohttp.ClientSession() as session,
        session.get(f"{proxy.url}/v2/secret/app/blobs/{held.blob}", headers=basic(ALICE)) as leader,
    ):
        assert len(await leader.content.readexactly(100)) == 100
        await assert_nothing_shows(World(proxy, held, ("bob/mine", "cache/mine"), upstream.seen), BOB)
        gate.script.go_on.set()
        assert len(await leader.read()) == 1900


async def test_who_may_not_read_does_not_wait_for_a_fetch_that_has_not_begun(tmp_path: Path):
    gate = Gate(403)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and request.path.startswith("/v2/secret/app/blobs/") and not asked.is_set():
            asked.set()
            await go_on.wait()
        return await gate.handle(request)

    async with fake_registry(handle) as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        url = f"{proxy.url}/v2/secret/app/blobs/{IMAGE.layer}"
        leader = asyncio.create_task(get(url, **basic(ALICE)))
        await asked.wait()
        assert (await asyncio.wait_for(get(url, **basic(BOB)), 20))[0] == 403
        go_on.set()
        assert (await leader)[0] == 200


@pytest.mark.parametrize(("access_ttl_s", "status"), [(0.0, 401), (3600.0, 200)])
async def test_a_right_that_was_withdrawn_ends_when_it_is_no_longer_remembered(
    tmp_path: Path, access_ttl_s: float, status: int
):
    async with start_token_registry(tmp_path / "registry") as upstream:
        async with client_of(upstream.registry.url, ALICE) as client:
            await push(client, "secret/app", KEY, IMAGE)
        freshness = Freshness(access_ttl_s=access_ttl_s)
        known = Upstream(UPSTREAM, upstream.registry.url, freshness=freshness)
        upstream.tokens.anonymous_pull = False
        async with running_proxy(tmp_path, {UPSTREAM: known}) as proxy:
            await read_all(proxy, wanted_of(IMAGE, "secret/app"), IMAGE, ALICE)
            upstream.tokens.granted[ALICE.username] = ("other/",)
            for path in (f"manifests/{KEY}", f"manifests/{IMAGE.manifest.digest}", f"blobs/{IMAGE.layer}"):
                assert (await get(f"{proxy.url}/v2/secret/app/{path}", **basic(ALICE)))[0] == status, path
