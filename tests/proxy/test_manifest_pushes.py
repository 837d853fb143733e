"""Manifests with several tags on their way to upstreams that can, cannot or will not set them."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cache.oci import media_types
from cache.oci.digest import Digest
from cache.oci.manifest import make_index
from tests.fakes.registry import fake_registry
from tests.proxy.running import UPSTREAM, get, running_proxy

RAW = make_index(()).raw
DIGEST = Digest.of(RAW)


async def push(url: str, reference: object, tags: tuple[str, ...]) -> tuple[int, str, str]:
    """Status, OCI-Tag and OCI-Subject of a push."""
    query = "&".join(f"tag={tag}" for tag in tags)
    target, headers = f"{url}/v2/a/b/manifests/{reference}?{query}", {"Content-Type": media_types.OCI_INDEX}
    async with aiohttp.ClientSession() as session, session.put(target, data=RAW, headers=headers) as response:
        return response.status, response.headers.get("OCI-Tag", ""), response.headers.get("OCI-Subject", "")


@pytest.mark.parametrize(
    ("does", "refused", "algorithm", "acknowledged", "sent"),
    [
        ("a, b,c", (), "sha256", "a, b, c", [DIGEST]),
        ("b", (), "sha256", "b, a, c", [DIGEST, "a", "c"]),
        ("", (), "sha256", "a, b, c", [DIGEST, "a", "b", "c"]),
        ("", ("b",), "sha256", "a, c", [DIGEST, "a", "b", "c"]),
        ("other", ("a", "b", "c"), "sha256", "", [DIGEST, "a", "b", "c"]),
        ("", (), "sha512", "", [Digest.of(RAW, "sha512")]),
        ("a", (), "sha512", "a", [Digest.of(RAW, "sha512")]),
    ],
)
async def test_only_what_was_taken_is_acknowledged(
    tmp_path: Path, does: str, refused: tuple[str, ...], algorithm: str, acknowledged: str, sent: list[object]
):
    async def handle(request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        if request.method != "PUT":
            stated = {"Docker-Content-Digest": str(Digest.of(RAW, algorithm)), "Content-Type": media_types.OCI_INDEX}
            return web.Response(body=RAW, headers=stated)
        if name in refused:
            return web.json_response({"errors": [{"code": "DENIED", "message": "immutable"}]}, status=403)
        headers = {"OCI-Subject": "sha256:as-it-said"} if ":" in name else {}
        return web.Response(status=201, headers=headers | ({"OCI-Tag": does} if does and ":" in name else {}))

    async with fake_registry(handle) as fake, running_proxy(tmp_path, {UPSTREAM: fake.url}) as proxy:
        reply = await push(proxy.url, Digest.of(RAW, algorithm), ("a", "b", "c"))
        assert reply == (201, acknowledged, "sha256:as-it-said")
        assert [seen.path.rpartition("/")[2] for seen in fake.seen] == list(map(str, sent))
        assert fake.seen[0].query == "tag=a&tag=b&tag=c"
        for tag in acknowledged.split(", ") if acknowledged else ():
            status, headers, body = await get(f"{proxy.url}/v2/a/b/manifests/{tag}")
            assert (status, body) == (200, RAW)
            assert headers["Docker-Content-Digest"] == str(Digest.of(RAW, algorithm))
        assert fake.count("GET") == 0, "they are cached with the push"


async def test_a_refused_manifest_sets_no_tag(tmp_path: Path):
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "no blob"}]}, status=400)

    async with fake_registry(handle) as fake, running_proxy(tmp_path, {UPSTREAM: fake.url}) as proxy:
        assert (await push(proxy.url, DIGEST, ("a",)))[:2] == (400, "")
        assert len(fake.seen) == 1


async def test_a_tag_keeps_the_digest_that_the_upstream_has_for_it(tmp_path: Path):
    """An upstream where the manifest was pushed by its SHA-512; one that lies is not believed."""
    stated = {"right": str(Digest.of(RAW, "sha512")), "wrong": str(Digest.of(b"x", "sha512")), "none": ""}

    async def handle(request: web.Request) -> web.Response:
        digest = stated[request.path.rpartition("/")[2]]
        headers = {"Content-Type": media_types.OCI_INDEX} | ({"Docker-Content-Digest": digest} if digest else {})
        return web.Response(body=RAW, headers=headers)

    async with fake_registry(handle) as fake, running_proxy(tmp_path, {UPSTREAM: fake.url}) as proxy:
        for tag, digest in (("right", stated["right"]), ("wrong", str(DIGEST)), ("none", str(DIGEST))):
            for _ in range(2):
                status, headers, body = await get(f"{proxy.url}/v2/a/b/manifests/{tag}")
                assert (status, body, headers["Docker-Content-Digest"]) == (200, RAW, digest)
