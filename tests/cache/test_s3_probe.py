"""What the store finds out about a server, what it makes of it, and what it refuses."""

import asyncio
import copy

import pytest
import structlog.testing

from cache import paths
from cache.errors import RecordConflict, StoreUnavailable
from cache.s3.capabilities import AMAZON, Matching
from cache.s3.store import S3Store
from cache.store import ABSENT
from tests.cache.conftest import new_location
from tests.cache.s3_use import MIB, NAME, names, put, read
from tests.fakes.s3 import Faults
from tests.s3_optional import ASKED_FOR
from tests.s3_servers import BUCKET

LARGE_BYTES = 17 * MIB


async def test_real_servers(bucket_store, s3_server):
    assert bucket_store.capabilities is None
    await bucket_store.check()
    lacks = {
        "moto": {"refuses_wrong_bytes"},
        "seaweedfs": set(),
        "radosgw": {"conditional_complete", "conditional_delete"},
    }[s3_server.kind]
    found = bucket_store.capabilities
    assert {name for name in AMAZON.__slots__ if getattr(found, name) is False} == lacks
    assert found.matching is (Matching.BARE if s3_server.kind == "radosgw" else Matching.QUOTED)
    await records_are_safe(bucket_store)


@pytest.mark.skipif("rclone" not in ASKED_FOR, reason="rclone is tried when S3_SERVERS names it")
async def test_rclone_is_refused(request, s3_credentials):
    store = S3Store(new_location(request.getfixturevalue("rclone_server").endpoint_url))
    with pytest.raises(StoreUnavailable, match="the server does not honour") as caught:
        await store.check()
    print(caught.value)
    await store.close()


async def test_the_probe_leaves_nothing(fake, fake_store):
    await fake_store.check()
    assert fake_store.capabilities == AMAZON
    assert (list(fake.objects), fake.uploads) == ([f"/{BUCKET}/some/prefix/{paths.PROBE}"], {})


FAULTS = {
    "expired": {"errors": [(400, "ExpiredToken")]},
    "lost": {"lost_answers": 1},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_that_passes_takes_no_ability_away(fake, fake_store, fault):
    """Whichever request of the probe meets it."""
    await fake_store.check()
    for skipped in range(len(fake.requests)):
        store = S3Store(new_location(fake.endpoint_url))
        fake.faults = Faults(skipped=skipped, **copy.deepcopy(FAULTS[fault]))
        await store.check()
        assert store.capabilities == AMAZON, skipped
        assert fake.faults.met
        await store.close()


@pytest.mark.parametrize("ignored", [{"If-None-Match"}, {"If-Match"}, {"If-None-Match", "If-Match"}])
async def test_a_server_that_ignores_conditions_is_refused(fake, fake_store, ignored):
    fake.faults.ignored = frozenset(ignored)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"does not honour If-.*Match on writes"):
            await fake_store.check()
    assert (fake.objects, fake.uploads) == ({}, {})


async def test_a_server_whose_if_match_never_matches_is_refused(fake, fake_store):
    fake.faults.never_matching = True
    with pytest.raises(StoreUnavailable, match="does not honour If-Match"):
        await fake_store.check()


async def test_conditions_are_checked_once(fake, fake_store):
    await fake_store.check()
    fake.requests.clear()
    await fake_store.check()
    probe = f"/{BUCKET}/some/prefix/{paths.PROBE}"
    assert fake.requests == [f"PUT {probe}", f"GET {probe}"]


async def test_a_server_that_ignores_ranges_is_refused(fake, fake_store):
    fake.faults.ignored = frozenset({"Range"})
    with pytest.raises(StoreUnavailable, match="does not honour Range on reads"):
        await fake_store.check()


FALLBACKS = [
    ({"ignored": frozenset({"complete"})}, "Complete is not conditional"),
    ({"ignored": frozenset({"delete"})}, "DELETE is not conditional"),
    ({"ignored": frozenset({"checksums"})}, "checksums are not verified"),
    ({"bare_etags": True}, "without quotes"),
    ({"checksums_unknown": True}, "is refused: not sent"),
]


@pytest.mark.parametrize(("faults", "said"), FALLBACKS)
async def test_what_is_done_without_an_ability(fake, fake_store, faults, said):
    for name, value in faults.items():
        setattr(fake.faults, name, value)
    with structlog.testing.capture_logs() as logs:
        await fake_store.check()
    (probed,) = [log for log in logs if log["event"] == "s3_probed"]
    assert len(probed["lacks"]) == 1
    assert said in probed["lacks"][0]
    data = b"x" * LARGE_BYTES
    digest = (await asyncio.gather(put(fake_store, data), put(fake_store, data)))[0]
    assert await read(fake_store, digest) == data
    await records_are_safe(fake_store)


async def records_are_safe(store):
    first = await store.put(NAME, b"1", ABSENT)
    second = await store.put(NAME, b"2", first)
    for expected in (first, ABSENT):
        with pytest.raises(RecordConflict):
            await store.put(NAME, b"3", expected)
    with pytest.raises(RecordConflict):
        await store.remove(NAME, first)
    await store.remove(NAME, second)
    assert await store.get(NAME) is None
    assert await names(store, "repositories/") == []
    with pytest.raises(RecordConflict):
        await store.put(NAME, b"4", second)
    fifth = await store.put(NAME, b"5", ABSENT)
    with pytest.raises(RecordConflict):
        await store.put(NAME, b"6", ABSENT)
    assert (await store.get(NAME)).version == fifth


async def test_a_record_over_an_emptied_one_whose_answer_was_lost(fake, fake_store):
    fake.faults.ignored = frozenset({"delete"})
    await fake_store.check()
    for lost in (0, 1):
        version = await fake_store.put(NAME, b"1", ABSENT)
        fake.faults.lost_answers = lost
        await fake_store.remove(NAME, version)
        fake.faults.lost_answers = lost
    assert (await fake_store.get(NAME)) is None
    assert await fake_store.put(NAME, b"2", ABSENT)


@pytest.mark.parametrize(
    ("lifecycle", "event"),
    [
        ("", "s3_abort_rule_missing"),
        ("<Rule><Status>Disabled</Status><Filter/>{abort}</Rule>", "s3_abort_rule_missing"),
        (
            "<Rule><Status>Enabled</Status><Filter><Prefix>other/</Prefix></Filter>{abort}</Rule>",
            "s3_abort_rule_missing",
        ),
        ("<Rule><Status>Enabled</Status><Filter><Prefix>some/</Prefix></Filter>{abort}</Rule>", None),
        ("<Rule><Status>Enabled</Status><Prefix></Prefix>{abort}</Rule>", None),
    ],
)
async def test_the_buckets_rule_for_abandoned_uploads_is_checked(fake, fake_store, lifecycle, event):
    days = (
        "<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    )
    fake.lifecycle = lifecycle.format(abort=days)
    with structlog.testing.capture_logs() as logs:
        await fake_store.check()
    assert [log["event"] for log in logs if log["event"] != "s3_probed"] == ([event] if event else [])
    rule = await fake_store.abort_rule()
    assert (rule.days if rule else None) == (None if event else 3)


async def test_rules_that_cannot_be_read_are_no_failure(fake, fake_store):
    fake.faults.on, fake.faults.errors = "lifecycle", [(403, "AccessDenied")]
    with structlog.testing.capture_logs() as logs:
        await fake_store.check()
    assert "403 AccessDenied" in {log["event"]: log for log in logs}["s3_abort_rule_unknown"]["error"]
