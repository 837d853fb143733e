"""The registry client against a real registry, and against fakes for the faults that a real one does not show."""

import asyncio
import json
import random
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cache.errors import SizeMismatch
from cache.oci import media_types
from cache.oci.client import ManifestReply, RegistryClient
from cache.oci.credentials import Credential
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest, InvalidReply, NotFound, RateLimited, RegistryError, Unreachable
from cache.oci.manifest import make_manifest, parse_manifest
from cache.oci.profile import Profile
from cache.oci.retry import Backoff
from cache.oci.tls import HostTls
from cache.oci.transport import Transport
from cache.oci.uploads import bytes_source
from tests.fakes.registry import fake_registry, self_signed, send_part
from tests.peers import free_port

BLOB = random.Random(1).randbytes(3_000_000)
DIGEST = Digest.of(BLOB)
QUICK = Backoff(tries=3, first_s=0.01, factor=1)
SECRET = Credential("me", "pw")


@pytest.fixture
async def transport():
    async with Transport() as opened:
        yield opened


@pytest.fixture
async def client(transport, registry):
    """A client of an open, real registry."""
    return RegistryClient(transport, registry.url, backoff=QUICK)


def to_fake(transport, fake, credential=SECRET):
    return RegistryClient(transport, fake.url, credential, backoff=QUICK)


async def put_blob(client, repository="a/b", data=BLOB):
    await client.upload_blob(repository, Digest.of(data), len(data), bytes_source(data))


async def put_image(client, repository="a/b", tag="latest"):
    """A manifest whose config is one small blob."""
    config = b"{}"
    await put_blob(client, repository, config)
    described = Descriptor(media_type=media_types.OCI_CONFIG, digest=Digest.of(config), size=len(config))
    manifest = make_manifest(described, ())
    await client.put_manifest(repository, tag, manifest.raw, manifest.media_type)
    return manifest


async def read(client, start=0, stop=None, digest=DIGEST):
    async with client.open_blob("a/b", digest, start, stop) as reply:
        return b"".join([chunk async for chunk in reply.chunks])


async def pieces(*parts):
    for part in parts:
        yield part


# Against docker-registry


async def test_ping(client):
    assert (await client.ping())["docker-distribution-api-version"] == "registry/2.0"


async def test_a_manifest_goes_and_comes_back_byte_for_byte(client):
    manifest = await put_image(client)
    for identifier in ("latest", str(manifest.digest)):
        reply = await client.get_manifest("a/b", identifier)
        assert (reply.raw, reply.digest, reply.media_type) == (manifest.raw, manifest.digest, media_types.OCI_MANIFEST)
        assert await client.head_manifest("a/b", identifier) == manifest.descriptor
    assert parse_manifest(reply.raw, reply.media_type) == manifest
    assert await client.tags("a/b") == ("latest",)


async def test_what_is_not_there(client):
    assert await client.head_manifest("a/b", "latest") is None
    assert await client.head_blob("a/b", DIGEST) is None
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        await client.get_manifest("a/b", "latest")
    with pytest.raises(NotFound, match=str(DIGEST)):
        await read(client)
    with pytest.raises(NotFound):
        await client.tags("a/b")


async def test_a_blob_goes_up_in_one_piece_and_comes_back(client, registry):
    await put_blob(client)
    assert await client.head_blob("a/b", DIGEST) == len(BLOB)
    assert await read(client) == BLOB
    assert registry.count("PATCH") == 0


async def test_an_empty_blob(client):
    await put_blob(client, data=b"")
    assert await client.head_blob("a/b", Digest.of(b"")) == 0
    assert await read(client, digest=Digest.of(b"")) == b""


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (1000, 2000), (2_999_990, None), (2_999_990, 9_000_000), (0, 1)])
async def test_ranges(client, start, stop):
    await put_blob(client)
    async with client.open_blob("a/b", DIGEST, start, stop) as reply:
        assert (reply.size_bytes, reply.start) == (len(BLOB), start)
        assert b"".join([chunk async for chunk in reply.chunks]) == BLOB[start:stop]


async def test_a_range_outside_the_blob(client):
    await put_blob(client)
    with pytest.raises(RegistryError) as caught:
        await read(client, 3_000_001)
    assert caught.value.status == 416


async def test_chunked_upload(client, registry):
    location = await client.start_upload("a/b")
    assert (await client.upload_status(location))[1] == 0
    for start in range(0, len(BLOB), 1 << 20):
        chunk = BLOB[start : start + (1 << 20)]
        location = await client.patch_upload(location, pieces(chunk), start, len(chunk))
        assert (await client.upload_status(location))[1] == start + len(chunk)
    await client.put_upload(location, DIGEST)
    assert await client.head_blob("a/b", DIGEST) == len(BLOB)
    assert registry.count("PATCH") == 3


async def test_an_upload_streamed_without_a_length(client):
    location = await client.patch_upload(await client.start_upload("a/b"), pieces(BLOB[:1000], BLOB[1000:]))
    await client.put_upload(location, DIGEST)
    assert await read(client) == BLOB


async def test_a_cancelled_upload_is_gone(client):
    location = await client.start_upload("a/b")
    await client.cancel_upload(location)
    with pytest.raises(NotFound):
        await client.cancel_upload(location)


async def test_a_wrong_digest_is_refused(client):
    with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
        await client.upload_blob("a/b", Digest.of(b"other"), 5, bytes_source(b"bytes"))
    assert caught.value.status == 400


@pytest.mark.parametrize("size_bytes", [4, 6])
async def test_a_source_of_another_length_is_noticed_before_the_registry_waits_for_it(client, size_bytes):
    with pytest.raises(SizeMismatch):
        await client.upload_blob("a/b", Digest.of(b"bytes"), size_bytes, bytes_source(b"bytes"))
    assert await client.head_blob("a/b", Digest.of(b"bytes")) is None


async def test_what_the_source_raises_comes_through(client):
    @asynccontextmanager
    async def source():
        async def chunks():
            yield b"some"
            raise KeyError("the disk broke")

        yield chunks()

    with pytest.raises(KeyError, match="the disk broke"):
        await client.upload_blob("a/b", DIGEST, len(BLOB), source)


async def test_an_upload_that_is_gone_is_begun_anew(client, monkeypatch):
    """As when a load balancer stands before several registries, and the one that had it has died."""
    started, start = [], client.start_upload

    async def remembering(repository):
        started.append(await start(repository))
        return started[-1]

    @asynccontextmanager
    async def source():
        if len(started) == 1:
            await client.cancel_upload(started[0])
        yield pieces(BLOB)

    monkeypatch.setattr(client, "start_upload", remembering)
    await client.upload_blob("a/b", DIGEST, len(BLOB), source)
    assert len(started) == 2
    assert await client.head_blob("a/b", DIGEST) == len(BLOB)


async def test_mount(client, registry):
    await put_blob(client)
    assert await client.mount_blob("c/d", DIGEST, "a/b")
    assert await client.head_blob("c/d", DIGEST) == len(BLOB)
    assert not await client.mount_blob("c/d", Digest.of(b"absent"), "a/b")
    assert registry.count("DELETE", "/v2/c/d/blobs/uploads/") == 1


async def test_deleting(client):
    manifest = await put_image(client)
    await put_blob(client)
    await client.delete_manifest("a/b", manifest.digest)
    await client.delete_blob("a/b", DIGEST)
    assert await client.head_manifest("a/b", "latest") is None
    with pytest.raises(NotFound):
        await client.delete_blob("a/b", DIGEST)


async def test_putting_a_manifest_under_a_wrong_digest_asks_nobody(client, registry):
    with pytest.raises(InvalidManifest, match="sha256"):
        await client.put_manifest("a/b", str(DIGEST), b"{}", media_types.OCI_MANIFEST)
    assert registry.requests() == []


async def test_a_registry_that_is_down(transport):
    port = free_port()
    client = RegistryClient(transport, f"http://127.0.0.1:{port}", backoff=QUICK)
    with pytest.raises(Unreachable, match=rf"GET http://127\.0\.0\.1:{port}/v2/ failed: cannot connect") as caught:
        await client.ping()
    assert caught.value.temporary
    with pytest.raises(Unreachable):
        await put_blob(client)


async def test_a_host_that_does_not_exist(transport):
    with pytest.raises(Unreachable, match=r"registry\.invalid"):
        await RegistryClient(transport, "http://registry.invalid", backoff=Backoff(tries=1)).ping()


# Faults


async def test_temporary_failures_are_tried_again(transport):
    statuses = [503, 429, 200]

    async def handle(request):
        return web.json_response({"tags": ["x"]}, status=statuses.pop(0), headers={"Retry-After": "0"})

    async with fake_registry(handle) as fake:
        assert await to_fake(transport, fake).tags("a/b") == ("x",)
    assert len(fake.seen) == 3


@pytest.mark.parametrize(("status", "requests"), [(500, 3), (502, 3), (400, 1), (403, 1), (405, 1), (501, 1)])
async def test_what_is_worth_trying_again(transport, status, requests):
    async def handle(request):
        return web.Response(status=status, text="<html>sorry</html>")

    async with fake_registry(handle) as fake:
        with pytest.raises(RegistryError) as caught:
            await to_fake(transport, fake).get_manifest("a/b", "latest")
    assert (caught.value.status, len(fake.seen)) == (status, requests)


async def test_a_rate_limit_that_lasts_too_long_is_reported_at_once(transport):
    async def handle(request):
        errors = [{"code": "TOOMANYREQUESTS", "message": "slow\x1b[31m down", "detail": {}}]
        return web.json_response({"errors": errors}, status=429, headers={"Retry-After": "3600"})

    async with fake_registry(handle) as fake:
        with pytest.raises(RateLimited, match=r"TOOMANYREQUESTS: slow \[31m down") as caught:
            await to_fake(transport, fake).get_manifest("a/b", "latest")
    assert (caught.value.retry_after_s, len(fake.seen)) == (3600, 1)


async def test_a_body_that_breaks_off_is_taken_up_where_it_broke(transport):
    async def handle(request):
        start = request.http_range.start or 0
        about = {"Content_Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"} if start else {}
        end = min(len(BLOB), start + 1_000_000)
        return await send_part(request, BLOB[start:end], len(BLOB) - start, 206 if start else 200, **about)

    async with fake_registry(handle) as fake:
        assert await read(to_fake(transport, fake)) == BLOB
    starts = [seen.headers.get("Range") for seen in fake.seen]
    assert starts[0] is None
    assert len(starts) >= 3
    assert all(start.startswith("bytes=") and start.endswith("-") for start in starts[1:])


async def test_a_body_that_never_gets_further_ends_in_an_error(transport):
    async def handle(request):
        return await send_part(request, b"", 100)

    async with fake_registry(handle) as fake:
        with pytest.raises(Unreachable, match="before the reply was complete"):
            await read(to_fake(transport, fake))
    assert len(fake.seen) == 9


async def test_a_registry_that_ignores_ranges(transport):
    async def handle(request):
        return web.Response(body=BLOB)

    async with fake_registry(handle) as fake:
        assert await read(to_fake(transport, fake), 1000, 1_500_000) == BLOB[1000:1_500_000]


async def test_a_registry_that_sends_another_range(transport):
    async def handle(request):
        return web.Response(
            status=206, body=BLOB[10:], headers={"Content-Range": f"bytes 10-{len(BLOB) - 1}/{len(BLOB)}"}
        )

    async with fake_registry(handle) as fake:
        with pytest.raises(RegistryError, match="asked for 5, got 10"):
            await read(to_fake(transport, fake), 5)


async def test_a_read_that_stands_still_times_out():
    async def handle(request):
        response = web.StreamResponse()
        response.content_length = 100
        await response.prepare(request)
        await response.write(b"some")
        await request.content.read()
        await never.wait()
        return response

    never = asyncio.Event()
    async with fake_registry(handle) as fake, Transport(read_timeout_s=0.2) as transport:
        with pytest.raises(Unreachable, match="no answer in time"):
            await read(RegistryClient(transport, fake.url, backoff=Backoff(tries=1)))
        never.set()


async def test_a_manifest_with_another_digest(transport):
    raw = b'{"schemaVersion": 2}'

    async def handle(request):
        return web.Response(body=raw, content_type=media_types.OCI_MANIFEST)

    async with fake_registry(handle) as fake:
        with pytest.raises(InvalidReply, match=f"a/b {DIGEST}: 20 bytes with {Digest.of(raw)}"):
            await to_fake(transport, fake).get_manifest("a/b", str(DIGEST))


async def test_a_manifest_without_end(transport):
    sent = []

    async def handle(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while len(sent) < 100:
            sent.append(await response.write(bytes(1 << 20)))
        return response

    async with fake_registry(handle) as fake:
        with pytest.raises(InvalidReply, match="longer than 8388608 bytes"):
            await to_fake(transport, fake).get_manifest("a/b", "latest")
    assert len(sent) < 100


@pytest.mark.parametrize("head", [405, {"Docker-Content-Digest": ""}, {"Docker-Content-Digest": "md5:00"}])
async def test_head_falls_back_to_get(transport, head):
    raw = json.dumps({"schemaVersion": 2}).encode()

    async def handle(request):
        if request.method == "HEAD":
            status, headers = (head, {}) if isinstance(head, int) else (200, head)
            return web.Response(status=status, headers=headers, content_type=media_types.OCI_MANIFEST)
        return web.Response(body=raw, content_type=media_types.OCI_MANIFEST)

    async with fake_registry(handle) as fake:
        found = await to_fake(transport, fake).head_manifest("a/b", "latest")
    assert found == Descriptor(media_type=media_types.OCI_MANIFEST, digest=Digest.of(raw), size=len(raw))


async def test_authorization_does_not_follow_a_redirect_to_another_port(transport):
    async def storage(request):
        return web.Response(body=BLOB)

    async def handle(request):
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        location = f"{store.url}/bucket/a%2Fb?X-Signature=a%2Bb%3D"
        return web.Response(status=307, headers={"Location": location})

    async with fake_registry(storage) as store, fake_registry(handle) as fake:
        assert await read(to_fake(transport, fake)) == BLOB
    assert "Authorization" in fake.seen[1].headers
    assert "Authorization" not in store.seen[0].headers
    assert (store.seen[0].path, store.seen[0].query) == ("/bucket/a%2Fb", "X-Signature=a%2Bb%3D")
    assert store.seen[0].headers["Accept-Encoding"] == "identity"


async def test_a_challenge_from_a_redirect_target_is_not_answered(transport):
    async def storage(request):
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=phish"})

    async def handle(request):
        return web.Response(status=302, headers={"Location": f"{store.url}/x"})

    async with fake_registry(storage) as store, fake_registry(handle) as fake:
        with pytest.raises(RegistryError):
            await read(to_fake(transport, fake))
    assert [seen.headers.get("Authorization") for seen in (*store.seen, *fake.seen)] == [None, None]


async def test_redirects_without_end(transport):
    async def handle(request):
        return web.Response(status=307, headers={"Location": "/again?token=secret"})

    async with fake_registry(handle) as fake:
        with pytest.raises(RegistryError, match="redirects more than 5 times") as caught:
            await read(to_fake(transport, fake))
    assert len(fake.seen) == 6
    assert "secret" not in str(caught.value)


async def test_no_step_from_https_to_http(tmp_path):
    async def handle(request):
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/x"})

    async with (
        Transport(tls=HostTls({"127.0.0.1"})) as transport,
        fake_registry(handle, self_signed(tmp_path)) as fake,
    ):
        with pytest.raises(RegistryError, match="from https to http"):
            await read(to_fake(transport, fake))
    assert len(fake.seen) == 1


async def test_a_certificate_that_nobody_signed(transport, tmp_path):
    async def handle(request):
        return web.json_response({})

    async with fake_registry(handle, self_signed(tmp_path)) as fake:
        with pytest.raises(Unreachable, match="certificate cannot be trusted"):
            await to_fake(transport, fake).ping()
        async with Transport(tls=HostTls({fake.url.removeprefix("https://")})) as trusting:
            await to_fake(trusting, fake).ping()


async def test_an_upload_that_fails_for_a_while_is_sent_again(transport):
    bodies = []

    async def handle(request):
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": f"/v2/a/b/blobs/uploads/{len(bodies)}?state=x%2Fy"})
        if request.method == "PUT":
            bodies.append(await request.read())
            return web.Response(status=503 if len(bodies) < 3 else 201)
        return web.Response(status=204)

    async with fake_registry(handle) as fake:
        await put_blob(to_fake(transport, fake))
    assert bodies == [BLOB] * 3
    puts = [(seen.path, seen.query) for seen in fake.seen if seen.method == "PUT"]
    assert puts == [(f"/v2/a/b/blobs/uploads/{number}", f"state=x%2Fy&digest={DIGEST}") for number in range(3)]
    assert fake.count("DELETE") == 2


async def test_a_connection_that_breaks_during_an_upload(transport):
    async def handle(request):
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/a/b/blobs/uploads/1"})
        if request.method == "PUT" and fake.count("PUT") == 1:
            request.transport.close()
        await request.read()
        return web.Response(status=201 if request.method == "PUT" else 204)

    async with fake_registry(handle) as fake:
        await put_blob(to_fake(transport, fake))
    assert fake.count("PUT") == 2


async def test_uploads_elsewhere_are_shown_no_credentials(transport):
    async def storage(request):
        await request.read()
        return web.Response(status=201)

    async def handle(request):
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        return web.Response(status=202, headers={"Location": f"{store.url}/upload?sig=1"})

    async with fake_registry(storage) as store, fake_registry(handle) as fake:
        await put_blob(to_fake(transport, fake))
    assert [(seen.method, seen.query) for seen in store.seen] == [("PUT", f"sig=1&digest={DIGEST}")]
    assert "Authorization" not in store.seen[0].headers


async def test_chunks_say_where_they_belong_and_streams_do_not(transport):
    async def handle(request):
        await request.read()
        return web.Response(status=416 if request.headers.get("Content-Range") == "9-11" else 202, headers=again)

    again = {"Location": "/v2/a/b/blobs/uploads/next"}
    async with fake_registry(handle) as fake:
        client = to_fake(transport, fake)
        assert await client.patch_upload(f"{fake.url}/u", pieces(b"12", b"345"), 0, 5) == fake.url + again["Location"]
        await client.patch_upload(f"{fake.url}/u", pieces(b"12345"))
        with pytest.raises(RegistryError) as caught:
            await client.patch_upload(f"{fake.url}/u", pieces(b"678"), 9, 3)
    assert caught.value.status == 416
    names = ("Content-Range", "Content-Length", "Transfer-Encoding")
    assert [tuple(seen.headers.get(name) for name in names) for seen in fake.seen] == [
        ("0-4", "5", None),
        (None, None, "chunked"),
        ("9-11", "3", None),
    ]


async def test_an_upload_without_a_location(transport):
    async def handle(request):
        return web.Response(status=202)

    async with fake_registry(handle) as fake:
        with pytest.raises(RegistryError, match="does not say where the upload goes on"):
            await to_fake(transport, fake).start_upload("a/b")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
async def test_any_refusal_of_a_mount_means_upload(transport, status):
    async def handle(request):
        return web.Response(status=status, headers={"WWW-Authenticate": "Basic realm=x"})

    async with fake_registry(handle) as fake:
        assert await to_fake(transport, fake).mount_blob("a/b", DIGEST, "c/d") is False


async def test_tags_over_several_pages(transport):
    async def handle(request):
        last = request.query.get("last")
        page = {None: ["a", "b"], "b": ["c"], "c": None}[last]
        headers = {"Link": f'</v2/a/b/tags/list?last={page[-1]}&n=2>; rel="next"'} if page else {}
        return web.json_response({"name": "a/b", "tags": page}, headers=headers)

    async with fake_registry(handle) as fake:
        assert await to_fake(transport, fake).tags("a/b") == ("a", "b", "c")


async def test_a_proxy_for_several_registries_is_told_which_one(transport):
    async def handle(request):
        return web.Response(body=b"{}")

    async with fake_registry(handle) as fake:
        client = RegistryClient(transport, fake.url, namespace="r.test:5000")
        await client.get_manifest("a/b", "latest")
        await read(client)
        await client.head_blob("a/b", DIGEST)
    assert {seen.query for seen in fake.seen} == {"ns=r.test%3A5000"}


async def test_long_headers_are_read(transport):
    async def handle(request):
        return web.Response(headers={"X-Long": "x" * 60_000})

    async with fake_registry(handle) as fake:
        assert len((await to_fake(transport, fake).ping())["x-long"]) == 60_000


async def test_bodies_that_were_compressed_for_the_way_are_refused(transport):
    async def handle(request):
        return web.Response(body=b"{}", headers={"Content-Encoding": "gzip", "Content-Type": media_types.OCI_MANIFEST})

    async with fake_registry(handle) as fake:
        for reading in (read(to_fake(transport, fake)), to_fake(transport, fake).get_manifest("a/b", "latest")):
            with pytest.raises(InvalidReply, match="came compressed"):
                await reading
    assert len(fake.seen) == 2


async def test_a_page_is_no_manifest(transport):
    async def handle(request):
        return web.Response(text="<html>be back soon</html>", content_type="text/html")

    async with fake_registry(handle) as fake:
        with pytest.raises(InvalidReply, match="expected a JSON object, got 25 bytes of text/html"):
            await to_fake(transport, fake).get_manifest("a/b", "latest")


async def test_a_manifest_that_is_known_is_not_sent_again(client, registry):
    manifest = await put_image(client)
    assert await client.check_manifest("a/b", "latest", manifest.descriptor) == manifest.descriptor
    other = Descriptor(media_type=media_types.OCI_MANIFEST, digest=DIGEST, size=1)
    assert await client.check_manifest("a/b", "latest", other) == manifest.descriptor
    assert [request.status for request in registry.requests() if request.method == "HEAD"][-2:] == [304, 200]


@pytest.mark.parametrize("head", [{"status": 405}, {"headers": {"Content-Type": media_types.OCI_MANIFEST}}])
async def test_a_registry_that_does_not_answer_head_is_asked_with_get_from_then_on(transport, head):
    raw = b'{"schemaVersion":2}'

    async def handle(request):
        if request.method == "HEAD":
            return web.Response(**head)
        if str(Digest.of(raw)) in request.headers.get("If-None-Match", ""):
            return web.Response(status=304)
        return web.Response(body=raw, content_type=media_types.OCI_MANIFEST)

    async with fake_registry(handle) as fake:
        profile = Profile()
        one, other = (RegistryClient(transport, fake.url, backoff=QUICK, profile=profile) for _ in range(2))
        found = await one.check_manifest("a/b", "latest")
        assert isinstance(found, ManifestReply)
        assert found.raw == raw
        assert await other.check_manifest("a/b", "latest", found.descriptor) == found.descriptor
    assert [seen.method for seen in fake.seen] == ["HEAD", "GET", "GET"]
