"""When the cache answers, for what and for whom: decisions, permissions and absences without a network or a clock."""

from __future__ import annotations

import pytest

from cache.oci.credentials import Credential
from cache.oci.errors import Denied, InvalidReply, NotFound, RateLimited, RegistryError, Unreachable
from proxy.auth.access import Access
from proxy.auth.caller import NOBODY, Caller
from proxy.config import Freshness, Upstream
from proxy.requests.outcome import BYPASS, HIT, Cached, Outcome
from proxy.requests.routing import Proxied
from proxy.upstream.absences import MAX_ASKERS, Absences
from proxy.upstream.freshness import Ailment, Failure, Standing, Tag, diagnose, judge_failure, judge_standing, judge_tag

URL = "https://up.test/v2/a/manifests/1"
FRESHNESS = Freshness(access_ttl_s=60.0, max_stale_s=1000.0, negative_ttl_s=5.0)
ROUTE = Proxied(Upstream("up.test", "https://up.test", freshness=FRESHNESS), "a")
OTHER = Proxied(ROUTE.upstream, "b")
ALICE, BOB = Caller(Credential("alice", "a"), "guest"), Caller(Credential("bob", "b"), "guest")


@pytest.mark.parametrize(
    ("checked_at", "readable", "expected"),
    [
        (None, True, Tag.ASK),
        (100, True, Tag.FRESH),
        (40.5, True, Tag.FRESH),
        (40, True, Tag.REVALIDATE),
        (10.5, True, Tag.REVALIDATE),
        (10, True, Tag.ASK),
        (90, False, Tag.ASK),
        (30, False, Tag.ASK),
        (101, True, Tag.ASK),
    ],
)
def test_when_a_tag_is_fresh(checked_at: float | None, readable: bool, expected: Tag):
    assert judge_tag(checked_at, 100, 60, 30, readable) is expected


@pytest.mark.parametrize(
    ("granted_at", "expected"),
    [
        (None, Standing.UNKNOWN),
        (2000, Standing.LET_IN),
        (1941, Standing.LET_IN),
        (1940, Standing.WAS_LET_IN),
        (941, Standing.WAS_LET_IN),
        (940, Standing.UNKNOWN),
    ],
)
def test_what_a_permission_is_worth(granted_at: float | None, expected: Standing):
    assert judge_standing(granted_at, 2000, FRESHNESS) is expected


@pytest.mark.parametrize(
    ("error", "standing", "past_s", "expected"),
    [
        (Unreachable("GET", URL), Standing.LET_IN, 0, Failure.SERVE_STALE),
        (Unreachable("GET", URL), Standing.WAS_LET_IN, 999, Failure.SERVE_STALE),
        (Unreachable("GET", URL), Standing.WAS_LET_IN, 1000, Failure.RELAY),
        (Unreachable("GET", URL), Standing.UNKNOWN, 0, Failure.RELAY),
        (RateLimited("GET", URL), Standing.LET_IN, 0, Failure.SERVE_STALE),
        (RegistryError("GET", URL, 503), Standing.LET_IN, 0, Failure.SERVE_STALE),
        (InvalidReply("GET", URL, 200), Standing.LET_IN, 0, Failure.SERVE_STALE),
        (RegistryError("GET", URL, 400), Standing.LET_IN, 0, Failure.RELAY),
        (NotFound("GET", URL, 404), Standing.LET_IN, 0, Failure.RELAY),
        (Denied("GET", URL, 401), Standing.LET_IN, 0, Failure.RELAY),
        (Denied("GET", URL, 403), Standing.LET_IN, 0, Failure.RELAY),
    ],
)
def test_when_a_failed_upstream_is_answered_for(
    error: RegistryError, standing: Standing, past_s: float, expected: Failure
):
    assert judge_failure(error, standing, past_s, 1000) is expected


@pytest.mark.parametrize(
    ("error", "ailment"),
    [
        (RateLimited("GET", URL), Ailment.RATE_LIMITED),
        (Unreachable("GET", URL, reason="x"), Ailment.UNREACHABLE),
        (RegistryError("GET", URL, 503), Ailment.FAILING),
        (InvalidReply("GET", URL, 200), Ailment.CONFUSED),
    ],
)
def test_what_is_the_matter_with_an_upstream(error: RegistryError, ailment: Ailment):
    assert diagnose(error) is ailment


def test_headers_of_outcomes():
    assert (HIT.headers, BYPASS.headers) == ({"X-Cache": "hit"}, {"X-Cache": "bypass"})
    assert Outcome(Cached.MISS, 0.0).headers == {"X-Cache": "miss", "Age": "0"}
    assert Outcome(Cached.HIT, -3.0).headers["Age"] == "0"
    stale = Outcome(Cached.STALE, 61.9, 'up "is"\r\ndown')
    assert stale.headers == {"X-Cache": "stale", "Age": "61", "Warning": '110 - "up ?is???down"'}


class Clock:
    now = 2000.0

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


def test_the_newest_permission_counts():
    clock = Clock()
    access = Access(clock)
    access.grant(ROUTE, NOBODY)
    clock.now += 50
    access.grant(ROUTE, ALICE)
    clock.now += 50
    assert (access.readable(ROUTE, ALICE), access.readable(ROUTE, BOB)) == (True, False)
    assert access.standing(ROUTE, BOB) is Standing.WAS_LET_IN


def test_a_refusal_ends_a_permission_at_once():
    access = Access(Clock())
    access.grant(ROUTE, ALICE)
    access.revoke(ROUTE, ALICE)
    assert access.standing(ROUTE, ALICE) is Standing.UNKNOWN


GONE = NotFound("HEAD", URL, 404)


def test_an_absence_is_for_one_identity_and_ends():
    clock = Clock()
    absences = Absences(clock)
    absences.note(ROUTE, "1", ALICE, GONE, absences.epoch(ROUTE))
    with pytest.raises(NotFound):
        absences.check(ROUTE, "1", ALICE)
    absences.check(ROUTE, "1", BOB)
    absences.check(ROUTE, "2", ALICE)
    absences.check(OTHER, "1", ALICE)
    clock.now += 5
    absences.check(ROUTE, "1", ALICE)


def test_a_push_ends_an_absence_and_one_that_was_asked_for_before_is_not_kept():
    absences = Absences(Clock())
    before = absences.epoch(ROUTE)
    absences.note(ROUTE, "1", ALICE, GONE, before)
    absences.end(ROUTE, "1")
    absences.check(ROUTE, "1", ALICE)
    absences.note(ROUTE, "1", ALICE, GONE, before)
    absences.check(ROUTE, "1", ALICE)
    absences.note(OTHER, "1", ALICE, GONE, absences.epoch(OTHER))
    with pytest.raises(NotFound):
        absences.check(OTHER, "1", ALICE)


def test_absences_of_one_name_are_bounded():
    absences = Absences(Clock())
    for number in range(MAX_ASKERS + 1):
        absences.note(ROUTE, "1", Caller(Credential(str(number), "x")), GONE, 0)
    absences.check(ROUTE, "1", Caller(Credential("0", "x")))
    with pytest.raises(NotFound):
        absences.check(ROUTE, "1", Caller(Credential(str(MAX_ASKERS), "x")))
