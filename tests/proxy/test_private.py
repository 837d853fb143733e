"""What an upstream gives only to some is given only to them, whatever the cache holds."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from cache.oci.credentials import ANONYMOUS, Credential
from cache.oci.errors import Denied, RegistryError
from tests.fakes.tokens import TokenRegistry
from tests.peers import Registry
from tests.proxy.running import (
    UPSTREAM,
    Image,
    Proxy,
    client_of,
    get,
    make_image,
    push,
    running_proxy,
    scripted_upstream,
)

WRONG = Credential("crossdock", "wrong")
NOBODY = Credential("nobody", "nothing")


def basic(credential: Credential) -> dict[str, str]:
    if credential == ANONYMOUS:
        return {}
    return {
        "Authorization": "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
    }


@dataclass(frozen=True)
class Warm:
    """A proxy whose cache holds a private image, and who may read it."""

    proxy: Proxy
    image: Image
    owner: Credential


@asynccontextmanager
async def warm_proxy(private: Registry, tmp_path: Path) -> AsyncIterator[Warm]:
    image = make_image()
    owner = Credential(private.username, private.password)
    async with client_of(private.url, owner) as client:
        await push(client, "secret/app", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: private.url}) as proxy, client_of(proxy.url, owner) as client:
        assert (await client.get_manifest("secret/app", "1")).raw == image.manifest.raw
        for digest, data in image.blobs.items():
            async with client.open_blob("secret/app", digest) as reply:
                assert b"".join([chunk async for chunk in reply.chunks]) == data
        yield Warm(proxy, image, owner)


@pytest.mark.parametrize("intruder", [ANONYMOUS, WRONG, NOBODY])
async def test_no_door_opens_to_who_may_not_read(private_registry: Registry, tmp_path: Path, intruder: Credential):
    async with warm_proxy(private_registry, tmp_path) as warm:
        image, headers = warm.image, basic(intruder)
        doors = [
            ("GET", "secret/app/manifests/1"),
            ("HEAD", "secret/app/manifests/1"),
            ("GET", f"secret/app/manifests/{image.manifest.digest}"),
            ("HEAD", f"secret/app/manifests/{image.manifest.digest}"),
            ("GET", f"secret/app/blobs/{image.layer}"),
            ("HEAD", f"secret/app/blobs/{image.layer}"),
            ("GET", f"secret/app/blobs/{image.manifest.digest}"),
            ("GET", "secret/app/tags/list"),
            ("POST", f"secret/other/blobs/uploads/?mount={image.layer}&from=secret/app"),
        ]
        async with aiohttp.ClientSession() as session:
            for method, path in doors:
                url = f"{warm.proxy.url}/v2/{path}"
                async with session.request(method, url, headers=headers) as response:
                    assert response.status == 401, (method, path)
                    assert "scope=" in response.headers["WWW-Authenticate"]
                    assert image.blobs[image.layer] not in await response.read()
            lookup = {"repository": "secret/app", "keys": ["0" * 64]}
            async with session.post(f"{warm.proxy.url}/_crossdock/v1/lookup", json=lookup, headers=headers) as response:
                assert response.status == 401


@pytest.mark.parametrize("intruder", [ANONYMOUS, WRONG])
async def test_hosted_repositories_are_no_way_around(private_registry: Registry, tmp_path: Path, intruder: Credential):
    async with warm_proxy(private_registry, tmp_path) as warm, aiohttp.ClientSession() as session:
        digest = warm.image.layer
        for query in (f"mount={digest}&from=secret/app", f"mount={digest}"):
            url = f"{warm.proxy.url}/v2/cache/mine/blobs/uploads/?{query}"
            async with session.post(url, headers=basic(intruder)) as response:
                assert response.status == 202
        assert (await get(f"{warm.proxy.url}/v2/cache/mine/blobs/{digest}"))[0] == 404
        async with client_of(warm.proxy.url, intruder) as client:
            with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
                await client.put_manifest("cache/mine", "1", warm.image.manifest.raw, warm.image.manifest.media_type)


async def test_who_may_read_is_served_from_the_cache(private_registry: Registry, tmp_path: Path):
    async with warm_proxy(private_registry, tmp_path) as warm:
        before = private_registry.count("GET", "/blobs/")
        status, headers, data = await get(
            f"{warm.proxy.url}/v2/secret/app/blobs/{warm.image.layer}", **basic(warm.owner)
        )
        assert (status, headers["X-Cache"], data) == (200, "hit", warm.image.blobs[warm.image.layer])
        assert private_registry.count("GET", "/blobs/") == before


async def test_a_follower_of_a_running_fetch_must_be_let_in_too(tmp_path: Path):
    image = make_image(layer_bytes=2_000_000)
    path = f"/v2/org/app/blobs/{image.layer}"
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs, upstream.pause_at = {str(image.layer): image.blobs[image.layer]}, 1_000_000
        alice, bob = basic(Credential("alice", "a")), basic(Credential("bob", "b"))
        async with aiohttp.ClientSession() as session, session.get(proxy.url + path, headers=alice) as leader:
            await leader.content.readexactly(1000)
            upstream.status = 403
            status, _, body = await get(proxy.url + path, **bob)
            assert (status, image.blobs[image.layer][:100] in body) == (403, False)
            upstream.go_on.set()
            assert len(await leader.read()) == 1_999_000


async def test_a_blob_is_served_only_through_a_repository_that_has_it(registry: Registry, tmp_path: Path):
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "one/app", "1", image)
        await push(client, "two/app", "1", make_image(2))
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        assert (await get(f"{proxy.url}/v2/one/app/blobs/{image.layer}"))[0] == 200
        assert (await get(f"{proxy.url}/v2/two/app/blobs/{image.layer}"))[0] == 404
        assert (await get(f"{proxy.url}/v2/cache/x/blobs/{image.layer}"))[0] == 404


async def test_credentials_go_to_the_upstream_that_was_asked_for_and_to_no_other(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as one, scripted_upstream() as other:
        one.blobs = other.blobs = {str(image.layer): image.blobs[image.layer]}
        async with running_proxy(tmp_path, {"one.test": one.url, "other.test": other.url}) as proxy:
            alice = basic(Credential("alice", "secret"))
            await get(f"{proxy.url}/v2/one.test/a/b/blobs/{image.layer}", **alice)
            async with aiohttp.ClientSession() as session:
                url = f"{proxy.url}/v2/one.test/a/c/blobs/uploads/?mount={image.layer}&from=other.test/a/b"
                async with session.post(url, headers=alice) as response:
                    assert response.status in (201, 202)
        assert set(other.authorizations) == {""}


async def test_behind_a_token_server(token_registry: TokenRegistry, tmp_path: Path):
    private, tokens = token_registry.registry, token_registry.tokens
    tokens.anonymous_pull = False
    owner = Credential("crossdock", "correct horse")
    image = make_image()
    async with client_of(private.url, owner) as client:
        await push(client, "secret/app", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: private.url}) as proxy:
        async with client_of(proxy.url, owner) as client:
            assert (await client.get_manifest("secret/app", "1")).raw == image.manifest.raw
        for intruder in (ANONYMOUS, WRONG):
            async with client_of(proxy.url, intruder) as client:
                with pytest.raises(Denied):
                    await client.get_manifest("secret/app", "1")
    assert {seen["user"] for seen in tokens.seen} == {"crossdock", ""}


async def test_logins(private_registry: Registry, tmp_path: Path):
    async with running_proxy(tmp_path, {UPSTREAM: private_registry.url}) as proxy, aiohttp.ClientSession() as session:
        status, headers, _ = await get(f"{proxy.url}/v2/")
        assert (status, headers["Crossdock-Features"]) == (401, "lookup")
        assert headers["WWW-Authenticate"].startswith(f'Bearer realm="{proxy.url}/_crossdock/v1/token"')
        async with session.get(f"{proxy.url}/_crossdock/v1/token") as response:
            token = (await response.json())["token"]
        status, headers, body = await get(f"{proxy.url}/v2/", Authorization=f"Bearer {token}")
        assert (status, body, headers["Crossdock-Features"]) == (200, b"{}", "lookup")
        form = {"grant_type": "password", "username": private_registry.username, "password": private_registry.password}
        async with session.post(f"{proxy.url}/_crossdock/v1/token", data=form) as response:
            token = (await response.json())["access_token"]
        status, _, _ = await get(f"{proxy.url}/v2/none/manifests/1", Authorization=f"Bearer {token}")
        assert status == 404
        assert (await get(f"{proxy.url}/v2/", Authorization="Bearer nonsense"))[0] == 401
        async with session.post(f"{proxy.url}/_crossdock/v1/token", data={"grant_type": "magic"}) as response:
            assert response.status == 400
