"""What each error becomes on the wire: decisions without a network."""

from __future__ import annotations

import json

import pytest

from cache.errors import BlobNotFound, CacheError, DigestMismatch, StoreFull, StoreUnavailable
from cache.oci.digest import Digest
from cache.oci.errors import (
    Denied,
    ErrorDetail,
    InvalidManifest,
    InvalidReply,
    NotFound,
    OCIError,
    RateLimited,
    RegistryError,
    Unreachable,
)
from proxy.errors import CredentialsNeeded, InvalidRequest, OutOfOrder, Refused
from proxy.requests.ranges import RangeNotSatisfiable
from proxy.requests.replies import error_reply

URL = "https://up.test/v2/a/manifests/1"


DETAILS = (ErrorDetail("MANIFEST_UNKNOWN", "no such tag"),)
D = Digest.of(b"x")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("NAME_INVALID", "bad"), 400, "NAME_INVALID"),
        (CredentialsNeeded("who?"), 401, "UNAUTHORIZED"),
        (RangeNotSatisfiable(5), 416, "RANGE_INVALID"),
        (OutOfOrder("no", 5), 416, "BLOB_UPLOAD_INVALID"),
        (NotFound("GET", URL, 404, DETAILS), 404, "MANIFEST_UNKNOWN"),
        (NotFound("GET", "http://u/v2/a/blobs/uploads/x", 404), 404, "BLOB_UPLOAD_UNKNOWN"),
        (NotFound("GET", f"http://u/v2/a/blobs/{D}", 404), 404, "BLOB_UNKNOWN"),
        (NotFound("GET", "http://u/v2/a/manifests/x", 404), 404, "MANIFEST_UNKNOWN"),
        (NotFound("GET", "http://u/v2/a/tags/list", 404), 404, "NAME_UNKNOWN"),
        (Denied("GET", URL, 401), 401, "UNAUTHORIZED"),
        (Denied("GET", URL, 403), 403, "DENIED"),
        (RateLimited("GET", URL, retry_after_s=6.2), 429, "TOOMANYREQUESTS"),
        (Unreachable("GET", URL, reason="no route"), 503, "UNKNOWN"),
        (RegistryError("GET", URL, 500), 502, "UNKNOWN"),
        (InvalidReply("GET", URL, 200, reason="a page"), 502, "UNKNOWN"),
        (RegistryError("GET", URL, 307, reason="redirects more than 5 times"), 502, "UNKNOWN"),
        (RegistryError("PUT", URL, 413), 413, "SIZE_INVALID"),
        (DigestMismatch(D, D, 1), 400, "DIGEST_INVALID"),
        (BlobNotFound(D), 404, "BLOB_UNKNOWN"),
        (StoreFull("s", "write"), 507, "UNKNOWN"),
        (StoreUnavailable("s", "write"), 503, "UNKNOWN"),
        (InvalidManifest("no"), 400, "MANIFEST_INVALID"),
    ],
)
def test_what_each_error_becomes(error: Refused | OCIError | CacheError, status: int, code: str):
    reply = error_reply(error, "up.test", "repository:a:pull")
    assert (reply.status, reply.code) == (status, code)
    assert json.loads(reply.body)["errors"][0]["code"] == code
    assert (reply.scope is not None) == (status == 401)
    if isinstance(error, RegistryError):
        assert "up.test" in reply.message


def test_headers_of_error_replies():
    assert error_reply(RateLimited("GET", URL, retry_after_s=6.2), "u", "").headers == {"Retry-After": "7"}
    assert error_reply(RangeNotSatisfiable(5), "", "").headers == {"Content-Range": "bytes */5"}
    assert error_reply(OutOfOrder("no", 5), "", "").headers == {"Range": "0-4"}
