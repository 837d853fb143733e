"""Durations as Go reads and prints them."""

import pytest

from builder.dockerfile.durations import format_duration, parse_duration

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("5s", 5 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5h", 5400 * SECOND),
        (".5s", SECOND // 2),
        ("2.s", 2 * SECOND),
        ("-1ms", -(10**6)),
        ("+3us", 3000),
        ("3\u00b5s", 3000),
        ("1h1m1s1ms1us1ns", 3661001001001),
        ("1s1s", 2 * SECOND),
    ],
)
def test_parse(text, nanoseconds):
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", ".s", "5 s", "5S", "-", "1d", "\u0665s", "1e3s", "999999999h"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5\u00b5s"),
        (20 * 10**6, "20ms"),
        (SECOND + 1, "1.000000001s"),
        (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"),
        (2**63 - 1, "2562047h47m16.854775807s"),
    ],
)
def test_format(nanoseconds, text):
    assert format_duration(nanoseconds) == text
    assert parse_duration(text) == nanoseconds
