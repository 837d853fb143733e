"""Freshness, access and error replies: decisions without a network."""

from __future__ import annotations

import json

import pytest

from cache.errors import BlobNotFound, CacheError, DigestMismatch, StoreFull, StoreUnavailable
from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from cache.oci.errors import (
    Denied,
    ErrorDetail,
    InvalidManifest,
    NotFound,
    OCIError,
    RateLimited,
    RegistryError,
    Unreachable,
)
from proxy.access import GRACE_S, Access
from proxy.caller import NOBODY, Caller
from proxy.config import Upstream
from proxy.errors import CredentialsNeeded, InvalidRequest, OutOfOrder, Refused
from proxy.freshness import Failure, Tag, judge_failure, judge_tag
from proxy.ranges import RangeNotSatisfiable
from proxy.replies import error_reply
from proxy.routing import Proxied

URL = "https://up.test/v2/a/manifests/1"
ROUTE = Proxied(Upstream("up.test", "https://up.test"), "a")
OTHER = Proxied(Upstream("up.test", "https://up.test"), "b")
ALICE, BOB = Caller(Credential("alice", "a"), "guest"), Caller(Credential("bob", "b"), "guest")


@pytest.mark.parametrize(
    ("checked_at", "now", "readable", "expected"),
    [
        (None, 100, True, Tag.ASK),
        (50, 100, True, Tag.FRESH),
        (40, 100, True, Tag.ASK),
        (50, 100, False, Tag.ASK),
        (101, 100, True, Tag.ASK),
    ],
)
def test_when_a_tag_is_fresh(checked_at: float | None, now: float, readable: bool, expected: Tag):
    assert judge_tag(checked_at, now, 60, readable) is expected


@pytest.mark.parametrize(
    ("error", "held", "was_readable", "expected"),
    [
        (Unreachable("GET", URL), True, True, Failure.SERVE_STALE),
        (RateLimited("GET", URL), True, True, Failure.SERVE_STALE),
        (RegistryError("GET", URL, 503), True, True, Failure.SERVE_STALE),
        (Unreachable("GET", URL), False, True, Failure.RELAY),
        (Unreachable("GET", URL), True, False, Failure.RELAY),
        (NotFound("GET", URL, 404), True, True, Failure.RELAY),
        (Denied("GET", URL, 401), True, True, Failure.RELAY),
        (Denied("GET", URL, 403), True, True, Failure.RELAY),
    ],
)
def test_when_a_failed_upstream_is_answered_for(
    error: RegistryError, held: bool, was_readable: bool, expected: Failure
):
    assert judge_failure(error, held, was_readable) is expected


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_permission_is_for_one_identity_and_one_repository():
    access = Access(Clock())
    access.grant(ROUTE, ALICE)
    assert access.readable(ROUTE, ALICE)
    assert not access.readable(ROUTE, BOB)
    assert not access.readable(ROUTE, NOBODY)
    assert not access.readable(ROUTE, Caller(Credential("alice", "wrong")))
    assert not access.readable(OTHER, ALICE)


def test_what_an_anonymous_client_may_read_is_open_to_all():
    access = Access(Clock())
    access.grant(ROUTE, NOBODY)
    assert access.readable(ROUTE, BOB)


def test_a_permission_ends_and_counts_a_while_longer_when_the_upstream_is_gone():
    clock = Clock()
    access = Access(clock)
    access.grant(ROUTE, ALICE)
    clock.now += 61
    assert not access.readable(ROUTE, ALICE)
    assert access.was_readable(ROUTE, ALICE)
    clock.now += GRACE_S
    assert not access.was_readable(ROUTE, ALICE)


def test_a_refusal_ends_a_permission_at_once():
    access = Access(Clock())
    access.grant(ROUTE, ALICE)
    access.revoke(ROUTE, ALICE)
    assert not access.was_readable(ROUTE, ALICE)


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
        (Denied("GET", URL, 401), 401, "UNAUTHORIZED"),
        (Denied("GET", URL, 403), 403, "DENIED"),
        (RateLimited("GET", URL, retry_after_s=6.2), 429, "TOOMANYREQUESTS"),
        (Unreachable("GET", URL, reason="no route"), 503, "UNKNOWN"),
        (RegistryError("GET", URL, 500), 502, "UNKNOWN"),
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
