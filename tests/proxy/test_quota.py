"""An upstream's rate limit as it says it, and who may still spend from it: values, without a network or a clock."""

from __future__ import annotations

import pytest

from proxy.upstream.circuit import Pace
from proxy.upstream.quota import BELIEVED_S, MAX_CLOSED_S, PATIENT_WAIT_S, WINDOW_S, Quota

PACE = Pace(first_s=1.0, limit_s=60.0)
NOW = 1000.0


def said(limit: str, remaining: str) -> Quota:
    return Quota().stated({"ratelimit-limit": limit, "ratelimit-remaining": remaining}, NOW)


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        ("100;w=21600", "76;w=21600", (100, 76, 21600.0)),
        ("100", "76", (100, 76, WINDOW_S)),
        ("100;w=60", "76", (100, 76, 60.0)),
        (" 100 ; w = 60 ", "76;w=60;comment=x", (100, 76, 60.0)),
        ("", "76", (None, 76, WINDOW_S)),
    ],
)
def test_what_headers_say(limit: str, remaining: str, expected: tuple[int | None, int, float]):
    quota = said(limit, remaining)
    assert (quota.limit, quota.remaining, quota.window_s) == expected


@pytest.mark.parametrize("remaining", ["", "many", "-1", "1e3", "12345678901"])
def test_what_headers_do_not_say_is_not_known(remaining: str):
    assert said("100;w=60", remaining).left(NOW) is None


def test_what_was_said_counts_until_its_window_is_over():
    quota = said("100;w=60", "7;w=60")
    assert (quota.left(NOW), quota.left(NOW + 59), quota.left(NOW + 60)) == (7, 7, None)


def test_requests_under_way_count_until_their_reply_says_what_is_left():
    quota = said("100;w=60", "7").spent(NOW).spent(NOW)
    assert quota.left(NOW) == 5
    quota = quota.stated({"ratelimit-remaining": "6"}, NOW).settled()
    assert quota.left(NOW) == 5
    assert quota.settled().settled().left(NOW) == 6


@pytest.mark.parametrize(
    ("remaining", "costs", "patient", "waits"),
    [
        (100, True, False, 0.0),
        (25, True, True, 0.0),
        (24, True, True, PATIENT_WAIT_S),
        (24, True, False, 0.0),
        (24, False, True, 0.0),
        (1, True, False, 0.0),
        (0, True, False, BELIEVED_S),
        (0, False, False, 0.0),
    ],
)
def test_who_may_still_spend(remaining: int, costs: bool, patient: bool, waits: float):
    assert said("100;w=21600", str(remaining)).wait_s(NOW, costs, patient) == waits


def test_who_can_wait_is_told_to_for_no_longer_than_the_window():
    assert said("100;w=60", "5").wait_s(NOW + 20, True, True) == 40.0


def test_nothing_left_is_believed_for_a_while_and_then_tried_once():
    quota = said("100;w=21600", "0")
    later = NOW + BELIEVED_S
    assert quota.wait_s(later, True, False) == 0.0
    assert quota.spent(later).wait_s(later, True, False) == BELIEVED_S


@pytest.mark.parametrize(("asked_s", "closed_s"), [(30.0, 30.0), (0.0, 0.0), (1e9, MAX_CLOSED_S), (None, 1.0)])
def test_a_refusal_closes_the_account_for_as_long_as_it_says(asked_s: float | None, closed_s: float):
    quota = Quota().refused(asked_s, NOW, PACE)
    assert quota.wait_s(NOW, False, False) == closed_s
    assert quota.wait_s(NOW + closed_s, True, False) == 0.0


def test_refusals_that_do_not_say_for_how_long_close_it_longer_each_time():
    quota = Quota()
    for closed_s in (1.0, 2.0, 4.0):
        quota = quota.refused(None, NOW, PACE)
        assert quota.wait_s(NOW, False, False) == closed_s
    assert quota.served().refused(None, NOW, PACE).wait_s(NOW, False, False) == 1.0
