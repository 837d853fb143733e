"""Blobs: pushed in every way, read whole and in part, mounted, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cache.oci.digest import Digest
from tests.proxy.conformance.targets import Reply, Target, with_digest

DATA = bytes(range(256)) * 8
CHUNK = 700
CHUNKS = [range(start, min(start + CHUNK, len(DATA))) for start in range(0, len(DATA), CHUNK)]


def place(part: range) -> str:
    return f"{part.start}-{part.stop - 1}"


def bytes_of(part: range) -> bytes:
    return DATA[part.start : part.stop]


async def streamed(data: bytes) -> AsyncIterator[bytes]:
    """The data with no length said."""
    for at in range(0, len(data), 500):
        yield data[at : at + 500]


async def check_pushed(target: Target, reply: Reply, digest: Digest, data: bytes) -> None:
    """The reply to a push's last request, and the blob where it says that it is."""
    assert (reply.status, reply.body) == (201, b"")
    assert reply.headers["Docker-Content-Digest"] == str(digest)
    assert reply.headers["Location"] == f"{target.base}/blobs/{digest}"
    got = await target.ask("GET", reply.headers["Location"])
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, data, str(len(data)))
    assert (got.headers["Docker-Content-Digest"], got.headers["Accept-Ranges"]) == (str(digest), "bytes")
    head = await target.ask("HEAD", f"blobs/{digest}")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(data)))
    assert head.headers["Docker-Content-Digest"] == str(digest)


@pytest.mark.parametrize("way", ["put", "single post", "patch", "stream", "put stream"])
async def test_every_way_of_pushing(target: Target, way: str):
    for data in (DATA, b"", b"{}"):
        await push_and_check(target, way, data)


async def push_and_check(target: Target, way: str, data: bytes) -> None:
    digest = Digest.of(data)
    if way == "single post":
        reply = await target.ask("POST", f"blobs/uploads/?digest={digest}", data)
        return await check_pushed(target, reply, digest, data)
    location = await target.start()
    assert location.startswith(f"{target.base}/blobs/uploads/")
    if way in ("patch", "stream"):
        part = await target.ask("PATCH", location, streamed(data) if way == "stream" else data)
        assert (part.status, part.headers["Range"]) == (202, f"0-{max(0, len(data) - 1)}")
        reply = await target.finish(part.headers["Location"], digest)
    else:
        reply = await target.finish(location, digest, streamed(data) if way == "put stream" else data)
    await check_pushed(target, reply, digest, data)


@pytest.mark.parametrize("way", ["put", "single post", "chunks"])
async def test_sha512(target: Target, way: str):
    digest = Digest.of(DATA, "sha512")
    location = await target.start()
    if way == "single post":
        reply = await target.ask("POST", f"blobs/uploads/?digest={digest}", DATA)
    elif way == "put":
        reply = await target.finish(location, digest, DATA)
    else:
        await target.ask("PATCH", location, DATA[:1000], Content_Range="0-999")
        reply = await target.finish(location, digest, DATA[1000:])
    await check_pushed(target, reply, digest, DATA)


@pytest.mark.parametrize("last_by_put", [True, False])
async def test_chunks_and_what_is_out_of_order(target: Target, last_by_put: bool):
    """Before each chunk a wrong one is sent, by PUT where it is the last: each is refused, and the upload goes on."""
    digest = Digest.of(DATA)
    location = await target.start()
    received = 0
    for part in CHUNKS:
        skipped = next((later for later in CHUNKS if later.start > part.start), CHUNKS[0])
        closing = last_by_put and skipped is CHUNKS[-1]
        url, method = (with_digest(location, digest), "PUT") if closing else (location, "PATCH")
        wrong = await target.ask(method, url, bytes_of(skipped), Content_Range=place(skipped))
        assert (wrong.status, wrong.headers["Range"]) == (416, f"0-{max(0, received - 1)}")
        status = await target.ask("GET", url)
        assert (status.status, status.body, status.headers["Range"]) == (204, b"", f"0-{max(0, received - 1)}")
        location, received = status.headers["Location"], part.stop
        if part is CHUNKS[-1] and last_by_put:
            reply = await target.finish(location, digest, bytes_of(part), Content_Range=place(part))
        else:
            reply = await target.ask("PATCH", location, bytes_of(part), Content_Range=place(part))
            assert (reply.status, reply.headers["Range"]) == (202, f"0-{received - 1}")
            location = reply.headers["Location"]
    if not last_by_put:
        again = await target.ask("PATCH", location, bytes_of(CHUNKS[0]), Content_Range=place(CHUNKS[0]))
        assert again.status == 416
        reply = await target.finish(location, digest)
    await check_pushed(target, reply, digest, DATA)
    assert (await target.ask("GET", location)).status == 404


@pytest.mark.parametrize("way", ["put", "single post", "chunks", "last chunk by put", "stream"])
async def test_a_wrong_digest(target: Target, way: str):
    wrong = Digest.of(b"something else")
    if way == "single post":
        reply = await target.ask("POST", f"blobs/uploads/?digest={wrong}", DATA)
    else:
        location = await target.start()
        if way in ("chunks", "last chunk by put"):
            await target.ask("PATCH", location, DATA[:1000], Content_Range="0-999")
        if way == "chunks":
            await target.ask("PATCH", location, DATA[1000:], Content_Range=f"1000-{len(DATA) - 1}")
        elif way == "stream":
            await target.ask("PATCH", location, streamed(DATA))
        rest = {"put": DATA, "last chunk by put": DATA[1000:]}.get(way, b"")
        reply = await target.finish(location, wrong, rest)
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
    for digest in (wrong, Digest.of(DATA)):
        assert (await target.ask("HEAD", f"blobs/{digest}")).status == 404


async def test_an_upload_that_is_given_up(target: Target):
    location = await target.start()
    await target.ask("PATCH", location, DATA)
    assert (await target.ask("DELETE", location)).status == 204
    for reply in (await target.ask("GET", location), await target.finish(location, Digest.of(DATA))):
        assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert (await target.ask("DELETE", location)).status == 404


async def test_ranges(target: Target):
    path = f"blobs/{(await target.blob(DATA))['digest']}"
    for asked, first, last in (
        ("500-1499", 500, 1499),
        ("500-", 500, 2047),
        ("-500", 1548, 2047),
        ("2000-5000", 2000, 2047),
        ("0-0", 0, 0),
        ("-5000", 0, 2047),
    ):
        reply = await target.ask("GET", path, Range=f"bytes={asked}")
        assert (reply.status, reply.body) == (206, DATA[first : last + 1]), asked
        assert reply.headers["Content-Range"] == f"bytes {first}-{last}/2048"
        assert reply.headers["Content-Length"] == str(last - first + 1)
    for asked in ("500-0", "5000-10000", "2048-", "-0"):
        reply = await target.ask("GET", path, Range=f"bytes={asked}")
        assert (reply.status, reply.code) == (416, "RANGE_INVALID"), asked
        assert reply.headers["Content-Range"] == "bytes */2048"
    for header in ("bytes=0-1,5-6", "pages=1-2", "bytes=x-y"):
        reply = await target.ask("GET", path, Range=header)
        assert (reply.status, reply.body) == (200, DATA), f"{header} is not ours to understand: all of it"


async def test_mounts(target: Target):
    present, absent = (await target.blob(DATA))["digest"], Digest.of(b"absent")
    other = f"/v2/{target.other_repository()}"
    for query in (f"mount={absent}&from={target.repository}", f"mount={absent}"):
        refused = await target.ask("POST", f"{other}/blobs/uploads/?{query}")
        assert refused.status == 202
        assert refused.headers["Location"].startswith(f"{other}/blobs/uploads/")
    none = await target.ask("POST", f"{other}/blobs/uploads/?mount={present}&from={target.other_repository()}")
    assert none.status == 202
    for repository, query in ((other, f"&from={target.repository}"), (f"/v2/{target.other_repository()}", "")):
        assert (await target.ask("HEAD", f"{repository}/blobs/{present}")).status == 404
        mounted = await target.ask("POST", f"{repository}/blobs/uploads/?mount={present}{query}")
        assert (mounted.status, mounted.headers["Location"]) == (201, f"{repository}/blobs/{present}")
        assert mounted.headers["Docker-Content-Digest"] == str(present)
        assert (await target.ask("GET", mounted.headers["Location"])).body == DATA


async def test_what_is_removed_is_gone_at_once(target: Target):
    digest = (await target.blob(DATA))["digest"]
    assert (await target.ask("GET", f"blobs/{digest}")).body == DATA
    assert (await target.ask("DELETE", f"blobs/{digest}")).status == 202
    for method in ("HEAD", "GET", "DELETE"):
        assert (await target.ask(method, f"blobs/{digest}")).status == 404
    reply = await target.ask("GET", f"blobs/{digest}")
    assert reply.code == "BLOB_UNKNOWN"
    await target.blob(DATA)
    assert (await target.ask("GET", f"blobs/{digest}")).body == DATA


async def test_content_that_the_client_has_is_not_sent(target: Target):
    digest = (await target.blob(DATA))["digest"]
    for known in (f'"{digest}"', digest, f'"other", W/"{digest}"', "*"):
        reply = await target.ask("GET", f"blobs/{digest}", If_None_Match=known)
        assert (reply.status, reply.body, reply.headers["ETag"]) == (304, b"", f'"{digest}"')
    assert (await target.ask("GET", f"blobs/{digest}", If_None_Match='"other"')).status == 200
