"""What each request of the store to S3 becomes under each fault: the table of promises in docs/proxy.md, cell by cell.

A fault that passes changes nothing. One that stays is a StoreUnavailable, never absence; the bucket is then as it was
before, or as it was to become. A condition that does not hold is a conflict where one was set, and a failure elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from cache import paths, record_format
from cache.errors import BlobNotFound, RecordConflict, StoreUnavailable
from cache.oci.digest import Digest
from cache.s3.location import S3Location
from cache.s3.patience import Patience
from cache.s3.store import S3Store
from cache.store import ABSENT, Aside, Record, Unfinished
from tests.cache.s3_use import MIB, NAME, names, put, read
from tests.fakes.s3 import FakeS3, Faults, Upload, etag
from tests.s3_servers import BUCKET

HELD, LARGE = Digest.of(b"held"), bytes(2 * MIB + 1)
PLACE, RECORD_PLACE = f"/{BUCKET}/p/{paths.blob(HELD)}", f"/{BUCKET}/p/{paths.record(NAME)}"
RECORD = record_format.encode("0" * 32, b"1")
OTHER = "repositories/docker.io/library/debian/_tags/other"
FOR_EVER = 1000


@dataclass(frozen=True)
class World:
    """A store on a bucket in which lie a blob, a record and an upload that a dead writer has left."""

    store: S3Store
    fake: FakeS3

    def begin(self, **faults: Any) -> dict[str, bytes]:
        """Puts all back in its place, and gives what lies there."""
        self.fake.faults, self.fake.objects = Faults(**faults), {PLACE: b"held", RECORD_PLACE: RECORD}
        self.fake.modified = dict.fromkeys(self.fake.objects, self.fake.now)
        self.fake.uploads = {"left": Upload(PLACE, self.fake.now - timedelta(days=2))}
        return self.objects()

    def objects(self) -> dict[str, bytes]:
        """What lies in the bucket; of records only their values, as the rest of them is random."""
        return {
            place: record_format.decode(place, data).value if "/records/" in place else data
            for place, data in self.fake.objects.items()
        }


@asynccontextmanager
async def opened(fake: FakeS3, patch: pytest.MonkeyPatch, attempts: int, answer_s: float) -> AsyncIterator[World]:
    """A world in which all has small parts, and is tried so often without pauses."""
    patch.setattr("cache.s3.patience.MIN_RATE_BYTES_S", 1 << 40)
    patch.setattr("cache.s3.session.READ_TIMEOUT_S", answer_s)
    patch.setattr("cache.s3.writing.LOOK_PAUSE_S", 0.0)
    patch.setattr("cache.s3.part_intake.part_bytes", lambda number: MIB)
    for kind in ("INTERACTIVE", "BULK"):
        patch.setattr(f"cache.s3.bucket.{kind}", Patience(attempts, 0.0, 0.0, answer_s))
    store = S3Store(S3Location(BUCKET, "p", fake.endpoint_url))
    try:
        yield World(store, fake)
    finally:
        await store.close()


@pytest.fixture
async def at(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with opened(fake, monkeypatch, 6, 10.0) as world:
        yield world


@dataclass(frozen=True)
class Operation:
    """Work of the store, and which requests of it (a regular expression) meet the fault. ``unmet`` is what a condition
    that does not hold makes of it: an error to raise, or a result."""

    requests: str
    work: Callable[[World], Awaitable[Any]]
    unmet: Any = StoreUnavailable


async def blobs(at: World) -> list[tuple[Digest, int]]:
    return [found async for found in at.store.blobs()]


def put_large(at: World) -> Awaitable[Digest]:
    return put(at.store, LARGE, expected=Digest.of(LARGE))


def change(at: World) -> Awaitable[str]:
    return at.store.put(NAME, b"2", etag(RECORD))


def put_aside(at: World) -> Awaitable[Aside]:
    return at.store.put_aside(HELD, etag(b"held"))


OPERATIONS = {
    "check": Operation("PUT", lambda at: at.store.check()),
    "look for a blob": Operation("GET", lambda at: at.store.stat(HELD)),
    "read a blob": Operation("GET", lambda at: read(at.store, HELD)),
    "store a small blob": Operation("PUT", lambda at: put(at.store, b"small")),
    "begin a large blob": Operation("POST .*[?]uploads", put_large),
    "send a part": Operation("PUT .*partNumber", put_large),
    "complete a large blob": Operation("POST .*uploadId", put_large),
    "delete a blob": Operation("DELETE", lambda at: at.store.delete(HELD)),
    "list blobs": Operation("GET", blobs),
    "read a record": Operation("GET", lambda at: at.store.get(NAME)),
    "create a record": Operation("PUT", lambda at: at.store.put(OTHER, b"1", ABSENT), RecordConflict),
    "change a record": Operation("PUT", change, RecordConflict),
    "overwrite a record": Operation("PUT", lambda at: at.store.put(NAME, b"2")),
    "remove a record": Operation("DELETE", lambda at: at.store.remove(NAME), RecordConflict),
    "remove a version": Operation("DELETE", lambda at: at.store.remove(NAME, etag(RECORD)), RecordConflict),
    "list records": Operation("GET", lambda at: names(at.store, "repositories/")),
    "copy aside": Operation("PUT", put_aside, Aside.CHANGED),
    "delete what was copied": Operation("DELETE", put_aside, Aside.CHANGED),
    "empty the quarantine": Operation("DELETE", lambda at: at.store.remove_aside(HELD)),
    "sweep": Operation("", lambda at: at.store.sweep(60)),
}
Fault = Callable[[int], dict[str, Any]]
"""What the server is to do wrong, so many times."""
LOST = "an answer that is lost"
PASSING: dict[str, Fault] = {
    "503 SlowDown": lambda times: {"errors": [(503, "SlowDown")] * times},
    "500 InternalError": lambda times: {"errors": [(500, "InternalError")] * times},
    "200 with an error": lambda times: {"errors": [(200, "InternalError")] * times},
    "409 OperationAborted": lambda times: {"errors": [(409, "OperationAborted")] * times},
    "400 ExpiredToken": lambda times: {"errors": [(400, "ExpiredToken")] * times},
    LOST: lambda times: {"lost_answers": times},
}
SILENCE: Fault = lambda times: {"stalled": times}  # noqa: E731 - one of a row
LASTING: dict[str, Fault] = {
    "403 AccessDenied": lambda times: {"errors": [(403, "AccessDenied")] * times},
    "404 NoSuchBucket": lambda times: {"errors": [(404, "NoSuchBucket")] * times},
    "404 of a proxy": lambda times: {"errors": [(404, "")] * times},
}


def met_by(name: str, faults: dict[str, Fault]) -> list[tuple[str, Fault]]:
    """The faults that can meet an operation: only these two S3 answers before it has done them."""
    late = name in ("complete a large blob", "copy aside")
    return [(fault, fields) for fault, fields in faults.items() if late or fault != "200 with an error"]


def told(result: Any) -> Any:
    """What is not random in a result."""
    match result:
        case Record(value):
            return value
        case str():
            return "a version"
    return result


async def check_passing(at: World, operation: Operation, fault: Fault, result: Any, done: dict[str, bytes]) -> None:
    at.begin(on=operation.requests, **fault(1))
    assert told(await operation.work(at)) == result
    assert at.objects() == done
    assert at.fake.faults.met, "nothing met the fault"


async def check_staying(at: World, operation: Operation, fault: Fault, done: dict[str, bytes]) -> bool:
    """Whether it was a failure."""
    before = at.begin(on=operation.requests, **fault(FOR_EVER))
    try:
        result = await operation.work(at)
        assert at.objects() == done or result is Aside.DELETED
        failed = False
    except StoreUnavailable:
        failed = True
    assert before.items() & done.items() <= at.objects().items() <= before.items() | done.items()
    return failed


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_fault_that_passes_changes_nothing(at, fake, name, subtests, monkeypatch):
    operation = OPERATIONS[name]
    at.begin()
    result = told(await operation.work(at))
    done = at.objects()
    for fault, fields in met_by(name, PASSING):
        with subtests.test(fault):
            await check_passing(at, operation, fields, result, done)
    async with opened(fake, monkeypatch, 6, 0.2) as hasty:
        await check_passing(hasty, operation, SILENCE, result, done)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_fault_that_stays_is_a_failure_and_no_absence(at, fake, name, subtests, monkeypatch):
    operation = OPERATIONS[name]
    at.begin()
    await operation.work(at)
    done = at.objects()
    for fault, fields in met_by(name, PASSING | LASTING):
        with subtests.test(fault):
            failed = await check_staying(at, operation, fields, done)
            assert failed or fault == LOST or (name, fault in LASTING) == ("copy aside", True)
    async with opened(fake, monkeypatch, 2, 0.05) as hasty:
        assert await check_staying(hasty, operation, SILENCE, done)


@pytest.mark.parametrize("answer", [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_condition_that_does_not_hold_is_a_conflict(at, name, answer):
    """As when another writes at the same moment. Where no condition went along, such an answer makes no sense."""
    operation = OPERATIONS[name]
    before = at.begin(on=operation.requests, errors=[answer] * FOR_EVER)
    if isinstance(operation.unmet, Aside):
        assert await operation.work(at) is operation.unmet
    else:
        with pytest.raises(operation.unmet):
            await operation.work(at)
    assert before.items() <= at.objects().items()


GONE = {
    "look for a blob": None,
    "read a blob": BlobNotFound,
    "delete a blob": None,
    "list blobs": [],
    "read a record": None,
    "change a record": RecordConflict,
    "remove a record": None,
    "remove a version": None,
    "list records": [],
    "copy aside": Aside.CHANGED,
    "empty the quarantine": None,
    "sweep": Unfinished(),
}


@pytest.mark.parametrize("name", GONE)
async def test_what_somebody_else_has_deleted_meanwhile_is_absent(at, name):
    at.begin()
    at.fake.objects.clear()
    at.fake.uploads.clear()
    if isinstance(GONE[name], type):
        with pytest.raises(GONE[name]):
            await OPERATIONS[name].work(at)
    else:
        assert await OPERATIONS[name].work(at) == GONE[name]
    assert at.fake.objects == {}


async def test_an_upload_that_ends_between_the_list_and_its_abort_is_not_counted(at):
    at.begin(on="DELETE", errors=[(404, "NoSuchUpload")])
    assert await at.store.sweep(60) == Unfinished()


async def test_an_upload_of_whose_beginning_the_answer_was_lost_is_swept(at):
    at.begin(on="POST .*[?]uploads", lost_answers=1)
    await put_large(at)
    assert await at.store.sweep(-60) == Unfinished(uploads=2)
    assert at.fake.uploads == {}


async def test_an_abort_that_fails_leaves_its_parts_to_the_sweep(at):
    at.begin(on="uploadId", errors=[(503, "SlowDown")] * FOR_EVER)
    with pytest.raises(StoreUnavailable, match=f"store {Digest.of(LARGE)}"):
        await put_large(at)
    at.fake.faults = Faults()
    assert await at.store.sweep(-60) == Unfinished(uploads=2)
