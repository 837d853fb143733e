"""A local disk in front of a slower store: what is asked of which, what stays, and what a failing disk costs."""

import asyncio
import errno
import os
from contextlib import asynccontextmanager

import pytest

from cache import paths
from cache.disk.tier import DiskTier
from cache.disk.tiered import AHEAD_BYTES, TieredStore
from cache.errors import BlobNotFound, DigestMismatch, StoreUnavailable
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from cache.record_memory import RecordMemory
from cache.store import CHUNK_BYTES, Enumerable, LocalPaths, Presigned, Record, Sweepable
from tests.cache.s3_use import MIB, put, read

MEMBER = f"repositories/docker.io/library/debian/_members/sha256/{'a' * 64}"
HOSTED_MEMBER = f"repositories/{paths.HOSTED}/cache/app/_members/sha256/{'a' * 64}"
TAG = "repositories/docker.io/library/debian/_tags/stable"


class Slow(MemoryStore):
    """A lower store that counts what it is asked, and can be made to wait or fail."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False

    def _note(self, what):
        self.asked.append(what)
        if self.failing:
            raise StoreUnavailable(self.url, what)

    async def stat(self, digest):
        self._note("stat")
        return await super().stat(digest)

    @asynccontextmanager
    async def open(self, digest, start=0, stop=None):
        self._note(f"open {start}")
        async with super().open(digest, start, stop) as chunks:
            yield self._slowly(chunks)

    async def _slowly(self, chunks):
        async for chunk in chunks:
            await self.gate.wait()
            yield chunk

    async def get(self, name):
        self._note("get")
        return await super().get(name)


@pytest.fixture
def lower():
    return Slow()


@pytest.fixture
async def tiered(lower, tmp_path):
    async with running(lower, tmp_path) as store:
        yield store


@asynccontextmanager
async def running(lower, directory, size_bytes=20 * MIB):
    store = TieredStore(lower, DiskTier(directory / "disk", size_bytes))
    await store.check()
    await store.settled()
    try:
        yield store
    finally:
        await store.close()


async def lay(store, *sizes):
    """Blobs of these sizes, written to ``store``."""
    return [await put(store, os.urandom(size_bytes)) for size_bytes in sizes]


def disk_bytes(directory):
    return sum(path.stat().st_size for path in (directory / "disk" / paths.BLOBS).rglob("*") if path.is_file())


async def test_optional_protocols(tiered):
    for kind in (LocalPaths, Enumerable, Presigned, Sweepable):
        assert isinstance(tiered, kind)
    assert await tiered.presigned_url(Digest.of(b"x"), 60) is None
    assert (await tiered.sweep(0.0)).files == 0


async def test_a_blob_is_fetched_once_and_then_sent_from_the_disk(lower, tiered):
    (digest,) = await lay(lower, 3 * MIB)
    assert tiered.local_path(digest) is None
    content = await read(tiered, digest)
    await tiered.settled()
    assert lower.asked == ["stat", "open 0"]
    assert tiered.local_path(digest).read_bytes() == content
    assert await read(tiered, digest, 5, 100) == content[5:100]
    assert await tiered.stat(digest) == 3 * MIB
    assert lower.asked == ["stat", "open 0"]


async def test_what_is_written_goes_to_both(lower, tiered):
    (digest,) = await lay(tiered, 3 * MIB)
    assert await lower.stat(digest) == 3 * MIB
    await tiered.settled()
    lower.asked.clear()
    assert Digest.of(tiered.local_path(digest).read_bytes()) == digest
    assert await tiered.stat(digest) == 3 * MIB
    assert Digest.of(await read(tiered, digest)) == digest
    assert lower.asked == []


async def test_all_who_read_meanwhile_follow_one_copy(lower, tiered):
    (digest,) = await lay(lower, 5 * MIB)
    lower.gate.clear()
    reads = [asyncio.create_task(read(tiered, digest, start)) for start in (0, 0, 0, MIB)]
    for _ in range(10):
        await asyncio.sleep(0)
    lower.gate.set()
    contents = await asyncio.gather(*reads)
    assert {Digest.of(content) for content in contents[:3]} == {digest}
    assert contents[3] == contents[0][MIB:]
    assert lower.asked.count("open 0") == 1


async def test_a_copy_goes_on_when_its_first_reader_leaves(lower, tiered):
    (digest,) = await lay(lower, 5 * MIB)
    async with tiered.open(digest) as chunks:
        await anext(chunks)
    await tiered.settled()
    assert tiered.local_path(digest) is not None


async def test_a_read_from_inside_copies_nothing(lower, tiered):
    (digest,) = await lay(lower, 3 * MIB)
    assert len(await read(tiered, digest, 10, 20)) == 10
    await tiered.settled()
    assert lower.asked == ["open 10"]
    assert tiered.local_path(digest) is None


async def test_a_reader_far_ahead_of_the_copy_does_not_wait_for_it(lower, tmp_path):
    async with running(lower, tmp_path, 200 * MIB) as tiered:
        (digest,) = await lay(lower, AHEAD_BYTES + 2 * MIB)
        lower.gate.clear()
        slow = asyncio.create_task(read(tiered, digest))
        while "open 0" not in lower.asked:
            await asyncio.sleep(0.001)
        ahead = asyncio.create_task(read(tiered, digest, AHEAD_BYTES + MIB))
        while f"open {AHEAD_BYTES + MIB}" not in lower.asked:
            await asyncio.sleep(0.001)
        lower.gate.set()
        assert (await slow)[AHEAD_BYTES + MIB :] == await ahead


async def test_a_blob_that_is_not_there(lower, tiered):
    digest = Digest.of(b"nowhere")
    assert await tiered.stat(digest) is None
    for start in (0, 10):
        with pytest.raises(BlobNotFound):
            await read(tiered, digest, start)


async def test_bytes_stay_below_the_bound_and_the_oldest_goes(lower, tiered, tmp_path):
    digests = await lay(tiered, *[4 * MIB] * 4)
    await tiered.settled()
    assert await read(tiered, digests[0], 0, 1)  # used, so it stays
    digests += await lay(lower, *[4 * MIB] * 2)
    for digest in digests[4:]:
        await read(tiered, digest)
        await tiered.settled()
        assert disk_bytes(tmp_path) <= 20 * MIB
    held = [tiered.local_path(digest) is not None for digest in digests]
    assert held == [True, False, False, True, True, True]
    for digest in digests:
        assert Digest.of(await read(tiered, digest)) == digest


async def test_what_would_fill_most_of_the_disk_is_not_kept(lower, tiered, tmp_path):
    digests = [*await lay(lower, 11 * MIB), *await lay(tiered, 11 * MIB)]
    for digest in digests:
        assert Digest.of(await read(tiered, digest)) == digest
    await tiered.settled()
    assert disk_bytes(tmp_path) == 0


async def test_what_is_being_read_stays(lower, tiered):
    first, *others = await lay(tiered, 9 * MIB, 9 * MIB, 9 * MIB)
    await tiered.settled()
    digest = others[1]
    assert tiered.local_path(digest) is not None
    async with tiered.open(digest) as chunks:
        await anext(chunks)
        for wanted in (first, others[0], first):
            await read(tiered, wanted)
            await tiered.settled()
        assert tiered.local_path(digest) is not None
        assert sum([len(chunk) async for chunk in chunks]) > 0


async def test_what_was_there_is_found_again_in_its_order(lower, tmp_path):
    async with running(lower, tmp_path) as tiered:
        digests = await lay(tiered, *[4 * MIB] * 4)
        await tiered.settled()
        for digest in (digests[2], digests[0]):
            os.utime(tiered.local_path(digest), (1, 1))
        disk = tmp_path / "disk"
        (disk / paths.BLOBS / "sha256" / "ab").mkdir(exist_ok=True)
        (disk / paths.BLOBS / "sha256" / "ab" / "README").write_text("not a blob")
        (disk / paths.TEMPORARY / "left").write_bytes(b"by a dead process")
    async with running(lower, tmp_path, 12 * MIB) as tiered:
        held = [tiered.local_path(digest) is not None for digest in digests]
        assert sum(held) == 2
        assert not (disk / paths.TEMPORARY / "left").exists()
        assert disk_bytes(tmp_path) <= 12 * MIB + 100


async def test_a_check_does_not_wait_for_the_disk(lower, tmp_path, monkeypatch):
    looking, found = asyncio.Event(), asyncio.Event()

    async def take_over(self):
        looking.set()
        await found.wait()

    monkeypatch.setattr(DiskTier, "_take_over", take_over)
    store = TieredStore(lower, DiskTier(tmp_path / "disk", 20 * MIB))
    await store.check()
    await looking.wait()
    (digest,) = await lay(store, MIB)
    assert Digest.of(await read(store, digest)) == digest
    found.set()
    await store.close()


async def test_a_directory_has_one_owner(lower, tmp_path):
    async with running(lower, tmp_path), running(lower, tmp_path) as second:
        (digest,) = await lay(second, MIB)
        assert Digest.of(await read(second, digest)) == digest
        await second.settled()
        assert second.local_path(digest) is None


async def test_a_deleted_blob_is_gone_from_both(lower, tiered):
    (digest,) = await lay(tiered, MIB)
    await tiered.settled()
    await tiered.delete(digest)
    assert await tiered.stat(digest) is None
    assert tiered.local_path(digest) is None
    with pytest.raises(BlobNotFound):
        await read(tiered, digest)


async def test_whether_a_blob_is_there_is_the_lower_stores_word(lower, tiered):
    (digest,) = await lay(tiered, MIB)
    await tiered.settled()
    await lower.delete(digest)
    tiered._stats.clear()  # what was asked is believed for a while only
    assert await tiered.stat(digest) is None
    assert tiered.local_path(digest) is None


async def test_the_disk_serves_while_the_lower_store_fails(lower, tiered):
    (digest,) = await lay(tiered, MIB)
    await tiered.settled()
    lower.failing = True
    tiered._stats.clear()
    assert await tiered.stat(digest) == MIB
    assert Digest.of(await read(tiered, digest)) == digest
    with pytest.raises(StoreUnavailable):
        await tiered.stat(Digest.of(b"another"))


# A disk that fails


def fail_writes(monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("cache.disk.growing.os.pwrite", refuse)
    monkeypatch.setattr("cache.disk.copying.os.write", refuse)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_takes_nothing_costs_no_read_and_no_write(lower, tiered, tmp_path, monkeypatch, number):
    (before,) = await lay(tiered, 9 * MIB)
    await tiered.settled()
    fail_writes(monkeypatch, number)
    (held,) = await lay(lower, 3 * MIB)
    assert Digest.of(await read(tiered, held)) == held
    (written,) = await lay(tiered, 3 * MIB)
    assert await lower.stat(written) == 3 * MIB
    await tiered.settled()
    assert Digest.of(await read(tiered, before)) == before
    assert not any((tmp_path / "disk" / paths.TEMPORARY).iterdir())
    lower.asked.clear()
    await read(tiered, held)
    assert lower.asked == ["open 0"]  # nothing is copied for a while


async def test_a_full_disk_gets_room_back(lower, tmp_path, monkeypatch):
    async with running(lower, tmp_path) as tiered:
        await lay(tiered, *[4 * MIB] * 4)
        await tiered.settled()
        fail_writes(monkeypatch, errno.ENOSPC)
        (digest,) = await lay(lower, MIB)
        await read(tiered, digest)
    assert disk_bytes(tmp_path) < 16 * MIB


async def test_a_file_that_is_gone_or_cannot_be_read_is_read_below(lower, tiered, monkeypatch):
    digests = await lay(tiered, 3 * MIB, 3 * MIB)
    await tiered.settled()
    tiered.local_path(digests[0]).unlink()
    assert Digest.of(await read(tiered, digests[0])) == digests[0]

    real = os.pread

    def damaged(fd, size_bytes, start):
        if start >= CHUNK_BYTES:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size_bytes, start)

    monkeypatch.setattr("cache.disk.blob_files.os.pread", damaged)
    lower.asked.clear()
    assert Digest.of(await read(tiered, digests[1])) == digests[1]
    assert lower.asked == [f"open {CHUNK_BYTES}"]


async def test_a_blob_that_is_damaged_below_is_not_kept_and_never_whole(lower, tiered):
    (digest,) = await lay(lower, 3 * MIB)
    lower._blobs[digest] = b"x" + lower._blobs[digest][1:]
    seen = []

    async def follow():
        async with tiered.open(digest) as chunks:
            async for chunk in chunks:
                seen.append(len(chunk))  # noqa: PERF401 - what came before the error counts

    with pytest.raises(DigestMismatch):
        await follow()
    assert 0 < sum(seen) < 3 * MIB
    await tiered.settled()
    assert tiered.local_path(digest) is None


async def test_a_lower_store_that_fails_is_a_failure(lower, tiered):
    (digest,) = await lay(lower, MIB)
    await tiered.stat(digest)
    lower.failing = True
    with pytest.raises(StoreUnavailable):
        await read(tiered, digest)


# Records


async def test_members_of_upstreams_repositories_are_remembered(lower, tiered):
    await tiered.put(MEMBER, b"1")
    for _ in range(3):
        assert (await tiered.get(MEMBER)).value == b"1"
    assert lower.asked == ["get"]
    await tiered.put(MEMBER, b"2")
    assert (await tiered.get(MEMBER)).value == b"2"
    await tiered.remove(MEMBER)
    assert await tiered.get(MEMBER) is None


@pytest.mark.parametrize("name", [TAG, HOSTED_MEMBER, "layers/ab/abcd"])
async def test_what_may_change_is_always_asked_for(lower, tiered, name):
    await tiered.put(name, b"1")
    await tiered.get(name)
    await lower.put(name, b"2")  # another replica
    assert (await tiered.get(name)).value == b"2"


async def test_a_record_that_changes_while_it_is_fetched_is_not_remembered(lower, tiered, monkeypatch):
    await tiered.put(MEMBER, b"1")
    fetched, go_on = asyncio.Event(), asyncio.Event()
    real = lower.get

    async def slowly(name):
        record = await real(name)
        fetched.set()
        await go_on.wait()
        return record

    monkeypatch.setattr(lower, "get", slowly)
    reading = asyncio.create_task(tiered.get(MEMBER))
    await fetched.wait()
    await tiered.put(MEMBER, b"2")
    go_on.set()
    assert (await reading).value == b"1"
    assert (await tiered.get(MEMBER)).value == b"2"


async def test_records_in_memory_are_bounded():
    memory = RecordMemory(limit_bytes=10_000)
    for number in range(1000):
        memory.remember(f"name {number}", Record(b"x" * 100, "1"), memory.changes)
    kept = [number for number in range(1000) if memory.get(f"name {number}")]
    assert 10 <= len(kept) <= 20
    memory.remember("large", Record(b"x" * 20_000, "1"), memory.changes)
    assert memory.get("large") is None
