"""What every store does: one suite for memory, the file system, moto and a real S3 server."""

import asyncio
import os

import pytest

from cache import bulk
from cache.errors import BlobNotFound, DigestMismatch, RecordConflict
from cache.oci.digest import Digest
from cache.store import ABSENT, CHUNK_BYTES

MIB = 1 << 20
SMALL = b"a small blob, smaller than any chunk"
NAME = "repositories/docker.io/library/debian/_tags/stable"


async def put(store, data, algorithm="sha256", expected=None, step_bytes=CHUNK_BYTES):
    digest = Digest.of(data, algorithm)
    async with store.writer(expected) as writer:
        for start in range(0, len(data), step_bytes):
            await writer.write(data[start : start + step_bytes])
        assert await writer.commit(digest) == len(data)
    return digest


async def store_as(store, data, digest, expected=None):
    async with store.writer(expected) as writer:
        await writer.write(data)
        await writer.commit(digest)


async def read(store, digest, start=0, stop=None):
    async with store.open(digest, start, stop) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def names(store, prefix):
    return sorted([name async for name in store.names(prefix)])


async def blobs(store):
    return {digest: size_bytes async for digest, size_bytes in store.blobs()}


@pytest.fixture(scope="module")
def large():
    """20 MiB that cannot be compressed: two parts of a multipart upload, and a rest."""
    return os.urandom(20 * MIB + 12345)


async def test_check_of_a_working_store(store):
    await store.check()
    await store.check()
    assert await names(store, "repositories/") == []
    assert await blobs(store) == {}


async def test_a_blob_comes_back_as_it_went_in(store):
    digest = await put(store, SMALL, step_bytes=7)
    assert await store.stat(digest) == len(SMALL)
    assert await read(store, digest) == SMALL
    assert await blobs(store) == {digest: len(SMALL)}


async def test_blobs_are_listed_in_order_from_anywhere(store):
    digests = sorted([await put(store, bytes([number])) for number in range(12)])
    first = str(digests[0])
    assert [digest async for digest, _ in store.blobs()] == digests
    assert [digest async for digest, _ in store.blobs(after=digests[7])] == digests[8:]
    for under in (first, first[:12], first[:9], first[:8], "sha256:", "sha256", "sha512:", "sha"):
        begins = [digest for digest in digests if str(digest).startswith(under)]
        assert [digest async for digest, _ in store.blobs(under)] == begins


async def test_an_absent_blob_is_absent(store):
    digest = Digest.of(b"never stored")
    assert await store.stat(digest) is None
    with pytest.raises(BlobNotFound, match=str(digest)):
        async with store.open(digest):
            pytest.fail("opened a blob that is not there")
    with pytest.raises(BlobNotFound):
        async with store.open(digest, 5, 5):
            pytest.fail("opened a blob that is not there")


async def test_ranges_give_what_there_is(store):
    digest = await put(store, SMALL)
    for start in (0, 3, 9, 35, 36, 1000):
        for stop in (None, 0, 1, 3, 9, 36, 40, 2000):
            assert await read(store, digest, start, stop) == SMALL[start:stop], (start, stop)


async def test_ranges_have_no_negative_bounds(store):
    digest = await put(store, SMALL)
    for start, stop in [(-1, None), (0, -1)]:
        with pytest.raises(ValueError, match="negative"):
            await read(store, digest, start, stop)


async def test_an_empty_blob(store):
    digest = await put(store, b"")
    assert await store.stat(digest) == 0
    for start, stop in [(0, None), (0, 10), (0, 0), (5, None)]:
        assert await read(store, digest, start, stop) == b""


async def test_wrong_bytes_are_refused_and_leave_nothing(store):
    wrong = Digest.of(b"something else")
    with pytest.raises(DigestMismatch) as caught:
        await store_as(store, SMALL, wrong)
    assert (caught.value.expected, caught.value.actual, caught.value.size) == (wrong, Digest.of(SMALL), len(SMALL))
    assert await store.stat(wrong) is None
    assert await blobs(store) == {}


@pytest.mark.parametrize("known", [True, False])
async def test_many_wrong_bytes_are_refused_and_leave_nothing(store, large, known):
    wrong = Digest.of(b"something else")
    with pytest.raises(DigestMismatch):
        await store_as(store, large, wrong, wrong if known else None)
    assert await store.stat(wrong) is None
    assert await blobs(store) == {}


async def test_nothing_is_there_before_the_commit_and_without_one(store, large):
    digest = Digest.of(large)
    async with store.writer(digest) as writer:
        await writer.write(large)
        assert await store.stat(digest) is None
    assert await store.stat(digest) is None
    assert await blobs(store) == {}


async def test_an_exception_in_the_block_leaves_nothing(store):
    async def fail():
        async with store.writer() as writer:
            await writer.write(SMALL)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await store.stat(Digest.of(SMALL)) is None


async def test_content_that_is_there_can_be_stored_again(store):
    digest = await put(store, SMALL)
    assert await put(store, SMALL) == digest
    assert await read(store, digest) == SMALL


@pytest.mark.parametrize("known", [True, False])
async def test_a_blob_of_many_parts(store, large, known):
    digest = Digest.of(large)
    assert await put(store, large, expected=digest if known else None, step_bytes=3 * MIB + 1) == digest
    assert await store.stat(digest) == len(large)
    assert await read(store, digest) == large
    assert await read(store, digest, 8 * MIB - 10, 8 * MIB + 10) == large[8 * MIB - 10 : 8 * MIB + 10]
    assert await blobs(store) == {digest: len(large)}
    await put(store, large, expected=digest if known else None)
    assert await blobs(store) == {digest: len(large)}


@pytest.mark.parametrize("known", [True, False])
async def test_sha512(store, large, known):
    for data in (SMALL, large):
        digest = Digest.of(data, "sha512")
        await put(store, data, "sha512", digest if known else None)
        assert await read(store, digest) == data
        assert await store.stat(Digest.of(data)) is None


async def test_many_bytes_with_a_wrong_sha512_leave_nothing(store, large):
    wrong = Digest.of(b"something else", "sha512")
    with pytest.raises(DigestMismatch):
        await store_as(store, large, wrong)
    assert await blobs(store) == {}


async def test_a_writer_for_one_digest_commits_no_other(store):
    with pytest.raises(ValueError, match="cannot commit"):
        await store_as(store, b"other", Digest.of(b"other"), Digest.of(b"one"))
    assert await blobs(store) == {}


async def test_writers_of_the_same_blob_at_once(store):
    data = os.urandom(3 * MIB)
    digests = await asyncio.gather(*(put(store, data, step_bytes=100_000 + n) for n in range(6)))
    assert set(digests) == {Digest.of(data)}
    assert await read(store, digests[0]) == data
    assert await blobs(store) == {digests[0]: len(data)}


async def test_large_writers_of_the_same_blob_at_once(store, large):
    digest = Digest.of(large)
    await asyncio.gather(put(store, large, expected=digest), put(store, large, expected=digest), put(store, large))
    assert await read(store, digest) == large


async def test_a_cancelled_writer_leaves_nothing(store, large):
    writing = asyncio.Event()

    async def write():
        async with store.writer() as writer:
            await writer.write(large[: 9 * MIB])
            writing.set()
            await writer.write(large)
            await asyncio.sleep(3600)

    task = asyncio.create_task(write())
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await blobs(store) == {}


async def test_a_reader_may_leave_early(store, large):
    digest = await put(store, large)
    async with store.open(digest) as chunks:
        async for chunk in chunks:
            assert large.startswith(chunk)
            break
    assert await read(store, digest, 0, 5) == large[:5]


async def test_many_readers_at_once(store, large):
    digest = await put(store, large)
    parts = await asyncio.gather(*(read(store, digest, n * MIB, (n + 2) * MIB) for n in range(18)))
    assert parts == [large[n * MIB : (n + 2) * MIB] for n in range(18)]


async def test_deleted_blobs_are_gone(store):
    digest = await put(store, SMALL)
    other = await put(store, b"other")
    await store.delete(digest)
    assert await store.stat(digest) is None
    assert await blobs(store) == {other: 5}
    await store.delete(digest)
    await put(store, SMALL)
    assert await read(store, digest) == SMALL


async def test_many_blobs_at_once(store):
    digests = [await put(store, b"blob %d" % number) for number in range(5)]
    absent = Digest.of(b"absent")
    assert await bulk.read_all(store, [digests[1], absent, digests[0]], 6) == [b"blob 1", None, b"blob 0"]
    assert await bulk.read_all(store, digests[:1], 4) == [b"blob"]
    await bulk.delete_all(store, [*digests[:3], absent])
    assert set(await blobs(store)) == set(digests[3:])
    assert [await store.stat(digest) is None for digest in digests] == [True] * 3 + [False] * 2
    await bulk.delete_all(store, digests[3:4])
    await bulk.delete_all(store, [])
    assert set(await blobs(store)) == set(digests[4:])


# Records


async def test_many_records_at_once(store):
    records = [f"repositories/docker.io/a/_tags/v{number}" for number in range(5)]
    for name in records[:4]:
        await store.put(name, name.encode())
    found = await bulk.get_all(store, records[::-1])
    assert [record and record.value for record in found] == [None, *(name.encode() for name in records[3::-1])]
    await bulk.remove_all(store, records[1:])
    assert await names(store, "repositories/") == records[:1]
    assert await store.put(records[1], b"again", ABSENT)


async def test_a_record_comes_back_with_its_version(store):
    assert await store.get(NAME) is None
    version = await store.put(NAME, b"one\ntwo\x00\xff")
    record = await store.get(NAME)
    assert (record.value, record.version) == (b"one\ntwo\x00\xff", version)


async def test_an_empty_record_is_not_an_absent_one(store):
    await store.put(NAME, b"")
    assert (await store.get(NAME)).value == b""


async def test_compare_and_swap(store):
    first = await store.put(NAME, b"1", ABSENT)
    with pytest.raises(RecordConflict, match=NAME):
        await store.put(NAME, b"x", ABSENT)
    second = await store.put(NAME, b"2", first)
    with pytest.raises(RecordConflict):
        await store.put(NAME, b"x", first)
    assert (await store.get(NAME)).value == b"2"
    third = await store.put(NAME, b"3")
    assert len({first, second, third}) == 3
    assert await store.get(NAME) is not None


async def test_a_value_that_comes_back_has_another_version(store):
    first = await store.put(NAME, b"same")
    await store.put(NAME, b"other")
    again = await store.put(NAME, b"same")
    assert again != first
    with pytest.raises(RecordConflict):
        await store.put(NAME, b"x", first)


async def test_a_version_of_a_removed_record_is_a_conflict(store):
    version = await store.put(NAME, b"1")
    await store.remove(NAME)
    with pytest.raises(RecordConflict):
        await store.put(NAME, b"2", version)
    assert await store.get(NAME) is None


async def test_removing_records(store):
    first = await store.put(NAME, b"1")
    second = await store.put(NAME, b"2")
    with pytest.raises(RecordConflict):
        await store.remove(NAME, first)
    assert (await store.get(NAME)).value == b"2"
    await store.remove(NAME, second)
    assert await store.get(NAME) is None
    await store.remove(NAME, second)
    await store.remove(NAME)
    await store.put(NAME, b"3", ABSENT)
    assert (await store.get(NAME)).value == b"3"


async def test_names(store):
    records = [
        "repositories/docker.io/a/_tags/v1",
        "repositories/docker.io/a/_tags/v1.0",
        "repositories/docker.io/a/b/_tags/v1",
        "repositories/docker.io/ab/_tags/v1",
        "repositories/localhost:5000/a/_tags/v1",
        "layers/ab/abcd",
    ]
    for name in records:
        await store.put(name, b"x")
    assert await names(store, "repositories/docker.io/a/_tags/") == records[:2]
    assert await names(store, "repositories/docker.io/a/") == records[:3]
    assert await names(store, "repositories/") == sorted(records[:5])
    assert await names(store, "repositories/docker.io/nothing/") == []
    with pytest.raises(ValueError, match="prefix"):
        await names(store, "repositories/docker.io/a")


REPOSITORIES = ["a", "a.b_c__d---e/f0/9", "x" * 200, "/".join(["deep"] * 40), "con/nul", "index.json"]


async def test_names_of_repositories(store):
    for repository in REPOSITORIES:
        name = f"repositories/localhost:5000/{repository}/_tags/{'T' * 128}"
        await store.put(name, repository.encode())
        assert (await store.get(name)).value == repository.encode()
        assert await names(store, f"repositories/localhost:5000/{repository}/_tags/") == [name]


async def test_names_that_could_leave_their_place_are_refused(store):
    for name in ("", "/", "a/../b", "../a", "a//b", "/a", "a/", "./a", "a\0b"):
        for refused in (store.get(name), store.put(name, b"x"), store.remove(name)):
            with pytest.raises(ValueError, match="record's name"):
                await refused


async def test_racing_increments_lose_nothing(store):
    async def increment():
        for _ in range(5):
            while True:
                record = await store.get(NAME)
                value = b"%d" % (int(record.value) + 1 if record else 1)
                try:
                    await store.put(NAME, value, record.version if record else ABSENT)
                except RecordConflict:
                    continue
                break

    await asyncio.gather(*(increment() for _ in range(8)))
    assert (await store.get(NAME)).value == b"40"


async def test_one_of_many_makes_a_record(store):
    results = await asyncio.gather(*(store.put(NAME, b"%d" % n, ABSENT) for n in range(10)), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, RecordConflict) for result in results) == 9
