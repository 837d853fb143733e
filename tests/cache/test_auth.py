"""Basic and Bearer, against a real registry that trusts our token server, and against fakes that misbehave."""

import asyncio
import base64

import pytest
from aiohttp import web

from cache.oci.auth import TokenCache
from cache.oci.client import RegistryClient
from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.digest import Digest
from cache.oci.errors import Denied, RegistryError
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from cache.oci.uploads import bytes_source
from tests.fakes.registry import fake_registry
from tests.fakes.tokens import IDENTITY_TOKEN

BLOB = b"a blob" * 1000
DIGEST = Digest.of(BLOB)
ONCE = Backoff(tries=1)


@pytest.fixture
async def transport():
    async with Transport() as opened:
        yield opened


def client_of(transport, peer, credential=None, tokens=None):
    """A client of a token registry; without a credential as its one user."""
    shown = Credential(peer.username, peer.password) if credential is None else credential
    return RegistryClient(transport, peer.registry.url, shown, tokens, backoff=ONCE)


async def put_blob(client, repository="team/app"):
    await client.upload_blob(repository, DIGEST, len(BLOB), bytes_source(BLOB))


async def test_one_token_serves_every_request_of_its_scope(transport, token_registry):
    client = client_of(transport, token_registry)
    await put_blob(client)
    for _ in range(3):
        assert await client.head_blob("team/app", DIGEST) == len(BLOB)
    scopes = [seen["scope"] for seen in token_registry.tokens.seen]
    assert scopes == ["repository:team/app:pull,push", "repository:team/app:pull"]
    assert [request.status for request in token_registry.registry.requests()].count(401) == 1


async def test_clients_of_a_process_share_tokens_but_not_across_identities(transport, token_registry):
    tokens = TokenCache()
    await put_blob(client_of(transport, token_registry, tokens=tokens))
    for credential in (None, None, ANONYMOUS, ANONYMOUS):
        await client_of(transport, token_registry, credential, tokens).head_blob("team/app", DIGEST)
    seen = [(entry["user"], entry["scope"]) for entry in token_registry.tokens.seen]
    assert seen == [
        ("crossdock", "repository:team/app:pull,push"),
        ("crossdock", "repository:team/app:pull"),
        ("", "repository:team/app:pull"),
    ]


async def test_concurrent_requests_fetch_one_token(transport, token_registry):
    client = client_of(transport, token_registry)
    found = await asyncio.gather(*(client.head_blob("team/app", DIGEST) for _ in range(20)))
    assert found == [None] * 20
    assert len(token_registry.tokens.seen) == 1


async def test_tokens_are_renewed_before_they_end(transport, token_registry):
    now_s = [0.0]
    client = client_of(transport, token_registry, tokens=TokenCache(clock=lambda: now_s[0]))
    for at_s, fetched in ((0, 1), (269, 1), (271, 2), (540, 2)):
        now_s[0] = at_s
        await client.head_blob("team/app", DIGEST)
        assert len(token_registry.tokens.seen) == fetched


async def test_a_token_that_the_registry_refuses_is_fetched_anew_once(transport, token_registry):
    client = client_of(transport, token_registry)
    await client.ping()
    token_registry.tokens.issue_bad_tokens = 1
    assert await client.head_blob("team/app", DIGEST) is None
    assert token_registry.tokens.issue_bad_tokens == 0


async def test_tokens_that_stay_refused_end_in_denied(transport, token_registry):
    token_registry.tokens.issue_bad_tokens = 100
    with pytest.raises(Denied) as caught:
        await client_of(transport, token_registry).head_blob("team/app", DIGEST)
    assert caught.value.status == 401
    assert caught.value.challenge.startswith("Bearer ")
    assert len(token_registry.tokens.seen) <= 2


async def test_a_token_that_ends_during_an_upload_is_renewed_and_the_blob_sent_again(transport, token_registry):
    now_s = [0.0]
    client = client_of(transport, token_registry, tokens=TokenCache(clock=lambda: now_s[0]))
    opened = []

    def source():
        opened.append(len(opened))
        if len(opened) == 1:  # the next token is one that the registry refuses
            now_s[0] = 10_000.0
            token_registry.tokens.issue_bad_tokens = 1
        return bytes_source(BLOB)()

    await client.upload_blob("team/app", DIGEST, len(BLOB), source)
    assert len(opened) == 2
    assert await client.head_blob("team/app", DIGEST) == len(BLOB)


async def test_an_identity_token_is_exchanged_by_post(transport, token_registry):
    client = client_of(transport, token_registry, Credential("", "", IDENTITY_TOKEN))
    await put_blob(client)
    assert {(seen["method"], seen["user"]) for seen in token_registry.tokens.seen} == {("POST", "identity")}


async def test_a_refused_identity_token(transport, token_registry):
    with pytest.raises(Denied, match=r"identity token for 127\.0\.0\.1:\d+ was refused") as caught:
        await client_of(transport, token_registry, Credential("", "", "stolen-token")).ping()
    assert "stolen-token" not in str(caught.value)


async def test_anonymous_users_may_pull_and_are_told_what_pushing_takes(transport, token_registry):
    await put_blob(client_of(transport, token_registry))
    anonymous = client_of(transport, token_registry, ANONYMOUS)
    assert await anonymous.head_blob("team/app", DIGEST) == len(BLOB)
    with pytest.raises(Denied, match="no credentials are configured") as caught:
        await anonymous.start_upload("team/app")
    assert "Bearer" in caught.value.challenge


async def test_a_refused_password_names_host_and_user_and_not_itself(transport, token_registry):
    with pytest.raises(Denied, match=r"password of user 'crossdock' for 127\.0\.0\.1:\d+ was refused") as caught:
        await client_of(transport, token_registry, Credential("crossdock", "hunter2")).head_blob("team/app", DIGEST)
    assert "hunter2" not in str(caught.value)
    assert caught.value.status == 401


async def test_a_mount_asks_for_both_repositories(transport, token_registry):
    client = client_of(transport, token_registry)
    await put_blob(client, "team/base")
    assert await client.mount_blob("team/app", DIGEST, "team/base")
    assert token_registry.tokens.seen[-1]["scope"] == "repository:team/app:pull,push repository:team/base:pull"
    assert await client.head_blob("team/app", DIGEST) == len(BLOB)


async def test_basic(transport, private_registry):
    good = Credential(private_registry.username, private_registry.password)
    client = RegistryClient(transport, private_registry.url, good, backoff=ONCE)
    await put_blob(client)
    assert await client.head_blob("team/app", DIGEST) == len(BLOB)
    assert [request.status for request in private_registry.requests()].count(401) == 1


async def test_basic_with_a_wrong_password(transport, private_registry):
    client = RegistryClient(transport, private_registry.url, Credential("crossdock", "hunter2"), backoff=ONCE)
    with pytest.raises(Denied, match="password of user 'crossdock'") as caught:
        await client.get_manifest("team/app", "latest")
    assert "UNAUTHORIZED" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(private_registry.requests()) == 2


async def test_basic_without_credentials(transport, private_registry):
    with pytest.raises(Denied, match="no credentials are configured") as caught:
        await RegistryClient(transport, private_registry.url, backoff=ONCE).ping()
    assert caught.value.challenge == 'Basic realm="crossdock-tests"'
    assert len(private_registry.requests()) == 1


def challenging(realm, token_reply):
    """A registry and its token server in one: lets in who shows the token ``good``."""

    async def handle(request):
        if request.path == "/token":
            return token_reply(request)
        if request.headers.get("Authorization") == "Bearer good":
            return web.json_response({})
        bearer = f'Basic realm="x", Bearer realm="{realm(request)}",service="s"'
        return web.Response(status=401, headers={"WWW-Authenticate": bearer})

    return handle


def own_realm(request):
    return f"http://{request.host}/token"


@pytest.mark.parametrize(
    "reply",
    [
        {"token": "good"},
        {"access_token": "good"},
        {"token": "good", "access_token": "other"},
        {"token": "", "access_token": "good", "expires_in": None, "issued_at": "2026-01-01T00:00:00Z", "more": 1},
    ],
)
async def test_the_token_is_found_under_either_name(transport, reply):
    handler = challenging(own_realm, lambda _: web.json_response(reply))
    async with fake_registry(handler) as fake:
        await RegistryClient(transport, fake.url, Credential("me", "pw"), backoff=ONCE).ping()
    basic = base64.b64encode(b"me:pw").decode()
    assert fake.seen[1].headers["Authorization"] == f"Basic {basic}"
    assert fake.seen[1].query == "service=s&account=me"


async def test_a_token_without_a_lifetime_lasts_a_minute(transport):
    now_s = [0.0]
    async with fake_registry(challenging(own_realm, lambda _: web.json_response({"token": "good"}))) as fake:
        tokens = TokenCache(clock=lambda: now_s[0])
        client = RegistryClient(transport, fake.url, ANONYMOUS, tokens, backoff=ONCE)
        for at_s in (0, 44, 46):
            now_s[0] = at_s
            await client.ping()
    assert fake.count("GET", "/token") == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": "with\\nnewline"}', b"x" * 300_000])
async def test_a_token_server_that_talks_nonsense(transport, body):
    handler = challenging(own_realm, lambda _: web.Response(body=body))
    async with fake_registry(handler) as fake:
        with pytest.raises((RegistryError, ValueError), match="token"):
            await RegistryClient(transport, fake.url, backoff=ONCE).ping()


async def test_a_token_server_that_fails_for_a_while_is_asked_again(transport):
    replies = [web.Response(status=503), web.json_response({"token": "good"})]
    async with fake_registry(challenging(own_realm, lambda _: replies.pop(0))) as fake:
        await RegistryClient(transport, fake.url, backoff=Backoff(first_s=0.01)).ping()
    assert not replies


@pytest.mark.parametrize(
    "realm", ["http://169.254.169.254/token", "file:///etc/passwd", "/token", "http://me:pw@127.0.0.1/token", ""]
)
async def test_credentials_never_go_to_a_realm_that_is_none(transport, realm):
    async with fake_registry(challenging(lambda _: realm, lambda _: web.Response())) as fake:
        with pytest.raises(Denied, match="for a token"):
            await RegistryClient(transport, fake.url, Credential("me", "pw"), backoff=ONCE).ping()
    assert len(fake.seen) == 1


async def test_a_challenge_that_nobody_can_answer(transport):
    async def handle(request):
        return web.Response(status=401, headers={"WWW-Authenticate": "Negotiate"})

    async with fake_registry(handle) as fake:
        with pytest.raises(Denied) as caught:
            await RegistryClient(transport, fake.url, Credential("me", "pw"), backoff=ONCE).ping()
    assert caught.value.challenge == "Negotiate"
    assert "Authorization" not in fake.seen[0].headers
