from __future__ import annotations

import pytest
from multidict import MultiDict

from cache.oci.digest import Digest
from proxy.errors import InvalidRequest, Refused, TooManyTags, Unknown, Unsupported
from proxy.requests.request import (
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    ListReferrers,
    ListRepositories,
    ListTags,
    Ping,
    PutManifest,
    ReadBlob,
    ReadManifest,
    StartUpload,
    UploadChunk,
    UploadStatus,
    parse_request,
)

D = Digest.of(b"x")
ID = "abcdefghijklmnopqrstuvwx_-012345"


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/v2/", {}, Ping()),
        ("HEAD", "/v2", {}, Ping()),
        ("GET", "/v2/a/manifests/latest", {}, ReadManifest("a", "latest", False)),
        ("HEAD", f"/v2/a/b/manifests/{D}", {}, ReadManifest("a/b", D, True)),
        ("GET", f"/v2/a/manifests/sha256%3A{D.hex}", {}, ReadManifest("a", D, False)),
        ("PUT", "/v2/a/manifests/1", {}, PutManifest("a", "1")),
        ("DELETE", "/v2/a/manifests/1", {}, DeleteManifest("a", "1")),
        ("GET", f"/v2/a/blobs/{D}", {}, ReadBlob("a", D, False)),
        ("HEAD", f"/v2/ghcr.io/a/blobs/{D}", {}, ReadBlob("ghcr.io/a", D, True)),
        ("DELETE", f"/v2/a/blobs/{D}", {}, DeleteBlob("a", D)),
        ("GET", "/v2/blobs/manifests/manifests/blobs", {}, ReadManifest("blobs/manifests", "blobs", False)),
        ("POST", "/v2/a/blobs/uploads/", {}, StartUpload("a", None, None, None)),
        ("POST", "/v2/a/blobs/uploads", {"digest": str(D)}, StartUpload("a", D, None, None)),
        ("POST", "/v2/a/blobs/uploads/", {"mount": str(D), "from": "b/c"}, StartUpload("a", None, D, "b/c")),
        ("PATCH", f"/v2/a/blobs/uploads/{ID}", {}, UploadChunk("a", ID)),
        ("PUT", f"/v2/a/blobs/uploads/{ID}", {"digest": str(D)}, FinishUpload("a", ID, D)),
        ("GET", f"/v2/a/blobs/uploads/{ID}", {}, UploadStatus("a", ID)),
        ("DELETE", f"/v2/a/blobs/uploads/{ID}", {}, CancelUpload("a", ID)),
        ("GET", "/v2/a/tags/list", {}, ListTags("a", None, "")),
        ("GET", "/v2/a/tags/list", {"n": "0", "last": "x"}, ListTags("a", 0, "x")),
        ("GET", "/v2/a/tags/list", {"cursor": "n=2&last=%3D"}, ListTags("a", None, "", "n=2&last=%3D")),
        ("GET", f"/v2/a/referrers/{D}", {"artifactType": "t/x"}, ListReferrers("a", D, "t/x")),
        ("GET", f"/v2/a/referrers/{D}", {"last": str(D)}, ListReferrers("a", D, "", D)),
        ("GET", "/v2/_catalog", {"n": "2", "last": "x"}, ListRepositories(2, "x")),
        ("PUT", f"/v2/a/manifests/{D}", [("tag", "b"), ("tag", "a"), ("tag", "b")], PutManifest("a", D, ("b", "a"))),
        ("PUT", "/v2/a/manifests/1", [("tag", "b")], PutManifest("a", "1")),
    ],
)
def test_what_each_endpoint_is(method: str, path: str, query: dict[str, str] | list[tuple[str, str]], expected: object):
    assert parse_request(method, path, MultiDict(query)) == expected


@pytest.mark.parametrize(
    ("method", "path", "query", "kind", "code"),
    [
        ("GET", "/v2/A/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/a%2Fb/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/a/%2e%2e/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/../manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2//manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/a%00/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/a%252F/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/a%ff/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/" + "a" * 256 + "/manifests/1", {}, InvalidRequest, "NAME_INVALID"),
        ("GET", "/v2/a/manifests/.x", {}, InvalidRequest, "MANIFEST_INVALID"),
        ("GET", "/v2/a/manifests/" + "x" * 129, {}, InvalidRequest, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/sha256:bad", {}, InvalidRequest, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/latest", {}, InvalidRequest, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:00", {}, InvalidRequest, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/", {"mount": "x"}, InvalidRequest, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/", {"mount": str(D), "from": "../b"}, InvalidRequest, "NAME_INVALID"),
        ("PUT", f"/v2/a/blobs/uploads/{ID}", {}, InvalidRequest, "DIGEST_INVALID"),
        ("PATCH", "/v2/a/blobs/uploads/short", {}, Unknown, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/a/tags/list", {"n": "-1"}, InvalidRequest, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/a/referrers/x", {}, InvalidRequest, "DIGEST_INVALID"),
        ("GET", f"/v2/a/referrers/{D}", {"last": "x"}, InvalidRequest, "DIGEST_INVALID"),
        ("POST", f"/v2/a/referrers/{D}", {}, Unsupported, "UNSUPPORTED"),
        ("GET", "/v2/_catalog", {"n": "x"}, InvalidRequest, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/a/tags/list", {"cursor": "n=1 HTTP/1.1"}, InvalidRequest, "PAGINATION_NUMBER_INVALID"),
        ("PUT", f"/v2/a/manifests/{D}", [("tag", ".x")], InvalidRequest, "MANIFEST_INVALID"),
        ("PUT", f"/v2/a/manifests/{D}", [("tag", f"t{i}") for i in range(101)], TooManyTags, "SIZE_INVALID"),
        ("GET", "/v3/", {}, Unknown, "UNSUPPORTED"),
        ("POST", "/v2/", {}, Unsupported, "UNSUPPORTED"),
        ("POST", "/v2/a/manifests/1", {}, Unsupported, "UNSUPPORTED"),
        ("PATCH", f"/v2/a/blobs/{D}", {}, Unsupported, "UNSUPPORTED"),
        ("POST", f"/v2/a/blobs/uploads/{ID}", {}, Unsupported, "UNSUPPORTED"),
        ("PUT", "/v2/a/tags/list", {}, Unsupported, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/uploads/", {}, Unsupported, "UNSUPPORTED"),
    ],
)
def test_what_is_refused(
    method: str, path: str, query: dict[str, str] | list[tuple[str, str]], kind: type[Refused], code: str
):
    with pytest.raises(kind) as caught:
        parse_request(method, path, MultiDict(query))
    assert caught.value.code == code
