"""Lists: tags, referrers, repositories."""

from __future__ import annotations

import json
from typing import Any

from cache.oci import media_types
from cache.oci.digest import Digest
from cache.oci.referrers import fallback_tag
from tests.proxy.conformance.targets import EMPTY_JSON, Target, described, digest_of, index, manifest, next_link, raw_of

TAGS = ["1.10", "1.9", "V1", "latest", "v2"]
SIGNATURE, REPORT = "application/vnd.example.signature.v1", "application/vnd.example.report.v1"


async def tags_of(target: Target, query: str = "") -> tuple[list[str], str | None]:
    reply = await target.ask("GET", f"tags/list{query}" if not query.startswith("/") else query)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    body = json.loads(reply.body)
    assert body["name"] == target.repository
    return body["tags"], next_link(reply)


async def test_tags_in_order_and_in_pages(target: Target):
    image = await target.image()
    for tag in reversed(TAGS):
        await target.put(tag, image)
    assert await tags_of(target) == (TAGS, None)
    assert await tags_of(target, "?n=0") == ([], None)
    assert await tags_of(target, "?n=5") == (TAGS, None)
    assert await tags_of(target, "?n=2000") == (TAGS, None)
    assert await tags_of(target, "?last=1.9") == (TAGS[2:], None)
    assert await tags_of(target, "?last=1.95") == (TAGS[2:], None)
    assert await tags_of(target, "?last=v2") == ([], None)
    found, link = await tags_of(target, "?n=2")
    while link is not None:
        page, link = await tags_of(target, link)
        assert 0 < len(page) <= 2
        found += page
    assert found == TAGS
    assert await tags_of(target, "?n=2&last=V1") == (TAGS[3:], None)
    head = await target.ask("HEAD", "tags/list")
    assert (head.status, head.body) == (200, b"")


async def test_tags_that_cannot_be_listed(target: Target):
    unknown = await target.ask("GET", "tags/list")
    assert (unknown.status, unknown.code) == (404, "NAME_UNKNOWN")
    for count in ("-1", "x", "", "99999999999"):
        reply = await target.ask("GET", f"tags/list?n={count}")
        assert (reply.status, reply.code) == (400, "PAGINATION_NUMBER_INVALID")


async def test_a_repository_without_tags_has_an_empty_list(target: Target):
    image = await target.image()
    await target.put(digest_of(image), image)
    reply = await target.ask("GET", "tags/list")
    if reply.status == 404:  # docker-registry knows a repository by its tags
        assert (target.name, reply.code) == ("docker-registry", "NAME_UNKNOWN")
    else:
        assert (reply.status, json.loads(reply.body)["tags"]) == (200, [])


async def referrers(target: Target, subject: object, query: str = "") -> tuple[list[dict[str, Any]], str | None]:
    """A page of referrers, and where the next one is."""
    path = query if query.startswith("/") else f"referrers/{subject}{query}"
    reply = await target.ask("GET", path)
    assert (reply.status, reply.headers["Content-Type"]) == (200, media_types.OCI_INDEX)
    assert reply.headers.get("OCI-Filters-Applied") == ("artifactType" if "artifactType=" in path else None)
    body = json.loads(reply.body)
    assert (body["schemaVersion"], body["mediaType"]) == (2, media_types.OCI_INDEX)
    return body["manifests"], next_link(reply)


def by_digest(descriptors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(descriptors, key=lambda descriptor: descriptor["digest"])


async def push_referrer(target: Target, document: dict[str, Any], listed: list[dict[str, Any]]) -> None:
    """Pushes what refers to a subject as clients do: with the index of the fallback tag, unless told not to."""
    reply = await target.put(digest_of(document), document)
    assert reply.status == 201
    if "OCI-Subject" not in reply.headers:
        tag = fallback_tag(Digest.parse(document["subject"]["digest"]))
        assert (await target.put(tag, index(listed))).status == 201


async def test_referrers(target: Target):
    """Whatever stands behind us, a client that asks for referrers gets them, and by their type."""
    subject = await target.image()
    about = {"subject": described(subject)}
    digest = digest_of(subject)
    assert await referrers(target, digest) == ([], None), "before anything was pushed"
    signature = await target.image("signature", artifactType=SIGNATURE, annotations={"who": "me"}, **about)
    report = await target.image("report", **about)  # its type is its config's
    report["config"] |= {"mediaType": REPORT}
    plain = index([], **about)
    signatures = index([], artifactType=SIGNATURE, annotations={"k": "v"}, **about)
    expected: list[dict[str, Any]] = []
    for document, more in (
        (signature, {"artifactType": SIGNATURE, "annotations": {"who": "me"}}),
        (report, {"artifactType": REPORT}),
        (plain, {}),
        (signatures, {"artifactType": SIGNATURE, "annotations": {"k": "v"}}),
    ):
        expected.append(described(document, **more))
        await push_referrer(target, document, expected)
        assert await referrers(target, digest) == (by_digest(expected), None)
    assert await referrers(target, digest, f"?artifactType={SIGNATURE}") == (by_digest(expected[::3]), None)
    assert await referrers(target, digest, f"?artifactType={REPORT}") == ([expected[1]], None)
    assert await referrers(target, digest, "?artifactType=none/such") == ([], None)
    await target.put("subject", subject)
    assert (await referrers(target, digest))[0] == by_digest(expected)


async def test_a_referrer_that_is_removed_is_listed_no_more(target: Target):
    if target.lacks("referrers"):
        return await check_that_a_removed_referrer_is_the_clients_to_unlist(target)
    subject = Digest.of(b"not there", "sha512")
    about = {"mediaType": media_types.OCI_MANIFEST, "digest": str(subject), "size": 9}
    documents = [await target.image(name, subject=about) for name in ("one", "two")]
    for document in documents:
        await target.put(digest_of(document), document)
    assert len((await referrers(target, subject))[0]) == 2
    for document in documents:
        assert (await target.ask("DELETE", f"manifests/{digest_of(document)}")).status == 202
        listed = [found["digest"] for found in (await referrers(target, subject))[0]]
        assert str(digest_of(document)) not in listed
    assert await referrers(target, subject) == ([], None)


async def check_that_a_removed_referrer_is_the_clients_to_unlist(target: Target) -> None:
    document = index([], subject=described(await target.image()))
    await push_referrer(target, document, [described(document)])
    subject = document["subject"]["digest"]
    assert (await target.ask("DELETE", f"manifests/{digest_of(document)}")).status == 202
    assert await referrers(target, subject) == ([described(document)], None)
    await target.put(fallback_tag(Digest.parse(subject)), index([]))
    assert await referrers(target, subject) == ([], None)


async def test_referrers_of_before_are_folded_in(target: Target):
    """An index under the fallback tag, from the time when the registry had no API, and one by the API."""
    subject = await target.image()
    old = index([], annotations={"age": "old"}, subject=described(subject))
    listed = described(old, artifactType=SIGNATURE, annotations={"age": "old"})
    if target.lacks("sparse indexes"):
        await target.put(digest_of(old), old)
    assert (await target.put(fallback_tag(digest_of(subject)), index([listed]))).status == 201
    assert await referrers(target, digest_of(subject)) == ([listed], None)
    new = index([], annotations={"age": "new"}, subject=described(subject))
    added = described(new, annotations={"age": "new"})
    await push_referrer(target, new, [listed, added])
    assert await referrers(target, digest_of(subject)) == (by_digest([listed, added]), None)


async def test_referrers_in_pages(target: Target):
    """Annotations of 400 kB each: more than a page takes."""
    subject = await target.image()
    expected: list[dict[str, Any]] = []
    for number in range(5):
        annotations = {"long": "x" * 400_000, "number": str(number)}
        document = index([], artifactType=SIGNATURE, annotations=annotations, subject=described(subject))
        expected.append(described(document, artifactType=SIGNATURE, annotations=annotations))
        await push_referrer(target, document, expected)
    found, link = await referrers(target, digest_of(subject), f"?artifactType={SIGNATURE}")
    assert len(found) == 2
    while link is not None:
        page, link = await referrers(target, None, link)
        found += page
    assert found == by_digest(expected)


async def test_referrers_of_what_is_no_digest(target: Target):
    for digest in ("sha256:short", "sha256", "md5:0123456789abcdef0123456789abcdef", "latest"):
        reply = await target.ask("GET", f"referrers/{digest}")
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID"), digest


async def test_the_catalogue_holds_hosted_repositories_only(target: Target):
    assert json.loads((await target.ask("GET", "/v2/_catalog")).body) == {"repositories": []}
    names = sorted(target.other_repository() for _ in range(3))
    for name in names:
        image = manifest(await target.blob(EMPTY_JSON), [])
        await target.ask("POST", f"/v2/{name}/blobs/uploads/?mount={Digest.of(EMPTY_JSON)}&from={target.repository}")
        url, kind = f"/v2/{name}/manifests/x", media_types.OCI_MANIFEST
        assert (await target.ask("PUT", url, raw_of(image), Content_Type=kind)).status == 201
    if not target.hosted:
        names = []
    reply = await target.ask("GET", "/v2/_catalog")
    assert (json.loads(reply.body)["repositories"], next_link(reply)) == (names, None)
    found: list[str] = []
    link: str | None = "/v2/_catalog?n=2"
    while link is not None:
        reply = await target.ask("GET", link)
        assert reply.headers["Content-Type"] == "application/json"
        found += json.loads(reply.body)["repositories"]
        link = next_link(reply)
    assert found == names
    assert json.loads((await target.ask("GET", "/v2/_catalog?n=0")).body) == {"repositories": []}
    assert json.loads((await target.ask("GET", "/v2/_catalog?last=cache/~")).body) == {"repositories": []}
