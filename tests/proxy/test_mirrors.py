"""Mirrors of an upstream: asked first for what anybody may read, and no way around the upstream's word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from proxy.config import Freshness, Upstream
from tests.fakes import faulty
from tests.fakes.faulty import Fault, Script, scripted_upstream
from tests.proxy.running import UPSTREAM, Proxy, get, head, make_image, running_proxy
from tests.proxy.test_private import basic

IMAGE, OTHER = make_image(1), make_image(2)
DATA = IMAGE.blobs[IMAGE.layer]
TAG, MANIFEST = "/v2/org/app/manifests/1", f"/v2/org/app/manifests/{IMAGE.manifest.digest}"
BLOB = f"/v2/org/app/blobs/{IMAGE.layer}"
ALICE = basic(Credential("alice", "secret"))
ALWAYS = 1000


@dataclass
class Mirrored:
    """A proxy before an upstream with two mirrors, all with the same content."""

    proxy: Proxy
    upstream: Script
    first: Script
    second: Script


@asynccontextmanager
async def mirrored_proxy(tmp_path: Path, **freshness: float) -> AsyncIterator[Mirrored]:
    async with scripted_upstream() as upstream, scripted_upstream() as first, scripted_upstream() as second:
        for script in (upstream, first, second):
            script.manifests = {"1": IMAGE.manifest.raw, str(IMAGE.manifest.digest): IMAGE.manifest.raw}
            script.blobs = {str(digest): data for digest, data in IMAGE.blobs.items()}
        mirrors = (first.url, second.url)
        named = Upstream(UPSTREAM, upstream.url, mirrors, freshness=Freshness(negative_ttl_s=0.0, **freshness))
        async with running_proxy(tmp_path, {UPSTREAM: named}) as proxy:
            yield Mirrored(proxy, upstream, first, second)


@pytest.mark.parametrize("who", [{}, ALICE], ids=["nobody", "alice"])
async def test_content_comes_from_the_first_mirror_and_permission_from_the_upstream(
    tmp_path: Path, who: dict[str, str]
):
    async with mirrored_proxy(tmp_path) as way:
        assert (await get(way.proxy.url + TAG, **who))[2] == IMAGE.manifest.raw
        assert (await get(way.proxy.url + BLOB, **who))[2] == DATA
    assert way.upstream.seen == [("HEAD", TAG), ("HEAD", BLOB)]
    assert way.first.seen == [("GET", TAG), ("GET", BLOB)]
    assert way.second.seen == []
    assert set(way.upstream.authorizations + way.first.authorizations) == {""}


async def test_tags_are_checked_at_the_mirror_while_it_is_known_that_anybody_may_read(tmp_path: Path):
    async with mirrored_proxy(tmp_path, tag_ttl_s=0.0) as way:
        for _ in range(3):
            assert (await get(way.proxy.url + TAG))[2] == IMAGE.manifest.raw
    assert way.upstream.seen == [("HEAD", TAG)]
    assert way.first.seen == [("GET", TAG), ("HEAD", TAG), ("HEAD", TAG)]


async def test_permission_is_asked_of_the_upstream_again_when_its_time_is_over(tmp_path: Path):
    async with mirrored_proxy(tmp_path, access_ttl_s=0.0) as way:
        assert (await get(way.proxy.url + TAG))[0] == (await get(way.proxy.url + TAG))[0] == 200
        way.upstream.plan(faulty.private("Basic x"), times=ALWAYS)
        for path in (TAG, MANIFEST, BLOB):
            assert (await get(way.proxy.url + path))[0] == 401


async def test_what_is_private_never_comes_from_a_mirror(tmp_path: Path):
    async with mirrored_proxy(tmp_path) as way:
        way.upstream.plan(faulty.private(ALICE["Authorization"]), times=ALWAYS)
        for path in (TAG, MANIFEST, BLOB):
            assert (await get(way.proxy.url + path))[0] == 401
            assert (await head(way.proxy.url + path))[0] == 401
            assert (await get(way.proxy.url + path, **ALICE))[0] == 200
            assert (await get(way.proxy.url + path))[0] == 401
    assert way.first.seen == way.second.seen == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faulty.status(404), id="404"),
        pytest.param(faulty.status(500), id="500"),
        pytest.param(faulty.status(429), id="429"),
        pytest.param(faulty.status(401, WWW_Authenticate='Basic realm="r"'), id="401"),
        pytest.param(faulty.compressed, id="gzip"),
        pytest.param(faulty.redirect(1000), id="redirects without end"),
    ],
)
@pytest.mark.parametrize(("path", "content"), [(TAG, IMAGE.manifest.raw), (MANIFEST, IMAGE.manifest.raw), (BLOB, DATA)])
async def test_a_mirror_that_fails_is_passed_over(tmp_path: Path, fault: Fault, path: str, content: bytes):
    async with mirrored_proxy(tmp_path) as way:
        way.first.plan(fault, times=ALWAYS)
        assert (await get(way.proxy.url + path))[2] == content
        assert (way.second.count("GET", path), way.upstream.count("GET", path)) == (1, 0)


async def test_what_no_mirror_has_comes_from_the_upstream_with_the_clients_own_credential(tmp_path: Path):
    async with mirrored_proxy(tmp_path) as way:
        for mirror in (way.first, way.second):
            mirror.status = 404
        for path, content in ((TAG, IMAGE.manifest.raw), (BLOB, DATA)):
            assert (await get(way.proxy.url + path, **ALICE))[2] == content
            assert way.upstream.count("GET", path) == 1
        assert (await get(f"{way.proxy.url}/v2/org/app/manifests/none", **ALICE))[0] == 404
    assert set(way.first.authorizations + way.second.authorizations) == {""}


async def test_a_mirror_proves_nothing_of_what_a_repository_has(tmp_path: Path):
    """Some mirrors give a digest out under any name: that must not put it into a repository where it never was."""
    async with mirrored_proxy(tmp_path) as way:
        await get(way.proxy.url + TAG)
        del way.upstream.blobs[str(IMAGE.layer)]
        assert (await get(way.proxy.url + BLOB))[0] == 404
    assert way.first.count("GET", BLOB) == 0


async def test_a_mirror_that_is_gone(tmp_path: Path):
    async with scripted_upstream() as upstream:
        upstream.manifests = {"1": IMAGE.manifest.raw}
        named = Upstream(UPSTREAM, upstream.url, ("http://127.0.0.1:1",))
        async with running_proxy(tmp_path, {UPSTREAM: named}) as proxy:
            assert (await get(proxy.url + TAG))[2] == IMAGE.manifest.raw


async def test_a_manifest_that_a_mirror_gets_wrong_is_asked_for_elsewhere(tmp_path: Path):
    async with mirrored_proxy(tmp_path) as way:
        way.first.plan(faulty.body(OTHER.manifest.raw), "GET", MANIFEST)
        assert (await get(way.proxy.url + MANIFEST))[2] == IMAGE.manifest.raw
        assert way.second.count("GET", MANIFEST) == 1


async def test_a_blob_that_a_mirror_gets_wrong_comes_from_the_upstream_the_next_time(tmp_path: Path):
    async with mirrored_proxy(tmp_path) as way:
        way.first.plan(faulty.announced(0, lambda data: data[:-1] + b"x"), "GET", BLOB, times=ALWAYS)
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(way.proxy.url + BLOB)
        assert await way.proxy.store.stat(IMAGE.layer) is None
        assert (await get(way.proxy.url + BLOB))[2] == DATA
        assert way.upstream.count("GET", BLOB) == 1


async def test_a_blob_that_breaks_off_at_a_mirror_goes_on_elsewhere(tmp_path: Path):
    async with mirrored_proxy(tmp_path) as way:
        way.first.plan(faulty.reset_at(100_000), "GET", BLOB)
        way.first.plan(faulty.status(404), "GET", BLOB, times=ALWAYS)
        assert (await get(way.proxy.url + BLOB))[2] == (await get(way.proxy.url + BLOB))[2] == DATA
        assert (way.second.count("GET", BLOB), way.upstream.count("GET", BLOB)) == (1, 0)


async def test_while_the_upstream_cannot_be_asked_a_mirrors_word_to_strangers_counts(tmp_path: Path):
    async with mirrored_proxy(tmp_path, access_ttl_s=0.0, tag_ttl_s=0.0) as way:
        way.upstream.status = 503
        for _ in range(2):
            for path, content in ((TAG, IMAGE.manifest.raw), (MANIFEST, IMAGE.manifest.raw), (BLOB, DATA)):
                assert (await get(way.proxy.url + path))[2] == content
        for mirror in (way.first, way.second):
            mirror.status = 401
        assert (await get(way.proxy.url + TAG))[0] == 502
        assert (await get(f"{way.proxy.url}/v2/org/app/blobs/{Digest.of(b'none')}"))[0] == 502
