from __future__ import annotations

import pytest

from proxy.errors import InvalidRequest
from proxy.requests.ranges import ByteRange, RangeNotSatisfiable, parse_chunk, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=500-1499", ByteRange(500, 1500)),
        ("bytes=500-", ByteRange(500, 2048)),
        ("bytes=-500", ByteRange(1548, 2048)),
        ("bytes=-5000", ByteRange(0, 2048)),
        ("bytes=2000-5000", ByteRange(2000, 2048)),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
    ],
)
def test_the_part_of_a_blob_that_is_asked_for(header: str | None, expected: ByteRange | None):
    assert parse_range(header, 2048) == expected


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"])
def test_a_range_outside_the_blob(header: str):
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 2048)


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, None), ("0-99", ByteRange(0, 100)), ("bytes 5-5/*", ByteRange(5, 6)), (" 1-2 ", ByteRange(1, 3))],
)
def test_the_place_of_a_chunk(header: str | None, expected: ByteRange | None):
    assert parse_chunk(header) == expected


@pytest.mark.parametrize("header", ["", "5", "9-5", "-5", "bytes=x"])
def test_a_place_that_is_none(header: str):
    with pytest.raises(InvalidRequest):
        parse_chunk(header)
