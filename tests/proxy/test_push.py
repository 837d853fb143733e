"""Pushing to an upstream through the proxy: it counts when the upstream has it, and is cached then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cache.entry import CachedStep, decode_reply, encode_request, to_manifest
from cache.keys import CacheKey
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from cache.oci.errors import Denied
from cache.oci.layer import Layer
from tests.fakes.tokens import TokenRegistry
from tests.peers import Registry, start_registry
from tests.proxy.leaks import nothing_left
from tests.proxy.running import (
    UPSTREAM,
    chunks_of,
    client_of,
    descriptor,
    get,
    head,
    make_image,
    push,
    running_proxy,
    scripted_upstream,
)


async def test_what_is_pushed_is_upstream_and_cached(private_registry: Registry, tmp_path: Path):
    image = make_image()
    owner = Credential(private_registry.username, private_registry.password)
    async with (
        running_proxy(tmp_path, {UPSTREAM: private_registry.url}) as proxy,
        client_of(proxy.url, owner) as client,
    ):
        await push(client, "org/app", "1", image)
        assert (await client.get_manifest("org/app", "1")).raw == image.manifest.raw
        for digest, data in image.blobs.items():
            async with client.open_blob("org/app", digest) as reply:
                assert b"".join([chunk async for chunk in reply.chunks]) == data
    assert private_registry.count("GET", "/blobs/sha256") == private_registry.count("GET", "/manifests/") == 0
    async with client_of(private_registry.url, owner) as client:
        assert (await client.get_manifest("org/app", "1")).raw == image.manifest.raw


async def test_chunks_and_streams_are_passed_on(registry: Registry, tmp_path: Path):
    data = bytes(range(256)) * 4096
    digest = Digest.of(data)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        async with client_of(proxy.url) as client:
            location = await client.start_upload("org/app")
            assert location.startswith(f"{proxy.url}/v2/org/app/blobs/uploads/")
            async with chunks_of(data[:1000])() as chunks:
                location = await client.patch_upload(location, chunks, 0, 1000)
            async with chunks_of(data[1000:5000])() as chunks:
                location = await client.patch_upload(location, chunks)
            assert (await client.upload_status(location))[1] == 5000
            async with chunks_of(data[5000:])() as chunks:
                await client.put_upload(location, digest, chunks, len(data) - 5000)
        assert (await get(f"{registry.url}/v2/org/app/blobs/{digest}"))[2] == data
        assert await proxy.store.stat(digest) == len(data)


async def test_a_wrong_digest_is_refused_by_the_upstream_and_not_cached(registry: Registry, tmp_path: Path):
    wrong = Digest.of(b"other")
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, aiohttp.ClientSession() as session:
        url = f"{proxy.url}/v2/org/app/blobs/uploads/?digest={wrong}"
        async with session.post(url, data=b"content") as response:
            assert response.status == 400
            assert (await response.json())["errors"][0]["code"] == "DIGEST_INVALID"
        assert await proxy.store.stat(wrong) is None
        assert (await head(f"{proxy.url}/v2/org/app/blobs/{wrong}"))[0] == 404


@pytest.mark.parametrize("who", [Credential(), Credential("crossdock", "wrong")])
async def test_who_may_not_push_may_not_push_here(private_registry: Registry, tmp_path: Path, who: Credential):
    async with running_proxy(tmp_path, {UPSTREAM: private_registry.url}) as proxy, client_of(proxy.url, who) as client:
        with pytest.raises(Denied):
            await client.start_upload("org/app")
        with pytest.raises(Denied):
            await client.put_manifest("org/app", "1", make_image().manifest.raw, media_types.OCI_MANIFEST)


async def test_the_upstreams_refusal_is_the_clients_and_changes_nothing(tmp_path: Path):
    old, new = make_image(1), make_image(2)
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.manifests = {"1": old.manifest.raw}
        url = f"{proxy.url}/v2/a/manifests/1"
        await get(url)
        upstream.refuse_manifests = True
        async with aiohttp.ClientSession() as session:
            headers = {"Content-Type": media_types.OCI_MANIFEST}
            async with session.put(url, data=new.manifest.raw, headers=headers) as response:
                said = (await response.json())["errors"][0]
                assert (response.status, said["code"]) == (403, "DENIED")
                assert "up.test" in said["message"]
                assert "no push today" in said["message"]
            assert (await get(url))[2] == old.manifest.raw
            upstream.refuse_manifests = False
            async with session.put(url, data=new.manifest.raw, headers=headers) as response:
                assert response.status == 201
            assert (await get(url))[2] == new.manifest.raw


async def test_the_upstreams_sessions_stay_hidden(tmp_path: Path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        async with aiohttp.ClientSession(proxy.url) as session:
            async with session.post("/v2/a/blobs/uploads/") as response:
                location = response.headers["Location"]
            async with session.patch(location, data=b"abc") as response:
                assert "secret-session" not in location + str(response.headers)
        assert ("PATCH", "/v2/a/blobs/uploads/secret-session") in upstream.seen


async def test_a_push_is_never_skipped_for_what_the_upstream_has_lost(registry: Registry, tmp_path: Path):
    image = make_image()
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, client_of(proxy.url) as client:
        await push(client, "org/app", "1", image)
        async with client_of(registry.url) as direct:
            await direct.delete_blob("org/app", image.layer)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, client_of(proxy.url) as client:
        assert await client.head_blob("org/app", image.layer) is None
        await push(client, "org/app", "2", image)


async def test_deleting_upstream_through_the_proxy(registry: Registry, tmp_path: Path):
    image = make_image()
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, client_of(proxy.url) as client:
        await push(client, "org/app", "1", image)
        await client.get_manifest("org/app", "1")
        await client.delete_manifest("org/app", image.manifest.digest)
        for reference in ("1", image.manifest.digest):
            assert (await head(f"{proxy.url}/v2/org/app/manifests/{reference}"))[0] == 404
        await client.delete_blob("org/app", image.layer)
        assert await client.head_blob("org/app", image.layer) is None


async def test_a_mount_within_an_upstream_is_the_upstreams(registry: Registry, tmp_path: Path):
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "org/one", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, client_of(proxy.url) as client:
        assert await client.mount_blob("org/two", image.layer, "org/one")
        assert not await client.mount_blob("org/two", Digest.of(b"absent"), "org/one")
        assert await client.head_blob("org/two", image.layer) == 300_000
    assert registry.count("PUT", "/blobs/uploads/") == 2  # those of the first push


async def test_blobs_go_from_the_cache_to_the_upstream_without_the_client(registry: Registry, tmp_path: Path):
    """From a hosted repository and from another upstream's: what a build whose every step hits needs."""
    hosted, other = make_image(1), make_image(2)
    with start_registry(tmp_path / "second") as second:
        async with client_of(second.url) as client:
            await push(client, "base/os", "1", other)
        upstreams = {UPSTREAM: registry.url, "second.test": second.url}
        async with running_proxy(tmp_path, upstreams) as proxy, client_of(proxy.url) as client:
            await push(client, "cache/steps", "1", hosted)
            assert not await client.mount_blob("org/app", other.layer, "second.test/base/os"), "not held yet"
            await get(f"{proxy.url}/v2/second.test/base/os/blobs/{other.layer}")
            assert await client.mount_blob("org/app", hosted.layer, "cache/steps")
            assert await client.mount_blob("org/app", other.layer, "second.test/base/os")
    for image in (hosted, other):
        assert (await get(f"{registry.url}/v2/org/app/blobs/{image.layer}"))[2] == image.blobs[image.layer]


async def entry(client: RegistryClient, repository: str, number: int, *, layer: bool = True) -> CachedStep:
    """Pushes a cache entry."""
    data = b"layer %d" % number
    made = Layer(descriptor(data, media_types.OCI_LAYER), Digest.of(data)) if layer else None
    step = CachedStep(CacheKey(f"{number:064x}"), made, seconds=1.5)
    manifest, config = to_manifest(step)
    for blob in (config, data) if layer else (config,):
        await client.upload_blob(repository, Digest.of(blob), len(blob), chunks_of(blob))
    await client.put_manifest(repository, step.key.hex, manifest.raw, manifest.media_type)
    return step


@pytest.mark.parametrize("repository", ["cache/steps", "org/steps"])
async def test_lookup_is_complete_or_a_miss(registry: Registry, tmp_path: Path, repository: str):
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy, client_of(proxy.url) as client:
        whole = await entry(client, repository, 1)
        empty = await entry(client, repository, 2, layer=False)
        broken = await entry(client, repository, 3)
        assert broken.layer is not None
        await client.delete_blob(repository, broken.layer.descriptor.digest)
        await push(client, repository, f"{4:064x}", make_image())  # an image of somebody else's under such a tag
        absent, foreign = CacheKey(f"{5:064x}"), CacheKey(f"{4:064x}")
        keys = [whole.key, empty.key, broken.key, foreign, absent]
        async with aiohttp.ClientSession() as session:
            body = encode_request(repository, keys)
            async with session.post(f"{proxy.url}/_crossdock/v1/lookup", data=body) as response:
                assert response.status == 200
                found = decode_reply(await response.read())
        assert set(found) == set(keys)
        assert [found[key] is not None for key in keys] == [True, True, False, False, False]
        hits = [found[whole.key], found[empty.key]]
        assert [hit.step for hit in hits if hit is not None] == [whole, empty]


async def test_lookup_of_nonsense_and_of_what_is_not_known(tmp_path: Path):
    async with running_proxy(tmp_path, {UPSTREAM: "http://127.0.0.1:1"}) as proxy, aiohttp.ClientSession() as session:
        url = f"{proxy.url}/_crossdock/v1/lookup"
        for body in (b"", b"{}", b'{"repository":"cache/x","keys":["short"]}', b'{"repository":"../x","keys":[]}'):
            async with session.post(url, data=body) as response:
                assert response.status == 400
        async with session.post(url, data=encode_request("org/app", [CacheKey("0" * 64)])) as response:
            assert response.status == 503  # an upstream that is down is not a miss


async def put_blob(session: aiohttp.ClientSession, way: str, repository: str, data: bytes) -> int:
    """Pushes a blob of which the proxy is told size and digest before its bytes."""
    uploads, digest = f"/v2/{repository}/blobs/uploads/", Digest.of(data)
    if way == "post":
        async with session.post(f"{uploads}?digest={digest}", data=data) as response:
            return response.status
    async with session.post(uploads) as response:
        location = response.headers["Location"]
    async with session.put(f"{location}?digest={digest}", data=data) as response:
        return response.status


@pytest.mark.parametrize("way", ["post", "put"])
async def test_what_is_elsewhere_at_the_upstream_is_mounted_and_not_uploaded(
    registry: Registry, tmp_path: Path, way: str
):
    data = make_image().blobs[make_image().layer]
    who, other = ({"Authorization": aiohttp.encode_basic_auth(name, "x")} for name in ("one", "other"))
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        async with aiohttp.ClientSession(proxy.url, headers=who) as session:
            assert await put_blob(session, way, "org/one", data) == 201
            assert await put_blob(session, way, "org/two", data) == 201
        assert registry.count("PUT", "/blobs/uploads/") == 1
        async with aiohttp.ClientSession(proxy.url, headers=other) as session:
            assert await put_blob(session, way, "org/three", data) == 201
        assert registry.count("PUT", "/blobs/uploads/") == 2, "of what others brought, nobody learns by pushing it"
    for repository in ("org/one", "org/two", "org/three"):
        assert (await get(f"{registry.url}/v2/{repository}/blobs/{Digest.of(data)}"))[2] == data


async def test_a_push_to_a_registry_with_tokens(token_registry: TokenRegistry, tmp_path: Path):
    image = make_image()
    owner = Credential(token_registry.username, token_registry.password)
    async with running_proxy(tmp_path, {UPSTREAM: token_registry.registry.url}) as proxy:
        token_registry.tokens.issue_bad_tokens = 1
        async with client_of(proxy.url, owner) as client:
            await push(client, "org/app", "1", image)
        async with client_of(proxy.url) as client:
            with pytest.raises(Denied):
                await client.start_upload("org/app")
    async with client_of(token_registry.registry.url, owner) as client:
        assert (await client.get_manifest("org/app", "1")).raw == image.manifest.raw


@asynccontextmanager
async def cutting(target: Registry, at_bytes: int) -> AsyncIterator[str]:
    """A way to the registry that breaks once, after so many bytes of one connection."""
    host, _, port = target.host.partition(":")
    cuts = iter([at_bytes])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limited: bool) -> None:
        carried = 0
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            carried += len(data)
            if limited and carried > at_bytes and next(cuts, None) is not None:
                break
        writer.transport.abort()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, back, True), carry(there, writer, False), return_exceptions=True)
        writer.transport.abort()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_real_registry_whose_connection_breaks_gets_it_all_the_same(
    registry: Registry, tmp_path: Path, stream: bool
):
    data = bytes(range(256)) * 12_000
    digest = Digest.of(data)
    async with cutting(registry, 1_000_000) as url, running_proxy(tmp_path, {UPSTREAM: url}) as proxy:
        async with client_of(proxy.url) as client, nothing_left(tmp_path / "store"):
            location = await client.start_upload("org/app")
            async with chunks_of(data)() as chunks:
                if stream:
                    location = await client.patch_upload(location, chunks)
                    await client.put_upload(location, digest)
                else:
                    await client.put_upload(location, digest, chunks, len(data))
        assert await proxy.store.stat(digest) == len(data)
    assert (await get(f"{registry.url}/v2/org/app/blobs/{digest}"))[2] == data
    assert registry.count("POST", "/blobs/uploads/") == 2 or registry.count("GET", "/blobs/uploads/") == 1
