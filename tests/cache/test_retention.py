"""What of a cache goes, by table."""

import pytest

from cache.upkeep.entry_table import Entry, EntryTable
from cache.upkeep.retention import Reason, Retention, expired, keeps_untagged, retention_of

DAY = 86400.0
NOW = 100 * DAY
MB = 10**6


def an_entry(name, size_bytes=100, pushed_days=1.0, used_days=None, hits=0, seconds=0.0):
    """An entry that was pushed and used so many days ago."""
    used_at = NOW - used_days * DAY if used_days is not None else 0.0
    return Entry(name, size_bytes, NOW - pushed_days * DAY, used_at, hits, seconds)


def gone(text, *entries):
    table = EntryTable()
    for entry in entries:
        table.add(entry, "version")
    assert [table.entry(row) for row in range(len(table))] == list(entries)
    return [(table.entry(row).name, reason) for row, reason in expired(Retention.parse(text), table, NOW)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cache idle=14d", Retention("cache", idle_s=14 * DAY)),
        ("cache/** age=12h,entries=3", Retention("cache", age_s=DAY / 2, max_entries=3)),
        ("* bytes=50GB", Retention("", max_bytes=50 * 10**9)),
        ("docker.io/library/ bytes=1GiB,idle=90s", Retention("docker.io/library", idle_s=90.0, max_bytes=1 << 30)),
        ("registry:5000/app age=1d", Retention("registry:5000/app", age_s=DAY)),
    ],
)
def test_limits_are_read(text, expected):
    assert Retention.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "cache", "cache idle", "cache idle=", "cache idle=x", "cache size=1GB", "cache idle=1d,idle=2d"),
        *("cache entries=0", "cache entries=-1", "cache entries=x", "cache bytes=0", "cache idle=1d more"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(text):
    with pytest.raises(ValueError, match="expected"):
        Retention.parse(text)


def test_the_first_that_covers_a_repository_counts():
    narrow, wide = Retention("cache/app", idle_s=1.0), Retention("cache", idle_s=2.0)
    assert retention_of([narrow, wide], "cache/app/x") is narrow
    assert retention_of([narrow, wide], "cache/apple") is wide
    assert retention_of([narrow, wide], "cached") is None
    assert retention_of([Retention("")], "anything") == Retention("")


@pytest.mark.parametrize(
    ("text", "entries", "expected"),
    [
        ("* idle=14d", [an_entry("new"), an_entry("old", pushed_days=15)], [("old", Reason.IDLE)]),
        ("* idle=14d", [an_entry("used", pushed_days=90, used_days=2)], []),
        ("* age=14d", [an_entry("used", pushed_days=90, used_days=2)], [("used", Reason.AGE)]),
        ("* entries=1", [an_entry("a", pushed_days=3), an_entry("b", pushed_days=2)], [("a", Reason.ENTRIES)]),
        ("* entries=1", [an_entry("a", 1, 3, used_days=1), an_entry("b", 1, 2)], [("b", Reason.ENTRIES)]),
        ("* entries=2", [an_entry("a"), an_entry("b")], []),
        ("* bytes=2MB", [an_entry("a", MB), an_entry("b", MB)], []),
        ("* bytes=1MB", [an_entry("slow", MB, seconds=60), an_entry("fast", MB, seconds=1)], [("fast", Reason.BYTES)]),
        ("* bytes=1MB", [an_entry("a", MB, hits=5), an_entry("b", MB, hits=4)], [("b", Reason.BYTES)]),
        ("* bytes=1MB", [an_entry("big", MB, seconds=30), an_entry("small", 10, seconds=5)], [("big", Reason.BYTES)]),
        ("* bytes=1MB", [an_entry("kaniko's", MB), an_entry("ours", MB, seconds=5)], [("ours", Reason.BYTES)]),
        ("* bytes=1MB", [an_entry("a", MB, 3), an_entry("b", MB, 2)], [("a", Reason.BYTES)]),
    ],
)  # fmt: skip
def test_what_breaks_a_limit_goes(text, entries, expected):
    assert gone(text, *entries) == expected


def test_no_more_goes_for_the_bytes_than_must():
    entries = [an_entry(f"e{number}", MB, seconds=number + 1) for number in range(10)]
    assert gone("* bytes=7.5MB", *entries) == [(f"e{n}", Reason.BYTES) for n in range(3)]


def test_what_goes_for_one_limit_does_not_count_for_the_next():
    entries = [an_entry("old", MB, pushed_days=30), an_entry("a", MB), an_entry("b", MB)]
    assert gone("* idle=14d,entries=2,bytes=2MB", *entries) == [("old", Reason.IDLE)]


@pytest.mark.parametrize(
    ("text", "first_days", "used_days", "untagged_days", "kept"),
    [
        ("* idle=14d", 1, 100, None, True),
        ("* idle=14d", 20, 100, None, False),
        ("* idle=14d", 20, 1, None, True),
        ("* age=14d", 20, 1, None, False),
        ("* bytes=1MB", 90, 90, None, True),
        ("* bytes=1MB", 90, 2, 1, False),
        ("* bytes=1MB", 90, 1, 2, True),
        ("* idle=14d", 1, 3, 2, False),
    ],
)
def test_a_manifest_without_a_tag_stays_by_its_use(text, first_days, used_days, untagged_days, kept):
    untagged_at = NOW - untagged_days * DAY if untagged_days is not None else 0.0
    times = NOW - first_days * DAY, NOW - used_days * DAY, untagged_at
    assert keeps_untagged(Retention.parse(text), *times, NOW) is kept
