"""What an upstream can do wrong: what is served all the same is right, nothing is left, and the next request works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from cache.oci import media_types
from cache.oci.digest import Digest
from cache.oci.retry import Backoff
from proxy.config import Patience
from proxy.upstream.circuit import Pace
from tests.fakes import faulty
from tests.fakes.faulty import Fault, Script, scripted_upstream
from tests.proxy.leaks import nothing_left
from tests.proxy.running import UPSTREAM, Proxy, get, head, make_image, running_proxy

SHORT = Patience(
    connect_s=2.0,
    reply_s=0.3,
    silence_s=0.3,
    backoff=Backoff(tries=2, first_s=0.01, factor=1.0),
    pace=Pace(0.0, 0.0, 0.0),
)
OTHER = make_image(2)
IMAGE = make_image(1)
DATA = IMAGE.blobs[IMAGE.layer]
BLOB = f"/v2/org/app/blobs/{IMAGE.layer}"
TAG = "/v2/org/app/manifests/1"
MANIFEST = f"/v2/org/app/manifests/{IMAGE.manifest.digest}"
ALWAYS = 1000


@pytest.fixture
async def upstream() -> AsyncIterator[Script]:
    async with scripted_upstream() as script:
        script.blobs = {str(digest): data for digest, data in IMAGE.blobs.items()}
        script.manifests = {"1": IMAGE.manifest.raw, str(IMAGE.manifest.digest): IMAGE.manifest.raw}
        yield script


@pytest.fixture
async def proxy(upstream: Script, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with running_proxy(tmp_path, {UPSTREAM: upstream.url}, tag_ttl_s=0, patience=SHORT) as running:
        yield running


CUT = 0
"""Not a status: the connection is cut after the head of a reply."""


async def asked(url: str) -> tuple[int, bytes]:
    """The status of a whole reply and its body, or CUT."""
    try:
        status, _, body = await get(url)
    except aiohttp.ClientPayloadError:
        return CUT, b""
    return status, body


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def without(size_bytes: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-size_bytes]


BLOB_FAULTS: list[tuple[str, Fault, int, int]] = [
    ("stalls before headers, once", faulty.stall, 1, 200),
    ("stalls before headers", faulty.stall, ALWAYS, 503),
    ("stalls in the body, once", faulty.stall_at(100_000), 1, 200),
    ("stalls in the body", faulty.stall_at(0), ALWAYS, CUT),
    ("resets in the body, once", faulty.reset_at(100_000), 1, 200),
    ("resets in the body", faulty.reset_at(0), ALWAYS, CUT),
    ("is short", faulty.announced(-10, without(10)), ALWAYS, CUT),
    ("is long", faulty.announced(10, lambda data: data + b"x" * 10), ALWAYS, CUT),
    ("announces more than comes", faulty.announced(10), ALWAYS, CUT),
    ("announces more than comes, once", faulty.announced(10), 1, CUT),
    ("sends more than announced", faulty.announced(0, lambda data: data + b"x" * 10), 1, 200),
    ("does not say its length", faulty.without_length, ALWAYS, 502),
    ("other bytes", faulty.announced(0, flipped), ALWAYS, CUT),
    ("a page", faulty.body(b"<html>be back soon</html>", "text/html"), ALWAYS, CUT),
    ("gzip", faulty.compressed, ALWAYS, 502),
    ("three redirects", faulty.redirect(3), ALWAYS, 200),
    ("redirects to an absolute place", faulty.redirect(1, absolute=True), ALWAYS, 200),
    ("redirects without end", faulty.redirect(1000), ALWAYS, 502),
    ("a redirect to nowhere", faulty.status(307, Location="ftp://up.test/x"), ALWAYS, 502),
    ("a redirect to cloud metadata", faulty.status(307, Location="http://169.254.169.254/x"), ALWAYS, 502),
    ("foreign realm", faulty.status(401, WWW_Authenticate='Bearer realm="https://evil.test/token"'), ALWAYS, 502),
    ("token without expires_in", faulty.wants_token({"token": "t"}), ALWAYS, 200),
    ("a token server that gives no token", faulty.wants_token({"nothing": 1}), ALWAYS, 502),
    ("429", faulty.status(429), ALWAYS, 429),
    ("429 with Retry-After", faulty.status(429, Retry_After="0"), ALWAYS, 429),
    ("a burst of 503", faulty.status(503), 1, 200),
    ("503", faulty.status(503), ALWAYS, 502),
    ("500", faulty.status(500), ALWAYS, 502),
    ("long headers", faulty.headers_of(60_000), ALWAYS, 200),
    ("headers without measure", faulty.headers_of(100_000), ALWAYS, 503),
    ("404", faulty.status(404), ALWAYS, 404),
]


@pytest.mark.parametrize(
    ("fault", "times", "expected"), [case[1:] for case in BLOB_FAULTS], ids=[case[0] for case in BLOB_FAULTS]
)
async def test_a_blob_behind_a_fault(
    upstream: Script, proxy: Proxy, tmp_path: Path, fault: Fault, times: int, expected: int
):
    async with nothing_left(tmp_path / "store"):
        upstream.plan(fault, "GET", times=times)
        status, body = await asked(proxy.url + BLOB)
        assert status == expected
        assert (body == DATA) == (status == 200)
        if status != 200:
            assert await proxy.store.stat(IMAGE.layer) is None
        upstream.plans.clear()
        assert await asked(proxy.url + BLOB) == (200, DATA)
    assert (await head(proxy.url + BLOB))[0] == 200


MANIFEST_FAULTS: list[tuple[str, Fault, int, int]] = [
    ("stalls before headers", faulty.stall, ALWAYS, 503),
    ("stalls in the body, once", faulty.stall_at(10), 1, 200),
    ("stalls in the body", faulty.stall_at(10), ALWAYS, 503),
    ("resets, once", faulty.reset_at(10), 1, 200),
    ("resets", faulty.reset_at(10), ALWAYS, 503),
    ("is short", faulty.announced(-10, without(10)), ALWAYS, 502),
    ("announces more than comes", faulty.announced(10), ALWAYS, 503),
    ("a page", faulty.body(b"<html>be back soon</html>", "text/html"), ALWAYS, 502),
    ("a page that calls itself a manifest", faulty.body(b"<html>be back soon</html>"), ALWAYS, 502),
    ("without end", faulty.body(b" " * (9 << 20)), ALWAYS, 502),
    ("gzip", faulty.compressed, ALWAYS, 502),
    ("redirects without end", faulty.redirect(1000), ALWAYS, 502),
    ("three redirects", faulty.redirect(3), ALWAYS, 200),
    ("token without expires_in", faulty.wants_token({"token": "t"}), ALWAYS, 200),
    ("foreign realm", faulty.status(401, WWW_Authenticate='Bearer realm="https://evil.test/token"'), ALWAYS, 502),
    ("429", faulty.status(429), ALWAYS, 429),
    ("a burst of 500", faulty.status(500), 1, 200),
    ("503", faulty.status(503), ALWAYS, 502),
    ("long headers", faulty.headers_of(60_000), ALWAYS, 200),
    ("headers without measure", faulty.headers_of(100_000), ALWAYS, 503),
]


@pytest.mark.parametrize(
    ("fault", "times", "expected"), [case[1:] for case in MANIFEST_FAULTS], ids=[case[0] for case in MANIFEST_FAULTS]
)
@pytest.mark.parametrize("path", [TAG, MANIFEST], ids=["tag", "digest"])
async def test_a_manifest_behind_a_fault(
    upstream: Script, proxy: Proxy, path: str, fault: Fault, times: int, expected: int
):
    upstream.plan(fault, times=times)
    status, headers, body = await get(proxy.url + path)
    assert status == expected
    if status == 200:
        assert body == IMAGE.manifest.raw
    else:
        assert UPSTREAM.encode() in body
        assert "Docker-Content-Digest" not in headers
    upstream.plans.clear()
    assert await asked(proxy.url + path) == (200, IMAGE.manifest.raw)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faulty.stall, id="stalls"),
        pytest.param(faulty.reset_at(10), id="resets"),
        pytest.param(faulty.announced(-10, without(10)), id="is short"),
        pytest.param(faulty.body(b"<html></html>", "text/html"), id="a page"),
        pytest.param(faulty.compressed, id="gzip"),
        pytest.param(faulty.redirect(1000), id="redirects without end"),
        pytest.param(faulty.status(429), id="429"),
        pytest.param(faulty.status(503), id="503"),
        pytest.param(faulty.headers_of(100_000), id="headers without measure"),
    ],
)
async def test_a_manifest_that_is_held_is_served_past_an_upstream_that_is_ill(
    upstream: Script, proxy: Proxy, fault: Fault
):
    assert (await get(proxy.url + TAG))[0] == 200
    upstream.plan(faulty.status(405), "HEAD", times=ALWAYS)
    upstream.plan(fault, "GET", times=ALWAYS)
    status, headers, body = await get(proxy.url + TAG)
    assert (status, body, headers["X-Cache"]) == (200, IMAGE.manifest.raw, "stale")
    assert headers["Warning"].startswith(f'110 - "{UPSTREAM} ')


async def test_other_bytes_than_the_digest_that_was_asked_for(upstream: Script, proxy: Proxy):
    upstream.plan(faulty.body(OTHER.manifest.raw), "GET", times=ALWAYS)
    status, _, body = await get(proxy.url + MANIFEST)
    assert (status, b"with sha256:" in body) == (502, True)
    upstream.plans.clear()
    assert await asked(proxy.url + MANIFEST) == (200, IMAGE.manifest.raw)


async def test_a_digest_header_that_lies_is_not_believed(upstream: Script, proxy: Proxy):
    digest = {"Docker_Content_Digest": str(OTHER.manifest.digest)}
    upstream.plan(faulty.body(IMAGE.manifest.raw, **digest), "GET", times=ALWAYS)
    upstream.plan(faulty.body(IMAGE.manifest.raw, **digest), "HEAD", times=ALWAYS)
    for _ in range(2):
        status, headers, body = await get(proxy.url + TAG)
        assert (status, body) == (200, IMAGE.manifest.raw)
        assert headers["Docker-Content-Digest"] == str(IMAGE.manifest.digest)
    assert (await get(f"{proxy.url}/v2/org/app/manifests/{OTHER.manifest.digest}"))[0] == 502


async def test_a_tag_that_flaps(upstream: Script, proxy: Proxy):
    for turn in range(6):
        upstream.manifests["1"] = (IMAGE if turn % 2 else OTHER).manifest.raw
        if turn % 3 == 2:  # between HEAD and GET
            flapped = (OTHER if turn % 2 else IMAGE).manifest.raw
            upstream.plan(faulty.body(flapped), "GET")
        status, headers, body = await get(proxy.url + TAG)
        assert status == 200
        assert body in (IMAGE.manifest.raw, OTHER.manifest.raw)
        assert headers["Docker-Content-Digest"] == str(Digest.of(body))


async def test_an_upstream_without_head_is_asked_with_get_at_once(upstream: Script, proxy: Proxy):
    upstream.plan(faulty.status(405), "HEAD", times=ALWAYS)
    for _ in range(3):
        assert await asked(proxy.url + TAG) == (200, IMAGE.manifest.raw)
    assert upstream.count("HEAD", TAG) == 1
    assert upstream.count("GET", TAG) == 3
    status, headers = await head(proxy.url + TAG)
    assert (status, headers["Content-Type"]) == (200, media_types.OCI_MANIFEST)


async def test_clients_that_are_served_when_it_fails_see_a_cut_and_nothing_appended(upstream: Script, proxy: Proxy):
    upstream.plan(faulty.announced(0, flipped), "GET")

    async def pull() -> bytes:
        got = bytearray()
        async with aiohttp.ClientSession() as session, session.get(proxy.url + BLOB) as response:
            try:
                while part := await response.content.readany():
                    got += part
            except aiohttp.ClientPayloadError:
                return bytes(got)
        raise AssertionError("the reply was complete")

    for body in await asyncio.gather(*(pull() for _ in range(5))):
        assert body == DATA[: len(body)]
        assert len(body) < len(DATA)
    assert await asked(proxy.url + BLOB) == (200, DATA)
