"""Pulling through the proxy: tags, digests, ranges, and an upstream that is gone."""

from __future__ import annotations

from pathlib import Path

from cache.oci import media_types
from cache.oci.digest import Digest
from tests.peers import Registry, start_registry
from tests.proxy.running import UPSTREAM, client_of, get, head, make_image, push, running_proxy, scripted_upstream


async def test_an_image_is_fetched_once_and_then_served_from_the_cache(registry: Registry, tmp_path: Path):
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", image)
    layer = f"/v2/org/app/blobs/{image.layer}"
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        for outcome in ("miss", "hit"):
            status, headers, raw = await get(f"{proxy.url}/v2/org/app/manifests/1")
            assert (status, raw) == (200, image.manifest.raw)
            assert headers["Content-Type"] == media_types.OCI_MANIFEST
            assert headers["Docker-Content-Digest"] == str(image.manifest.digest)
            assert (headers["X-Cache"], headers["OCI-Namespace"]) == (outcome, UPSTREAM)
            status, headers, data = await get(proxy.url + layer)
            assert (status, data, headers["X-Cache"]) == (200, image.blobs[image.layer], outcome)
        status, headers, raw = await get(f"{proxy.url}/v2/org/app/manifests/{image.manifest.digest}")
        assert (status, raw, headers["X-Cache"]) == (200, image.manifest.raw, "hit")
    assert registry.count("GET", "/manifests/") == 1
    assert registry.count("GET", layer) == 1


async def test_what_is_cached_outlives_the_proxy(registry: Registry, tmp_path: Path):
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", image)
    for _ in range(2):
        async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
            await get(f"{proxy.url}/v2/org/app/manifests/1")
            assert (await get(f"{proxy.url}/v2/org/app/blobs/{image.layer}"))[0] == 200
    assert registry.count("GET", f"/blobs/{image.layer}") == 1
    assert registry.count("GET", "/manifests/") == 1


async def test_a_tag_that_moved_is_seen_when_its_time_is_over(registry: Registry, tmp_path: Path):
    old, new = make_image(1), make_image(2)
    async with (
        client_of(registry.url) as client,
        running_proxy(tmp_path, {UPSTREAM: registry.url}, tag_ttl_s=0) as proxy,
    ):
        url = f"{proxy.url}/v2/org/app/manifests/1"
        await push(client, "org/app", "1", old)
        assert (await get(url))[2] == old.manifest.raw
        assert (await get(url))[1]["X-Cache"] == "hit"
        assert registry.count("GET", "/manifests/") == 1
        assert registry.count("HEAD", "/manifests/") == 1
        await push(client, "org/app", "1", new)
        status, headers, raw = await get(url)
        assert (status, raw, headers["X-Cache"]) == (200, new.manifest.raw, "miss")
        await push(client, "org/app", "1", old)
        assert (await get(url))[2] == old.manifest.raw
    assert registry.count("GET", "/manifests/") == 2


async def test_a_tag_is_not_asked_for_again_while_it_is_fresh(registry: Registry, tmp_path: Path):
    old, new = make_image(1), make_image(2)
    async with client_of(registry.url) as client, running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        await push(client, "org/app", "1", old)
        await get(f"{proxy.url}/v2/org/app/manifests/1")
        await push(client, "org/app", "1", new)
        assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[2] == old.manifest.raw


async def test_the_upstream_is_chosen_by_ns_or_by_the_first_component(tmp_path: Path):
    one, other = make_image(1), make_image(2)
    with start_registry(tmp_path / "1") as first, start_registry(tmp_path / "2") as second:
        async with client_of(first.url) as client:
            await push(client, "library/app", "1", one)
        async with client_of(second.url) as client:
            await push(client, "app", "1", other)
        async with running_proxy(tmp_path, {"docker.io": first.url, "other.test": second.url}) as proxy:
            for path in ("app/manifests/1", "library/app/manifests/1", "docker.io/app/manifests/1"):
                assert (await get(f"{proxy.url}/v2/{path}"))[2] == one.manifest.raw
            assert (await get(f"{proxy.url}/v2/app/manifests/1?ns=index.docker.io"))[2] == one.manifest.raw
            assert (await get(f"{proxy.url}/v2/app/manifests/1?ns=other.test"))[2] == other.manifest.raw
            _status, headers, raw = await get(f"{proxy.url}/v2/other.test/app/manifests/1")
            assert (raw, headers["OCI-Namespace"]) == (other.manifest.raw, "other.test")
            assert (await get(f"{proxy.url}/v2/app/manifests/1?ns=quay.io"))[0] == 404


async def test_head_downloads_nothing(registry: Registry, tmp_path: Path):
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        status, headers = await head(f"{proxy.url}/v2/org/app/blobs/{image.layer}")
        assert (status, headers["Content-Length"]) == (200, "300000")
        assert headers["Docker-Content-Digest"] == str(image.layer)
        for reference in ("1", image.manifest.digest):
            status, headers = await head(f"{proxy.url}/v2/org/app/manifests/{reference}")
            assert (status, headers["Content-Length"]) == (200, str(len(image.manifest.raw)))
            assert headers["Docker-Content-Digest"] == str(image.manifest.digest)
        absent = Digest.of(b"absent")
        assert (await head(f"{proxy.url}/v2/org/app/blobs/{absent}"))[0] == 404
        assert (await head(f"{proxy.url}/v2/org/app/manifests/2"))[0] == 404
        assert await proxy.store.stat(image.layer) is None
    assert registry.count("GET", "/blobs/") == registry.count("GET", "/manifests/") == 0


async def test_ranges_of_a_blob_that_is_held_and_of_one_that_is_not(registry: Registry, tmp_path: Path):
    image = make_image()
    data = image.blobs[image.layer]
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        url = f"{proxy.url}/v2/org/app/blobs/{image.layer}"
        for asked, start, stop in (("5-99", 5, 100), ("-10", 299_990, 300_000), ("299000-999999", 299_000, 300_000)):
            status, headers, part = await get(url, Range=f"bytes={asked}")
            assert (status, part) == (206, data[start:stop])
            assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/300000"
        status, headers, _ = await get(url, Range="bytes=300000-")
        assert (status, headers["Content-Range"]) == (416, "bytes */300000")
        assert (await get(url, Range="bytes=1-2,5-6"))[2] == data
    assert registry.count("GET", "/blobs/") == 1


async def test_content_that_the_client_has_is_not_sent(registry: Registry, tmp_path: Path):
    image = make_image()
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", image)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        for path, digest in ((f"blobs/{image.layer}", image.layer), ("manifests/1", image.manifest.digest)):
            for known in (f'"{digest}"', str(digest), f'"x", W/"{digest}"', "*"):
                status, _, body = await get(f"{proxy.url}/v2/org/app/{path}", **{"If-None-Match": known})
                assert (status, body) == (304, b"")
            assert (await get(f"{proxy.url}/v2/org/app/{path}", **{"If-None-Match": '"other"'}))[0] == 200


async def test_tags_of_an_upstream_are_its_own(registry: Registry, tmp_path: Path):
    async with client_of(registry.url) as client:
        for tag in ("b", "a", "c"):
            await push(client, "org/app", tag, make_image())
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}) as proxy:
        _, headers, body = await get(f"{proxy.url}/v2/org/app/tags/list?n=2")
        assert body == b'{"name":"org/app","tags":["a","b"]}'
        assert headers["Link"] == '</v2/org/app/tags/list?n=2&last=b>; rel="next"'
        assert (await get(f"{proxy.url}/v2/org/app/tags/list?n=2&last=b"))[2] == b'{"name":"org/app","tags":["c"]}'
        assert (await get(f"{proxy.url}/v2/org/none/tags/list"))[0] == 404


async def test_an_upstream_that_is_gone_is_answered_for(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as upstream:
        upstream.manifests = {"1": image.manifest.raw}
        upstream.blobs = {str(digest): data for digest, data in image.blobs.items()}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, tag_ttl_s=0) as proxy:
            await get(f"{proxy.url}/v2/org/app/manifests/1")
            await get(f"{proxy.url}/v2/org/app/blobs/{image.layer}")
            for status in (500, 429):
                upstream.status = status
                code, headers, raw = await get(f"{proxy.url}/v2/org/app/manifests/1")
                assert (code, raw, headers["X-Cache"]) == (200, image.manifest.raw, "stale")
                code, headers = await head(f"{proxy.url}/v2/org/app/manifests/1")
                assert (code, headers["X-Cache"]) == (200, "stale")
                assert (await get(f"{proxy.url}/v2/org/app/blobs/{image.layer}"))[0] == 200
            assert (await get(f"{proxy.url}/v2/org/app/manifests/2"))[0] == 429
            assert (await get(f"{proxy.url}/v2/org/other/manifests/1"))[0] == 429


async def test_an_upstream_that_says_no_is_not_answered_for(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as upstream:
        upstream.manifests = {"1": image.manifest.raw}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, tag_ttl_s=0) as proxy:
            for status in (403, 404):
                upstream.status = None
                assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[0] == 200
                upstream.status = status
                assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[0] == status
                upstream.status = 500  # and it is not remembered as something to answer with
                assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[0] == 502


async def test_a_registry_that_is_down_is_said_to_be(tmp_path: Path):
    async with running_proxy(tmp_path, {UPSTREAM: "http://127.0.0.1:1"}) as proxy:
        status, headers, body = await get(f"{proxy.url}/v2/org/app/manifests/1")
        assert (status, "Retry-After" in headers) == (503, True)
        assert b"up.test cannot be reached" in body
        assert (await get(f"{proxy.url}/healthz"))[0] == (await get(f"{proxy.url}/readyz"))[0] == 200


async def test_a_manifest_of_a_kind_that_is_not_known_passes_through(tmp_path: Path):
    async with scripted_upstream() as upstream:
        raw = b'{"schemaVersion":2,"layers":[{"x":1}]}'
        upstream.manifests = {"1": raw}
        async with running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
            status, _, body = await get(f"{proxy.url}/v2/org/app/manifests/1")
            assert (status, body) == (200, raw)
