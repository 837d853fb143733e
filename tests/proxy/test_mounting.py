"""Mounts that name no source: from wherever the blob was seen, and never from where they may not read."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from proxy.requests.routing import Hosted
from proxy.transfer.sightings import MAX_PLACES, Sightings
from tests.peers import Registry, start_registry
from tests.proxy.running import UPSTREAM, client_of, get, head, make_image, push, running_proxy
from tests.proxy.test_private import basic
from tests.proxy.test_rights import PASSWORD, guarded_proxy, user

IMAGE = make_image(layer_bytes=1000)


def test_the_latest_places_are_kept():
    sightings, digest = Sightings(), Digest.of(b"x")
    places = [Hosted(f"cache/{number}") for number in range(MAX_PLACES + 2)]
    for place in places:
        sightings.note(place, digest)
    assert sightings.places(digest) == tuple(reversed(places[2:]))
    sightings.note(places[3], digest)
    assert sightings.places(digest)[:2] == (places[3], places[-1])
    assert sightings.places(Digest.of(b"other")) == ()


async def mount(
    url: str,
    target: str,
    source: str | None = None,
    headers: dict[str, str] | None = None,
    digest: Digest = IMAGE.layer,
) -> tuple[int, set[str]]:
    """The status of a mount, and the names of its headers."""
    query = {"mount": str(digest)} | ({"from": source} if source else {})
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v2/{target}/blobs/uploads/", params=query, headers=headers) as response,
    ):
        assert await response.read() == b""
        return response.status, set(response.headers)


async def test_a_source_that_may_not_be_read_is_as_good_as_none(tmp_path: Path):
    """The writer's own repository has the blob for a moment, so that he knows its digest; the secret one keeps it."""
    rules = ("owner * all", "writer cache/mine all")
    async with guarded_proxy(tmp_path, rules=rules) as proxy:
        async with client_of(proxy.url, Credential("owner", PASSWORD)) as client:
            await push(client, "cache/secret", "1", IMAGE)
        nowhere = await mount(proxy.url, "cache/mine", "cache/secret", user("writer"), Digest.of(b"nowhere"))
        assert nowhere[0] == 202
        for source in (None, "cache/secret", "cache/none", "elsewhere/none"):
            assert await mount(proxy.url, "cache/mine", source, user("writer")) == nowhere
        assert (await mount(proxy.url, "cache/yours", None, user("owner")))[0] == 201
        assert await mount(proxy.url, "cache/mine", None, user("writer")) == nowhere


async def test_a_private_image_of_an_upstream_is_no_source_for_others(private_registry: Registry, tmp_path: Path):
    """Its owner mounts it into a hosted repository, somebody else does not, and the upstream is not even asked."""
    owner = Credential(private_registry.username, private_registry.password)
    async with client_of(private_registry.url, owner) as client:
        await push(client, "org/app", "1", IMAGE)
    async with running_proxy(tmp_path, {UPSTREAM: private_registry.url}) as proxy:
        await get(f"{proxy.url}/v2/org/app/blobs/{IMAGE.layer}", **basic(owner))
        asked = len(private_registry.requests())
        for headers in ({}, basic(Credential("somebody", "else"))):
            assert (await mount(proxy.url, "cache/mine", None, headers))[0] == 202
        assert len(private_registry.requests()) == asked
        assert (await mount(proxy.url, "cache/mine", None, basic(owner)))[0] == 201
        assert (await get(f"{proxy.url}/v2/cache/mine/blobs/{IMAGE.layer}"))[2] == IMAGE.blobs[IMAGE.layer]


async def test_the_same_upstream_mounts_by_itself(registry: Registry, tmp_path: Path):
    async with client_of(registry.url) as client:
        await push(client, "org/one", "1", IMAGE)
    uploads = registry.count("PUT", "/blobs/uploads/")
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        assert (await mount(proxy.url, "org/two"))[0] == 202, "never seen yet"
        assert (await head(f"{proxy.url}/v2/org/one/blobs/{IMAGE.layer}"))[0] == 200
        assert (await mount(proxy.url, "org/two"))[0] == 201
        assert (await get(f"{proxy.url}/v2/org/two/blobs/{IMAGE.layer}"))[2] == IMAGE.blobs[IMAGE.layer]
    assert registry.count("PUT", "/blobs/uploads/") == uploads


@pytest.mark.parametrize("source", ["cache/steps", "second.test/base/os"])
async def test_what_is_held_is_copied_to_the_upstream(registry: Registry, tmp_path: Path, source: str):
    with start_registry(tmp_path / "second") as second:
        async with client_of(second.url) as client:
            await push(client, "base/os", "1", IMAGE)
        upstreams = {UPSTREAM: registry.url, "second.test": second.url}
        async with running_proxy(tmp_path, upstreams) as proxy, client_of(proxy.url) as client:
            if source.startswith("cache/"):
                await push(client, source, "1", IMAGE)
            await get(f"{proxy.url}/v2/{source}/blobs/{IMAGE.layer}")
            assert (await mount(proxy.url, "org/app"))[0] == 201
    assert (await get(f"{registry.url}/v2/org/app/blobs/{IMAGE.layer}"))[2] == IMAGE.blobs[IMAGE.layer]


async def test_a_hint_that_is_no_longer_true_is_no_mount(tmp_path: Path):
    async with running_proxy(tmp_path, {}) as proxy, client_of(proxy.url) as client:
        await push(client, "cache/one", "1", IMAGE)
        await client.delete_blob("cache/one", IMAGE.layer)
        assert (await mount(proxy.url, "cache/two"))[0] == 202
        assert (await head(f"{proxy.url}/v2/cache/two/blobs/{IMAGE.layer}"))[0] == 404
