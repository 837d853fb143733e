"""Referrers that an upstream lists, lists badly or cannot list; and many that are pushed at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cache.memory import MemoryStore
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import make_index
from cache.oci.referrers import fallback_tag
from tests.fakes.registry import Fake, Handler, fake_registry
from tests.proxy.running import UPSTREAM, get, running_proxy

SUBJECT = Digest.of(b"subject")
PATH = f"/v2/a/b/referrers/{SUBJECT}"
TYPES = ("t/one", "t/two")


def listed(number: int) -> Descriptor:
    kind, digest = TYPES[number % 2], Digest.of(b"%d" % number)
    return Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest, size=number, artifact_type=kind)


LISTED = tuple(sorted(map(listed, range(6)), key=lambda found: found.digest))


def index_reply(*manifests: Descriptor, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(body=make_index(manifests).raw, content_type=media_types.OCI_INDEX, headers=named)


async def ask(tmp: Path, handler: Handler, query: str = "") -> tuple[int, dict[str, str], Any, Fake]:
    async with fake_registry(handler) as fake, running_proxy(tmp, {UPSTREAM: fake.url}) as proxy:
        status, headers, body = await get(f"{proxy.url}{PATH}{query}")
        return status, headers, json.loads(body), fake


def as_json(*manifests: Descriptor) -> Any:
    return json.loads(codec.encode(manifests))


@pytest.mark.parametrize("filters", [False, True])
async def test_every_page_of_the_upstream_is_listed(tmp_path: Path, filters: bool):
    """Those of a type, whether the upstream can filter or not."""

    async def handle(request: web.Request) -> web.Response:
        start = int(request.query.get("from", "0"))
        wanted = request.query.get("artifactType") if filters else None
        some = [found for found in LISTED[start : start + 2] if wanted in (None, found.artifact_type)]
        headers = {"OCI_Filters_Applied": "artifactType"} if wanted else {}
        if start + 2 < len(LISTED):
            kind = f"&artifactType={wanted}" if wanted else ""
            headers["Link"] = f'<{request.url.origin()}{PATH}?from={start + 2}{kind}>; rel="next"'
        return index_reply(*some, **headers)

    status, headers, body, _ = await ask(tmp_path, handle)
    assert (status, headers["Content-Type"], body["manifests"]) == (200, media_types.OCI_INDEX, as_json(*LISTED))
    assert "Link" not in headers
    status, headers, body, fake = await ask(tmp_path, handle, f"?artifactType={TYPES[1]}")
    expected = [found for found in LISTED if found.artifact_type == TYPES[1]]
    assert (status, body["manifests"]) == (200, as_json(*expected))
    assert (headers["OCI-Filters-Applied"], fake.seen[0].query) == ("artifactType", "artifactType=t%2Ftwo")


@pytest.mark.parametrize(
    ("refusal", "code"), [(404, "PAGE_NOT_FOUND"), (405, "UNSUPPORTED"), (400, "UNSUPPORTED"), (404, "NAME_UNKNOWN")]
)
@pytest.mark.parametrize("tagged", [True, False])
async def test_an_upstream_without_the_api_has_the_fallback_tag(tmp_path: Path, refusal: int, code: str, tagged: bool):
    async def handle(request: web.Request) -> web.Response:
        if tagged and request.path == f"/v2/a/b/manifests/{fallback_tag(SUBJECT)}":
            return index_reply(*LISTED)
        status = refusal if "/referrers/" in request.path else 404
        return web.json_response({"errors": [{"code": code, "message": "no"}]}, status=status)

    status, headers, body, _ = await ask(tmp_path, handle, f"?artifactType={TYPES[0]}")
    expected = [found for found in LISTED if found.artifact_type == TYPES[0]] if tagged else []
    assert (status, body["manifests"]) == (200, as_json(*expected))
    assert headers["OCI-Filters-Applied"] == "artifactType"


FAILURES = [({"status": 500}, 502), ({"status": 403}, 403), ({"status": 400}, 400), ({"text": "<html>"}, 502)]


@pytest.mark.parametrize(
    ("where", "reply", "status"),
    [(where, *failure) for where in ("first page", "second page", "fallback") for failure in FAILURES]
    + [("second page", {"status": 404}, 404), ("second page", {"status": 405}, 405)],
)
async def test_failure_is_no_empty_list(tmp_path: Path, where: str, reply: dict[str, Any], status: int):
    async def handle(request: web.Request) -> web.Response:
        at = "fallback" if "/manifests/" in request.path else "second page" if request.query else "first page"
        if at == where:
            return web.Response(**reply)
        if at == "first page" and where == "second page":
            return index_reply(*LISTED, Link=f'<{PATH}?from=6>; rel="next"')
        return web.Response(status=404)

    got, _, body, _ = await ask(tmp_path, handle)
    assert got == status
    assert UPSTREAM in body["errors"][0]["message"]


async def test_an_upstream_that_filters_is_believed(tmp_path: Path):
    """It may know the type of what its list gives none for."""
    untyped = Descriptor(media_type=media_types.OCI_MANIFEST, digest=Digest.of(b"untyped"), size=1)

    async def handle(request: web.Request) -> web.Response:
        return index_reply(untyped, OCI_Filters_Applied="artifactType")

    _, _, body, _ = await ask(tmp_path, handle, "?artifactType=t/one")
    assert body["manifests"] == as_json(untyped)


async def test_an_endless_list_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cache.oci.discovery.MAX_REFERRER_PAGES", 5)

    async def handle(request: web.Request) -> web.Response:
        return index_reply(*LISTED, Link=f'<{PATH}?from=0>; rel="next"')

    status, _, body, fake = await ask(tmp_path, handle)
    assert (status, len(fake.seen)) == (502, 5)
    assert "does not end" in body["errors"][0]["message"]


async def test_what_is_pushed_at_once_is_all_listed(tmp_path: Path):
    """Two proxies over one store, as replicas are."""
    store = MemoryStore()
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": str(SUBJECT), "size": 7}

    async def push(session: aiohttp.ClientSession, url: str, number: int) -> Digest:
        document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [], "subject": subject}
        raw = json.dumps(document | {"annotations": {"number": str(number)}}).encode()
        digest = Digest.of(raw)
        headers = {"Content-Type": media_types.OCI_INDEX}
        async with session.put(f"{url}/v2/cache/x/manifests/{digest}", data=raw, headers=headers) as response:
            assert (response.status, response.headers["OCI-Subject"]) == (201, str(SUBJECT))
        return digest

    async with (
        running_proxy(tmp_path, {}, store=store) as one,
        running_proxy(tmp_path, {}, store=store) as two,
        aiohttp.ClientSession() as session,
    ):
        pushes = (push(session, (one, two)[number % 2].url, number) for number in range(20))
        pushed = await asyncio.gather(*pushes)
        body = json.loads((await get(f"{one.url}/v2/cache/x/referrers/{SUBJECT}"))[2])
        assert [found["digest"] for found in body["manifests"]] == sorted(map(str, pushed))

        async def delete(digest: Digest) -> None:
            async with session.delete(f"{two.url}/v2/cache/x/manifests/{digest}") as response:
                assert response.status == 202

        await asyncio.gather(*map(delete, pushed))
        assert json.loads((await get(f"{one.url}/v2/cache/x/referrers/{SUBJECT}"))[2])["manifests"] == []
