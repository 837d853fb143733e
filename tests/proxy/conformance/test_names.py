"""Names, paths and methods: what is refused before anything is looked for, and what every answer says."""

from __future__ import annotations

import json

from yarl import URL

from cache.oci import media_types
from cache.oci.digest import Digest
from tests.proxy.conformance.targets import Reply, Target, digest_of, raw_of
from tests.proxy.running import UPSTREAM

DIGEST = Digest.of(b"x")
REFUSED = [
    ("GET", "/v2/a%2Fb/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a/%2e%2e/b/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a/../b/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2//a/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a/%00/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/Upper/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a_/tags/list", 400, "NAME_INVALID"),
    ("GET", f"/v2/{'a' * 256}/tags/list", 400, "NAME_INVALID"),
    ("GET", f"/v2/cache/a/manifests/{'t' * 129}", 400, "MANIFEST_INVALID"),
    ("GET", "/v2/cache/a/manifests/.x", 400, "MANIFEST_INVALID"),
    ("GET", f"/v2/cache/a/blobs/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
    ("GET", "/v2/cache/a/blobs/sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", 400, "DIGEST_INVALID"),
    ("POST", "/v2/cache/a/blobs/uploads/?digest=sha256:short", 400, "DIGEST_INVALID"),
    ("POST", "/v2/cache/a/blobs/uploads/?mount=x&from=b", 400, "DIGEST_INVALID"),
    ("PUT", f"/v2/cache/a/blobs/uploads/{'u' * 32}", 400, "DIGEST_INVALID"),
    ("GET", f"/v2/cache/a/blobs/uploads/{'u' * 32}", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("GET", "/v2/cache/a/nothing", 404, "UNSUPPORTED"),
    ("POST", f"/v2/cache/a/blobs/{DIGEST}", 405, "UNSUPPORTED"),
    ("PATCH", "/v2/cache/a/manifests/x", 405, "UNSUPPORTED"),
    ("DELETE", "/v2/cache/a/tags/list", 405, "UNSUPPORTED"),
    ("GET", "/v2/a/tags/list?ns=elsewhere.test", 404, "NAME_UNKNOWN"),
]


async def raw(target: Target, method: str, path: str) -> Reply:
    """One request for a path exactly as it is written."""
    url = URL(target.url + path, encoded=True)
    async with target.session.request(method, url) as response:
        return Reply(response.status, response.headers, await response.read())


async def test_the_ping(target: Target):
    reply = await target.ask("GET", "/v2/")
    assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
    assert reply.headers["WWW-Authenticate"].startswith('Bearer realm="http://127.0.0.1:')
    assert reply.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert (await target.ask("GET", "/v2/", Authorization="Basic dTpw")).status == 200


async def test_what_is_refused(target: Target):
    for method, path, status, code in REFUSED:
        reply = await raw(target, method, path)
        assert (reply.status, reply.code) == (status, code), path
        assert reply.headers["Content-Type"] == "application/json"
        error = json.loads(reply.body)["errors"][0]
        assert set(error) == {"code", "message", "detail"}
        assert error["message"]


async def test_a_digest_may_be_encoded(target: Target):
    digest = (await target.blob(b"x"))["digest"]
    reply = await raw(target, "GET", f"{target.base}/blobs/{digest.replace(':', '%3A')}")
    assert (reply.status, reply.body) == (200, b"x")


async def test_the_upstream_may_be_named_by_ns(target: Target):
    """It is said in the reply, and stays in every address that is given out."""
    image = await target.image()
    await target.put("one", image)
    await target.put("two", image)
    first = await target.ask("GET", "manifests/one")
    assert first.headers.get("OCI-Namespace") == (None if target.hosted else UPSTREAM)
    if target.hosted:
        return
    base = f"/v2/{target.repository.removeprefix(f'{UPSTREAM}/')}"
    reply = await target.ask("GET", f"{base}/manifests/one?ns={UPSTREAM}")
    assert (reply.status, reply.body, reply.headers["OCI-Namespace"]) == (200, raw_of(image), UPSTREAM)
    tags = await target.ask("GET", f"{base}/tags/list?n=1&ns={UPSTREAM}")
    assert tags.headers["Link"] == f'<{base}/tags/list?ns={UPSTREAM}&n=1&last=one>; rel="next"'
    upload = await target.ask("POST", f"{base}/blobs/uploads/?ns={UPSTREAM}")
    assert upload.headers["Location"].endswith(f"?ns={UPSTREAM}")
    pushed = await target.finish(upload.headers["Location"], DIGEST, b"x")
    assert (pushed.status, pushed.headers["Location"]) == (201, f"{base}/blobs/{DIGEST}?ns={UPSTREAM}")
    url, kind = f"{base}/manifests/three?ns={UPSTREAM}", media_types.OCI_MANIFEST
    put = await target.ask("PUT", url, raw_of(image), Content_Type=f"{kind}; charset=utf-8")
    assert (put.status, put.headers["Location"]) == (201, url)
    assert put.headers["Docker-Content-Digest"] == str(digest_of(image))
    assert (await target.ask("GET", url)).headers["Content-Type"] == kind
