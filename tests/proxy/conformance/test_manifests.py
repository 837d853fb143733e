"""Manifests and indexes of every shape: bytes and type kept exactly, by tag and by digest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cache.oci import media_types
from cache.oci.digest import Digest
from tests.proxy.conformance.targets import (
    EMPTY_JSON,
    Reply,
    Target,
    described,
    digest_of,
    index,
    manifest,
    raw_of,
)

ARTIFACT = "application/vnd.example.thing.v1"


async def check_there(target: Target, reference: object, raw: bytes, digest: Digest) -> None:
    """GET and HEAD of what was pushed, with all that they must say."""
    kind = json.loads(raw)["mediaType"]
    for method in ("HEAD", "GET"):
        reply = await target.ask(method, f"manifests/{reference}", Accept=kind)
        assert (reply.status, reply.body) == (200, raw if method == "GET" else b"")
        assert (reply.headers["Content-Type"], reply.headers["Content-Length"]) == (kind, str(len(raw)))
        assert (reply.headers["Docker-Content-Digest"], reply.headers["ETag"]) == (str(digest), f'"{digest}"')


async def check_push(target: Target, document: dict[str, Any]) -> Reply:
    """Pushes by digest and by tag, and reads back."""
    raw, digest = raw_of(document), digest_of(document)
    by_digest = await target.put(digest, raw)
    by_tag = await target.put("latest", raw)
    for reply, reference in ((by_digest, digest), (by_tag, "latest")):
        assert (reply.status, reply.body) == (201, b""), reply
        assert reply.headers["Location"] == f"{target.base}/manifests/{reference}"
        assert reply.headers["Docker-Content-Digest"] == str(digest)
        await check_there(target, reference, raw, digest)
    return by_tag


async def shapes(target: Target, shape: str) -> dict[str, Any]:
    """A document of this shape; everything that it needs has been pushed."""
    empty = {"mediaType": media_types.OCI_EMPTY, "digest": str(Digest.of(EMPTY_JSON)), "size": 2}
    match shape:
        case "image":
            return await target.image()
        case "no layers":
            return manifest(await target.blob(EMPTY_JSON) | {"mediaType": media_types.OCI_CONFIG}, [])
        case "uncompressed and zstd layers":
            image = await target.image()
            image["layers"].append(await target.blob(b"zstd") | {"mediaType": media_types.OCI_LAYER_ZSTD})
            return image
        case "unknown fields":
            return await target.image(strange={"deep": [1, None, {"x": "\u00e9"}]}, annotations={"a": "b"})
        case "data field":
            image = await target.image()
            image["config"] |= {"data": "e30="}
            return image
        case "artifact":
            await target.blob(EMPTY_JSON)
            return manifest(empty, [await target.blob(b"thing")], artifactType=ARTIFACT, annotations={"k": "v"})
        case "artifact without layers":
            await target.blob(EMPTY_JSON)
            return manifest(empty | {"data": "e30="}, [empty | {"data": "e30="}], artifactType=ARTIFACT)
        case "foreign layer":
            image = await target.image()
            kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            url = "https://layers.invalid/x"
            absent = {"mediaType": kind, "digest": str(Digest.of(b"elsewhere")), "size": 9, "urls": [url]}
            return image | {"layers": [*image["layers"], absent]}
        case "index":
            image = await target.image()
            await target.put(digest_of(image), image)
            return index([described(image, platform={"os": "linux", "architecture": "amd64"})])
        case "empty index":
            return index([])
        case "index of indexes":
            await target.put(digest_of(index([])), index([]))
            return index([described(index([]))], annotations={"k": "v"})
        case "artifact index":
            return index([], artifactType=ARTIFACT)
    raise AssertionError(shape)


SHAPES = [
    "image",
    "no layers",
    "uncompressed and zstd layers",
    "unknown fields",
    "data field",
    "artifact",
    "artifact without layers",
    "foreign layer",
    "index",
    "empty index",
    "index of indexes",
    "artifact index",
]


@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape(target: Target, shape: str):
    reply = await check_push(target, await shapes(target, shape))
    assert "OCI-Subject" not in reply.headers


@pytest.mark.parametrize("shape", ["image", "index"])
async def test_a_subject_is_acknowledged_by_who_takes_note_of_it(target: Target, shape: str):
    """Whether the subject is there or not."""
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": str(Digest.of(b"nowhere")), "size": 7}
    reply = await check_push(target, (await shapes(target, shape)) | {"subject": subject})
    assert reply.headers.get("OCI-Subject") == (None if target.lacks("referrers") else subject["digest"])


async def test_a_manifest_of_nearly_four_megabytes_and_one_that_is_too_long(target: Target):
    image = await target.image(annotations={f"annotation-{number}": "x" * 10_000 for number in range(390)})
    assert len(raw_of(image)) > 3_900_000
    await check_push(target, image)
    reply = await target.put("long", raw_of(image) + b" " * (5 << 20))
    assert (reply.status, reply.code) == (413, "SIZE_INVALID")


async def test_sha512(target: Target):
    image = await target.image()
    raw, digest = raw_of(image), digest_of(image, "sha512")
    reply = await target.put(digest, raw, ["tagged"])
    if target.lacks("sha512 manifests"):
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        return
    assert reply.status == 201
    assert (reply.headers["Docker-Content-Digest"], reply.headers["OCI-Tag"]) == (str(digest), "tagged")
    await check_there(target, digest, raw, digest)
    await check_there(target, "tagged", raw, digest)


async def test_many_tags_at_once(target: Target):
    image = await target.image()
    raw, digest = raw_of(image), digest_of(image)
    tags = [f"tag-{number}" for number in range(12)]
    reply = await target.put(digest, raw, tags)
    assert reply.status == 201
    assert reply.headers["OCI-Tag"].split(", ") == tags
    for tag in (tags[0], tags[-1]):
        await check_there(target, tag, raw, digest)
    assert json.loads((await target.ask("GET", "tags/list")).body)["tags"] == sorted(tags)
    assert (await target.put(digest, raw, [f"t{number}" for number in range(101)])).status == 414
    assert (await target.put(digest, raw, ["-no"])).status == 400
    assert "OCI-Tag" not in (await target.put(digest, raw)).headers


async def test_what_is_refused(target: Target):
    image = await target.image()
    other = await target.put(digest_of(image), raw_of(image) + b"  ")
    assert (other.status, other.code) == (400, "DIGEST_INVALID")
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        reply = await target.ask(method, "manifests/sha256:baddigeststring")
        assert reply.status == 400
    assert (await target.ask("GET", "manifests/sha256:baddigeststring")).code == "DIGEST_INVALID"
    assert (await target.put("x", b"{", media_type=media_types.OCI_MANIFEST)).code == "MANIFEST_INVALID"
    image["layers"].append({"mediaType": media_types.OCI_LAYER, "digest": str(Digest.of(b"not there")), "size": 9})
    missing = await target.put("x", image)
    assert (missing.status, missing.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert (await target.ask("GET", "manifests/x")).status == 404


async def test_an_index_of_what_is_not_there(target: Target):
    sparse = index([{"mediaType": media_types.OCI_MANIFEST, "digest": str(Digest.of(b"nowhere")), "size": 7}])
    if target.lacks("sparse indexes"):
        reply = await target.put("sparse", sparse)
        assert (reply.status, reply.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert UPSTREAM_NAME in reply.message
    else:
        await check_push(target, sparse)


UPSTREAM_NAME = "up.test"


async def test_what_is_not_there(target: Target):
    for reference in ("nothing", Digest.of(b"nothing")):
        for method in ("GET", "HEAD", "DELETE"):
            reply = await target.ask(method, f"manifests/{reference}")
            if method == "DELETE" and reference == "nothing" and target.lacks("delete by tag"):
                assert reply.status == 400
            else:
                assert reply.status == 404
            if method == "GET":
                assert reply.code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN")
                assert target.hosted or UPSTREAM_NAME in reply.message


async def test_who_takes_no_index_gets_the_image_of_an_index(target: Target):
    """By tag only; by digest, and for who does not name what he takes, the index comes as it is."""
    image = await target.image()
    await target.put(digest_of(image), image)
    arm = described(image, platform={"os": "linux", "architecture": "arm64"})
    both = index([arm, described(image, platform={"os": "linux", "architecture": "amd64"})])
    assert (await target.put("multi", both)).status == 201
    old = f"{media_types.DOCKER_MANIFEST}, {media_types.OCI_MANIFEST}"
    for method in ("GET", "HEAD"):
        reply = await target.ask(method, "manifests/multi", Accept=old)
        assert (reply.status, reply.headers["Content-Type"]) == (200, media_types.OCI_MANIFEST)
        assert reply.headers["Docker-Content-Digest"] == str(digest_of(image))
        assert (reply.headers["Content-Length"], reply.headers["Vary"]) == (str(len(raw_of(image))), "Accept")
    for reference, accept in (
        ("multi", f"{old}, {media_types.OCI_INDEX}"),
        ("multi", f"{old}, */*;q=0.1"),
        ("multi", "application/json"),
        ("multi", "*/*"),
        (digest_of(both), old),
    ):
        reply = await target.ask("GET", f"manifests/{reference}", Accept=accept)
        assert (reply.headers["Content-Type"], reply.body) == (media_types.OCI_INDEX, raw_of(both))
    foreign = index([arm])
    await target.put("foreign", foreign)
    reply = await target.ask("GET", "manifests/foreign", Accept=old)
    assert (reply.status, reply.body) == (200, raw_of(foreign))


async def test_a_tag_that_moves_and_one_that_is_removed(target: Target):
    first, second = await target.image("first"), await target.image("second")
    for image in (first, second):
        await target.put("moving", image)
        assert (await target.ask("GET", "manifests/moving")).body == raw_of(image)
    await target.put("staying", second)
    reply = await target.ask("DELETE", "manifests/moving")
    if target.lacks("delete by tag"):
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        assert UPSTREAM_NAME in reply.message
        return
    assert reply.status == 202
    for method in ("HEAD", "GET", "DELETE"):
        assert (await target.ask(method, "manifests/moving")).status == 404
    for reference in ("staying", digest_of(first), digest_of(second)):
        assert (await target.ask("HEAD", f"manifests/{reference}")).status == 200
    assert json.loads((await target.ask("GET", "tags/list")).body)["tags"] == ["staying"]


async def test_a_manifest_that_is_removed_takes_its_tags_along(target: Target):
    image, other = await target.image(), await target.image("other")
    await target.put("other", other)
    for tag in ("one", "two"):
        await target.put(tag, image)
        assert (await target.ask("GET", f"manifests/{tag}")).status == 200
    assert (await target.ask("DELETE", f"manifests/{digest_of(image)}")).status == 202
    for reference in ("one", "two", digest_of(image)):
        assert (await target.ask("HEAD", f"manifests/{reference}")).status == 404
    assert json.loads((await target.ask("GET", "tags/list")).body)["tags"] == ["other"]
    assert (await target.ask("GET", "manifests/other")).body == raw_of(other)
    await target.put("one", image)
    assert (await target.ask("GET", "manifests/one")).body == raw_of(image)
    assert (await target.ask("HEAD", "manifests/two")).status == 404
