"""Who may do what at every door: local users, guests and who is not known, under rules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import bcrypt
import pytest
import structlog

from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.digest import Digest
from proxy.auth.rights import GUEST, NOBODY_KNOWN, Right, Rule, Rules
from tests.proxy.running import UPSTREAM, Image, Proxy, client_of, make_image, push, running_proxy, scripted_upstream
from tests.proxy.test_private import basic

PASSWORD = "correct horse"
TOKEN = "a-static-token-of-ci"
RULES = (
    "owner,ci * all",
    "reader cache/ read",
    "writer cache/ read,write",
    "pusher cache/ write",
    "deleter cache/ read,delete",
    "reader,guest up.test/org read,fetch",
    "shy up.test/org read",
    "anonymous cache/open read",
)
USERS = ("owner", "reader", "writer", "pusher", "deleter", "shy", "stranger")


def test_rules_add_up_by_whole_components():
    rules = Rules((Rule.parse("ann cache/a read"), Rule.parse("* cache write"), Rule.parse("ann,bob * delete")))
    assert rules.allow("ann", "cache/a/b", Right.READ)
    assert not rules.allow("ann", "cache/ab", Right.READ)
    assert rules.allow("anybody", "cache/ab", Right.WRITE)
    assert rules.allow("bob", "x", Right.DELETE)
    assert not rules.allow("anybody", "x", Right.DELETE)
    assert rules.admit(NOBODY_KNOWN)
    assert not Rules((Rule.parse("ann * all"),)).admit(GUEST)
    assert Rules().admit(GUEST)


@asynccontextmanager
async def guarded_proxy(
    tmp_path: Path, upstream: str | None = None, rules: tuple[str, ...] = RULES
) -> AsyncIterator[Proxy]:
    """A proxy with users and rules."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "users").write_text("".join(f"{name}:{hashed}\n" for name in USERS))
    (tmp_path / "tokens").write_text(f"ci:{TOKEN}\n")
    async with running_proxy(
        tmp_path,
        {UPSTREAM: upstream} if upstream else {},
        users_file=tmp_path / "users",
        tokens_file=tmp_path / "tokens",
        rules=Rules(tuple(map(Rule.parse, rules))),
    ) as proxy:
        yield proxy


def user(name: str) -> dict[str, str]:
    """The headers of a local user; none for nobody."""
    return basic(Credential(name, PASSWORD)) if name != NOBODY_KNOWN else {}


class Door(NamedTuple):
    """A request on a repository: the right that it needs, and its status where that is granted."""

    right: Right
    status: int
    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/octet-stream"


class Answer(NamedTuple):
    """What a client sees."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])


async def ask(proxy: Proxy, door: Door, headers: dict[str, str]) -> Answer:
    """The answer at a door."""
    url = proxy.url + (door.path if door.path.startswith("/_") else f"/v2/{door.path}")
    shown = headers | ({"Content-Type": door.content_type} if door.body is not None else {})
    async with (
        aiohttp.ClientSession() as session,
        session.request(door.method, url, headers=shown, data=door.body) as response,
    ):
        return Answer(response.status, dict(response.headers), await response.read())


def doors(repository: str, image: Image, upload: str) -> list[Door]:
    """Every request that there is on a repository that holds the image, in an order in which they can all succeed."""
    digest, layer, other = image.manifest.digest, image.layer, Digest.of(b"x")
    key = json.dumps({"repository": repository, "keys": ["0" * 64]}).encode()
    kind = image.manifest.media_type
    return [
        *(
            Door(Right.READ, 200, method, f"{repository}/{path}")
            for path in ("manifests/1", f"manifests/{digest}", f"blobs/{layer}", "tags/list", f"referrers/{digest}")
            for method in ("GET", "HEAD")
        ),
        Door(Right.READ, 200, "POST", "/_crossdock/v1/lookup", key),
        Door(Right.WRITE, 201, "PUT", f"{repository}/manifests/2", image.manifest.raw, kind),
        Door(Right.WRITE, 202, "POST", f"{repository}/blobs/uploads/"),
        Door(Right.WRITE, 201, "POST", f"{repository}/blobs/uploads/?digest={other}", b"x"),
        Door(Right.WRITE, 202, "POST", f"{repository}/blobs/uploads/?mount={layer}&from=cache/none"),
        Door(Right.WRITE, 202, "PATCH", f"{repository}/blobs/uploads/{upload}", b"x"),
        Door(Right.WRITE, 204, "GET", f"{repository}/blobs/uploads/{upload}"),
        Door(Right.WRITE, 204, "DELETE", f"{repository}/blobs/uploads/{upload}"),
        Door(Right.DELETE, 202, "DELETE", f"{repository}/manifests/1"),
        Door(Right.DELETE, 202, "DELETE", f"{repository}/manifests/{digest}"),
        Door(Right.DELETE, 202, "DELETE", f"{repository}/blobs/{layer}"),
    ]


async def start_upload(proxy: Proxy, repository: str, headers: dict[str, str]) -> str:
    """The id of a new upload."""
    answer = await ask(proxy, Door(Right.WRITE, 202, "POST", f"{repository}/blobs/uploads/"), headers)
    assert answer.status == 202
    return answer.headers["Docker-Upload-UUID"]


R, W, D = Right.READ, Right.WRITE, Right.DELETE


@pytest.mark.parametrize(
    ("who", "granted", "refused"),
    [
        ("owner", {R, W, D}, None),
        ("reader", {R}, 403),
        ("writer", {R, W}, 403),
        ("pusher", {W}, 404),
        ("deleter", {R, D}, 403),
        ("stranger", set(), 404),
        ("somebody-of-an-upstream", set(), 404),
        (NOBODY_KNOWN, set(), 401),
    ],
)
async def test_every_door_of_a_hosted_repository(tmp_path: Path, who: str, granted: set[Right], refused: int | None):
    image = make_image(layer_bytes=1000)
    async with guarded_proxy(tmp_path) as proxy:
        async with client_of(proxy.url, Credential("owner", PASSWORD)) as client:
            await push(client, "cache/app", "1", image)
        upload = await start_upload(proxy, "cache/app", user(who if W in granted else "owner"))
        for door in doors("cache/app", image, upload):
            answer = await ask(proxy, door, user(who))
            assert answer.status == (door.status if door.right in granted else refused), door
            if door.right in granted:
                continue
            assert ("WWW-Authenticate" in answer.headers) == (refused == 401)
            assert "X-Cache" not in answer.headers
            if door.method != "HEAD":
                assert answer.code in {401: ["UNAUTHORIZED"], 403: ["DENIED"]}.get(answer.status, [answer.code])


async def test_what_may_not_be_read_looks_like_what_is_not_there(tmp_path: Path):
    image = make_image(layer_bytes=1000)
    async with guarded_proxy(tmp_path) as proxy:
        async with client_of(proxy.url, Credential("owner", PASSWORD)) as client:
            await push(client, "cache/app", "1", image)
        upload = await start_upload(proxy, "cache/app", user("owner"))
        hidden = [await ask(proxy, door, user("stranger")) for door in doors("cache/app", image, upload)]
        none = [await ask(proxy, door, user("stranger")) for door in doors("cache/non", image, upload)]
        absent = [await ask(proxy, door, user("owner")) for door in doors("cache/non", image, upload)]
        for door, one, other, real in zip(doors("cache/app", image, upload), hidden, none, absent, strict=True):
            renamed = other.body.replace(b"cache/non", b"cache/app")
            assert (one.status, one.body) == (other.status, renamed), door
            assert _stable(one.headers) == _stable(other.headers), door
            if real.status == 404:
                assert (one.status, one.body) == (404, real.body.replace(b"cache/non", b"cache/app")), door
                assert _stable(one.headers) == _stable(real.headers), door


def _stable(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in ("Date", "X-Request-ID")}


async def test_a_mount_needs_the_right_to_read_its_source(tmp_path: Path):
    image = make_image(layer_bytes=1000)
    rules = ("owner * all", "writer cache/mine read,write", "reader cache read", "reader cache/mine write")
    async with guarded_proxy(tmp_path, rules=rules) as proxy:
        async with client_of(proxy.url, Credential("owner", PASSWORD)) as client:
            await push(client, "cache/app", "1", image)
        mount = Door(W, 201, "POST", f"cache/mine/blobs/uploads/?mount={image.layer}&from=cache/app")
        blob = Door(R, 404, "HEAD", f"cache/mine/blobs/{image.layer}")
        assert (await ask(proxy, mount, user("writer"))).status == 202
        assert (await ask(proxy, blob, user("writer"))).status == 404
        assert (await ask(proxy, mount, user("reader"))).status == 201
        assert (await ask(proxy, blob, user("writer"))).status == 200


@pytest.mark.parametrize(
    "headers",
    [basic(Credential("ci", TOKEN)), {"Authorization": f"Bearer {TOKEN}"}, basic(Credential("owner", PASSWORD))],
    ids=["token as password", "token alone", "password"],
)
async def test_ways_to_say_who_one_is(tmp_path: Path, headers: dict[str, str]):
    async with guarded_proxy(tmp_path) as proxy:
        assert (await ask(proxy, Door(R, 200, "GET", ""), headers)).status == 200
        assert (await ask(proxy, Door(R, 404, "GET", "cache/app/tags/list"), headers)).status == 404
        assert await start_upload(proxy, "cache/app", headers)


@pytest.mark.parametrize(
    ("credential", "status"),
    [
        (Credential("owner", PASSWORD), 200),
        (Credential("ci", TOKEN), 200),
        (Credential(identity_token=TOKEN), 200),
        (Credential("owner", "wrong"), 401),
        (Credential("ci", "wrong"), 401),
        (Credential("owner", TOKEN), 401),
        (Credential("guest-of-up", "whatever"), 200),
        (ANONYMOUS, 200),
    ],
)
async def test_logins(tmp_path: Path, credential: Credential, status: int):
    async with guarded_proxy(tmp_path) as proxy, aiohttp.ClientSession() as session:
        url = f"{proxy.url}/_crossdock/v1/token"
        form = {"grant_type": "password", "username": credential.username, "password": credential.password}
        if credential.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
        async with session.post(url, data=form) as response:
            assert response.status == status
            token = (await response.json())["token"] if status == 200 else ""
        if not credential.identity_token:
            async with session.get(url, headers=basic(credential)) as response:
                assert response.status == status
        shown = {"Authorization": f"Bearer {token}"} if token else basic(credential)
        answer = await ask(proxy, Door(R, 200, "GET", ""), shown)
        assert answer.status == status
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_a_wrong_password_of_a_local_user_is_shown_to_no_upstream(tmp_path: Path):
    async with scripted_upstream() as upstream, guarded_proxy(tmp_path, upstream.url) as proxy:
        for password in ("wrong", PASSWORD):
            await ask(proxy, Door(R, 401, "GET", "org/app/manifests/1"), basic(Credential("reader", password)))
        assert upstream.authorizations == [""]


async def test_a_guest_is_the_upstreams_to_judge(tmp_path: Path):
    guest = basic(Credential("somebody", "something"))
    async with scripted_upstream() as upstream, guarded_proxy(tmp_path, upstream.url) as proxy:
        assert (await ask(proxy, Door(R, 404, "GET", "org/app/manifests/1"), guest)).status == 404
        assert upstream.count("GET", "/org/app/") == 1
        assert (await ask(proxy, Door(R, 404, "GET", "other/app/manifests/1"), guest)).status == 404
        assert (await ask(proxy, Door(W, 403, "POST", "org/app/blobs/uploads/"), guest)).status == 403
        assert len(upstream.seen) == 1


async def test_where_guests_may_do_nothing_an_unknown_name_is_a_wrong_login(tmp_path: Path):
    async with guarded_proxy(tmp_path, rules=("owner * all",)) as proxy:
        ping = Door(R, 401, "GET", "")
        unknown = await ask(proxy, ping, basic(Credential("unknown", PASSWORD)))
        known = await ask(proxy, ping, basic(Credential("owner", "wrong")))
        assert (unknown.status, unknown.body) == (known.status, known.body) == (401, known.body)


async def test_refusals_are_logged_once_and_without_secrets(tmp_path: Path):
    async with guarded_proxy(tmp_path) as proxy:
        doors_and_users = [
            (Door(R, 404, "GET", "cache/app/manifests/1"), user("stranger")),
            (Door(W, 403, "POST", "cache/app/blobs/uploads/"), user("reader")),
            (Door(R, 401, "GET", "cache/app/tags/list"), {}),
            (Door(R, 401, "GET", "cache/app/tags/list"), basic(Credential("owner", "secret-word"))),
            (Door(R, 401, "GET", ""), basic(Credential("owner", "secret-word"))),
            (Door(R, 401, "GET", ""), {}),
            (Door(R, 404, "GET", "cache/app/tags/list"), user("reader")),
        ]
        with structlog.testing.capture_logs() as logs:
            for door, headers in doors_and_users:
                assert (await ask(proxy, door, headers)).status == door.status
        refused = [
            (line["who"], line["repository"], line["right"], line["status"])
            for line in logs
            if line["event"] == "access_refused"
        ]
        assert refused == [
            ("stranger", "cache/app", "read", 404),
            ("reader", "cache/app", "write", 403),
            ("owner", "cache/app", "read", 401),
            ("owner", "", "", 401),
        ]
        assert "secret-word" not in repr(logs)


async def test_the_catalogue_holds_what_they_may_read(tmp_path: Path):
    async with guarded_proxy(tmp_path) as proxy:
        async with client_of(proxy.url, Credential("owner", PASSWORD)) as client:
            for repository in ("cache/app", "cache/open", "cache/open/more"):
                await push(client, repository, "1", make_image(layer_bytes=1000))
        catalog = Door(R, 200, "GET", "_catalog")
        for who, expected in (
            ("reader", ["cache/app", "cache/open", "cache/open/more"]),
            (NOBODY_KNOWN, ["cache/open", "cache/open/more"]),
            ("pusher", []),
        ):
            assert json.loads((await ask(proxy, catalog, user(who))).body) == {"repositories": expected}
        page = await ask(proxy, catalog._replace(path="_catalog?n=1"), user(NOBODY_KNOWN))
        assert page.headers["Link"] == '</v2/_catalog?n=1&last=cache%2Fopen>; rel="next"'
