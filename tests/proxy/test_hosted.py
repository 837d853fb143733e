"""Repositories that live in the proxy: pushing in every way, and pulling back."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cache.memory import MemoryStore
from cache.oci.digest import Digest
from cache.store import Store
from tests.proxy.running import Proxy, client_of, get, head, make_image, push, running_proxy

DATA = bytes(range(256)) * 64
DIGEST = Digest.of(DATA)
BASE = "/v2/cache/app"


@pytest.fixture(params=["filesystem", "memory"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy with no upstream."""
    store: Store | None = MemoryStore() if request.param == "memory" else None
    async with running_proxy(tmp_path, {}, store=store) as running:
        yield running


@pytest.fixture
async def session(proxy: Proxy) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(proxy.url) as opened:
        yield opened


async def start(session: aiohttp.ClientSession) -> str:
    async with session.post(f"{BASE}/blobs/uploads/") as response:
        assert response.status == 202
        return response.headers["Location"]


async def patch(session: aiohttp.ClientSession, location: str, data: bytes, place: str = "") -> tuple[int, str]:
    headers = {"Content-Range": place} if place else {}
    async with session.patch(location, data=data, headers=headers) as response:
        return response.status, response.headers.get("Range", "")


async def put(session: aiohttp.ClientSession, location: str, digest: Digest, data: bytes = b"", place: str = "") -> int:
    headers = {"Content-Range": place} if place else {}
    async with session.put(location, params={"digest": str(digest)}, data=data, headers=headers) as response:
        return response.status


async def test_push_and_pull(proxy: Proxy):
    image = make_image()
    async with client_of(proxy.url) as client:
        await push(client, "cache/app", "1", image)
        assert (await client.get_manifest("cache/app", "1")).raw == image.manifest.raw
        assert await client.tags("cache/app") == ("1",)
    for digest, data in image.blobs.items():
        status, headers, body = await get(f"{proxy.url}{BASE}/blobs/{digest}")
        assert (status, body, headers["X-Cache"]) == (200, data, "hit")
        assert (await get(f"{proxy.url}{BASE}/blobs/{digest}", Range="bytes=-7"))[2] == data[-7:]
    status, headers = await head(f"{proxy.url}{BASE}/manifests/1")
    assert (status, headers["Content-Length"]) == (200, str(len(image.manifest.raw)))
    assert headers["Content-Type"] == image.manifest.media_type


async def test_a_whole_blob_in_one_request(session: aiohttp.ClientSession):
    for data in (DATA, b""):
        digest = Digest.of(data)
        async with session.post(f"{BASE}/blobs/uploads/", params={"digest": str(digest)}, data=data) as response:
            assert (response.status, response.headers["Location"]) == (201, f"{BASE}/blobs/{digest}")
            assert response.headers["Docker-Content-Digest"] == str(digest)
        async with session.get(response.headers["Location"]) as response:
            assert await response.read() == data


async def test_sha512(session: aiohttp.ClientSession):
    digest = Digest.of(DATA, "sha512")
    assert await put(session, await start(session), digest, DATA) == 201
    async with session.get(f"{BASE}/blobs/{digest}") as response:
        assert (await response.read(), response.headers["Docker-Content-Digest"]) == (DATA, str(digest))


async def test_chunks_in_order_and_out_of_order(session: aiohttp.ClientSession):
    location = await start(session)
    assert await patch(session, location, DATA[:1000], "0-999") == (202, "0-999")
    assert await patch(session, location, DATA[2000:3000], "2000-2999") == (416, "0-999")
    assert await patch(session, location, DATA[:1000], "0-999") == (416, "0-999")
    async with session.get(location, params={"digest": str(DIGEST)}) as response:
        assert (response.status, response.headers["Range"]) == (204, "0-999")
    assert await put(session, location, DIGEST, DATA[3000:], f"3000-{len(DATA) - 1}") == 416
    assert await patch(session, location, DATA[1000:2000]) == (202, "0-1999")
    assert await put(session, location, DIGEST, DATA[2000:], f"2000-{len(DATA) - 1}") == 201
    assert await put(session, location, DIGEST) == 404
    async with session.get(f"{BASE}/blobs/{DIGEST}") as response:
        assert await response.read() == DATA


async def test_a_stream_without_a_length(session: aiohttp.ClientSession):
    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(DATA), 1000):
            yield DATA[at : at + 1000]

    location = await start(session)
    async with session.patch(location, data=stream()) as response:
        assert (response.status, response.headers["Range"]) == (202, f"0-{len(DATA) - 1}")
    assert await put(session, location, DIGEST) == 201


@pytest.mark.parametrize("place", ["x", "5-1", "0-5"])
async def test_a_chunk_that_contradicts_itself(session: aiohttp.ClientSession, place: str):
    assert (await patch(session, await start(session), b"abc", place))[0] == 400


async def test_a_wrong_digest_is_refused_and_nothing_is_kept(proxy: Proxy, session: aiohttp.ClientSession):
    wrong = Digest.of(b"other")
    location = await start(session)
    await patch(session, location, DATA)
    assert await put(session, location, wrong) == 400
    assert await put(session, await start(session), wrong, DATA) == 400
    async with session.post(f"{BASE}/blobs/uploads/", params={"digest": str(wrong)}, data=DATA) as response:
        assert response.status == 400
        assert (await response.json())["errors"][0]["code"] == "DIGEST_INVALID"
    for digest in (wrong, DIGEST):
        assert await proxy.store.stat(digest) is None
        assert (await head(f"{proxy.url}{BASE}/blobs/{digest}"))[0] == 404


async def test_an_upload_belongs_to_its_repository_and_to_who_began_it(session: aiohttp.ClientSession):
    location = await start(session)
    other = location.replace("cache/app", "cache/other")
    assert (await patch(session, other, DATA))[0] == 404
    async with session.patch(location, data=DATA, headers={"Authorization": "Basic c29tZW9uZTplbHNl"}) as response:
        assert response.status == 404
    async with session.delete(location) as response:
        assert response.status == 204
    assert (await patch(session, location, DATA))[0] == 404


async def test_a_client_that_leaves_in_the_middle_can_go_on(proxy: Proxy, session: aiohttp.ClientSession):
    location = await start(session)

    async def half() -> AsyncIterator[bytes]:
        yield DATA[:5000]
        raise ConnectionError("the client is gone")

    async with aiohttp.ClientSession(proxy.url) as leaving:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await leaving.patch(location, data=half())
    async with session.get(location) as response:
        assert response.status == 204
        received = int(response.headers["Range"].removeprefix("0-")) + 1
    received = 0 if received == 1 else received
    assert await put(session, location, DIGEST, DATA[received:], f"{received}-{len(DATA) - 1}") == 201


async def test_mounting_between_hosted_repositories(proxy: Proxy, session: aiohttp.ClientSession):
    assert await put(session, await start(session), DIGEST, DATA) == 201

    async def mount(target: str, digest: Digest, source: str | None) -> int:
        query = {"mount": str(digest)} | ({"from": source} if source else {})
        async with session.post(f"/v2/{target}/blobs/uploads/", params=query) as response:
            return response.status

    assert await mount("cache/two", DIGEST, "cache/none") == 202
    assert (await get(f"{proxy.url}/v2/cache/two/blobs/{DIGEST}"))[0] == 404
    assert await mount("cache/two", DIGEST, "cache/app") == 201
    assert (await get(f"{proxy.url}/v2/cache/two/blobs/{DIGEST}"))[2] == DATA
    assert await mount("cache/two", DIGEST, None) == 201
    assert await mount("cache/four", DIGEST, None) == 201
    assert (await get(f"{proxy.url}/v2/cache/four/blobs/{DIGEST}"))[2] == DATA
    assert await mount("cache/four", Digest.of(b"absent"), None) == 202
    assert await mount("cache/two", Digest.of(b"absent"), "cache/app") == 202
    assert await mount("cache/three", DIGEST, "elsewhere/app") == 202


async def test_a_manifest_is_taken_only_whole(proxy: Proxy, session: aiohttp.ClientSession):
    image = make_image()
    url, headers = f"{BASE}/manifests/1", {"Content-Type": image.manifest.media_type}
    async with session.put(url, data=image.manifest.raw, headers=headers) as response:
        said = (await response.json())["errors"][0]
        assert (response.status, said["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert str(image.layer) in said["message"]
    async with session.put(f"{BASE}/manifests/{DIGEST}", data=image.manifest.raw, headers=headers) as response:
        assert (response.status, (await response.json())["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    async with session.put(url, data=b"{", headers=headers) as response:
        assert (response.status, (await response.json())["errors"][0]["code"]) == (400, "MANIFEST_INVALID")
    assert (await get(proxy.url + url))[0] == 404


async def test_a_large_manifest_and_one_that_is_too_large(proxy: Proxy, session: aiohttp.ClientSession):
    image = make_image()
    async with client_of(proxy.url) as client:
        await push(client, "cache/app", "1", image)
    headers = {"Content-Type": image.manifest.media_type}
    for padding, status in ((4 << 20, 201), (9 << 20, 413)):
        raw = image.manifest.raw + b" " * padding
        async with session.put(f"{BASE}/manifests/big", data=io.BytesIO(raw), headers=headers) as response:
            assert response.status == status
    assert len((await get(f"{proxy.url}{BASE}/manifests/big"))[2]) == len(image.manifest.raw) + (4 << 20)


async def test_tags_come_in_order_and_in_pages(proxy: Proxy):
    async with client_of(proxy.url) as client:
        for tag in ("c", "a", "d", "b"):
            await push(client, "cache/app", tag, make_image())
    base = f"{proxy.url}{BASE}/tags/list"
    assert (await get(base))[2] == b'{"name":"cache/app","tags":["a","b","c","d"]}'
    _, headers, body = await get(f"{base}?n=3")
    assert body == b'{"name":"cache/app","tags":["a","b","c"]}'
    link = headers["Link"].partition(">")[0].lstrip("<")
    assert (await get(proxy.url + link))[2] == b'{"name":"cache/app","tags":["d"]}'
    __, headers, body = await get(f"{base}?n=0")
    assert (body, "Link" in headers) == (b'{"name":"cache/app","tags":[]}', False)
    assert (await get(f"{base}?last=b"))[2] == b'{"name":"cache/app","tags":["c","d"]}'
    assert (await get(f"{proxy.url}/v2/cache/none/tags/list"))[0] == 404


async def test_what_is_deleted_is_gone_at_once(proxy: Proxy, session: aiohttp.ClientSession):
    image = make_image()
    async with client_of(proxy.url) as client:
        for tag in ("a", "b", "c"):
            await push(client, "cache/app", tag, image)
    gone = [
        ("manifests/a", ["manifests/a"], ["manifests/b"]),
        (
            f"manifests/{image.manifest.digest}",
            [f"manifests/{image.manifest.digest}", "manifests/b", "manifests/c"],
            [],
        ),
        (f"blobs/{image.layer}", [f"blobs/{image.layer}"], []),
    ]
    for path, absent, present in gone:
        async with session.delete(f"{BASE}/{path}") as response:
            assert response.status == 202
        for other in absent:
            assert (await head(f"{proxy.url}{BASE}/{other}"))[0] == 404
        for other in present:
            assert (await head(f"{proxy.url}{BASE}/{other}"))[0] == 200
        async with session.delete(f"{BASE}/{path}") as response:
            assert response.status == 404
