"""When and how often S3 is asked again, how large parts are, and what its answers mean: pure decisions."""

import pytest

from cache.s3.answers import (
    BytesRefused,
    ConditionFailed,
    CredentialsExpired,
    KeyMissing,
    RangeEmpty,
    Refused,
    ServerFailed,
    Throttled,
    UploadMissing,
    answer,
    error_code,
)
from cache.s3.part_sizes import MAX_PARTS, PART_BYTES, part_bytes
from cache.s3.patience import BULK, INTERACTIVE, RETRY_BUDGET, RETRY_COST, Patience, RetryBudget, Window


def test_pauses_never_add_a_second_to_what_somebody_waits_for():
    assert INTERACTIVE.longest_pause_s < 0.5
    assert INTERACTIVE.attempts > 1
    assert 5 < BULK.longest_pause_s < 60


def test_pauses_double_and_are_spread():
    patience = Patience(attempts=4, first_s=1.0, limit_s=3.0, answer_s=5.0)
    assert [patience.pause_s(failed, 0.0) for failed in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, None]
    assert patience.pause_s(2, 1.0) == 1.0
    assert patience.attempt_s(0) == 5.0
    assert patience.attempt_s(256 * 1024) == 6.0


def test_a_budget_of_retries():
    budget = RetryBudget()
    assert [budget.take() for _ in range(RETRY_BUDGET // RETRY_COST + 1)] == [True] * 100 + [False]
    for _ in range(RETRY_COST):
        budget.succeeded()
    assert [budget.take(), budget.take()] == [True, False]


def test_a_window_closes_fast_and_opens_slowly():
    window = Window(32)
    for expected in (16, 8, 4, 2, 1, 1):
        window.throttled()
        assert window.limit == expected
    for _ in range(10_000):
        window.succeeded()
    assert window.limit == 32


def test_parts_are_equal_for_ordinary_blobs_and_reach_any_size():
    assert {part_bytes(number) for number in range(1, 3001)} == {PART_BYTES}
    sizes = [part_bytes(number) for number in range(1, MAX_PARTS + 1)]
    assert sizes == sorted(sizes)
    assert sum(sizes) > 1 << 40
    assert max(sizes) <= 5 << 30
    for number in (0, MAX_PARTS + 1):
        with pytest.raises(ValueError, match="S3 takes parts"):
            part_bytes(number)


@pytest.mark.parametrize(
    ("status", "code", "kind", "temporary"),
    [
        (404, "NoSuchKey", KeyMissing, False),
        (404, "NoSuchUpload", UploadMissing, False),
        (404, "NoSuchBucket", Refused, False),
        (404, "", Refused, False),
        (412, "PreconditionFailed", ConditionFailed, False),
        (412, "", ConditionFailed, False),
        (409, "ConditionalRequestConflict", ConditionFailed, False),
        (409, "OperationAborted", ServerFailed, True),
        (416, "InvalidRange", RangeEmpty, False),
        (400, "BadDigest", BytesRefused, True),
        (400, "XAmzContentSHA256Mismatch", BytesRefused, True),
        (400, "RequestTimeout", ServerFailed, True),
        (400, "ExpiredToken", CredentialsExpired, False),
        (403, "ExpiredToken", CredentialsExpired, False),
        (403, "AccessDenied", Refused, False),
        (429, "", Throttled, True),
        (503, "SlowDown", Throttled, True),
        (503, "", Throttled, True),
        (500, "InternalError", ServerFailed, True),
        (501, "NotImplemented", Refused, False),
        (0, "no usable answer", ServerFailed, True),
    ],
)
def test_answers(status, code, kind, temporary):
    found = answer(status, code)
    assert (type(found), found.temporary) == (kind, temporary)


def test_error_codes():
    assert error_code(b"<?xml?><Error><Code> NoSuchKey </Code><Message>x</Message></Error>") == "NoSuchKey"
    for nothing in (b"", b"<html>gateway</html>", b"<Code>a b</Code>", b"<Code>" + b"x" * 100 + b"</Code>"):
        assert error_code(nothing) == ""
