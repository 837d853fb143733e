"""What only the store in a directory does: crashes, full and unwritable disks, several processes, local paths."""

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cache import paths
from cache.disk import blob_files, durable, filesystem
from cache.disk.filesystem import FilesystemStore
from cache.errors import DamagedRecord, SizeMismatch, StoreFull, StoreUnavailable
from cache.oci.digest import Digest
from cache.store import Enumerable, LocalPaths

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NOBODY = 65534


@pytest.fixture
async def store(tmp_path):
    made = FilesystemStore(tmp_path / "store")
    yield made
    await made.close()


def start(program, *args):
    command = [sys.executable, str(HERE / program), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})


async def put(store, data):
    digest = Digest.of(data)
    async with store.writer() as writer:
        await writer.write(data)
        await writer.commit(digest)
    return digest


def incoming(tmp_path):
    return sorted((tmp_path / "store" / paths.TEMPORARY).iterdir())


async def test_whatever_is_killed_every_blob_matches_its_digest(tmp_path):
    chance = random.Random(7)
    root = tmp_path / "store"
    for number in range(20):
        with start("crash_writer.py", root) as process:
            assert process.stdout.readline() == b"ready\n"
            while len(list((root / paths.BLOBS).rglob("*"))) <= 4 * number:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
    found = 0
    store = FilesystemStore(root)
    async for digest, size_bytes in store.blobs():
        content = store.local_path(digest).read_bytes()
        assert (Digest.of(content), len(content)) == (digest, size_bytes)
        found += 1
    assert found > 20, "the writers were killed before they wrote anything"
    await asyncio.to_thread(_check_records, store)
    assert await store.stat(await put(store, b"it works on")) == 11
    await store.close()


def _check_records(store):
    async def check():
        async for name in store.names("layers/"):
            value = (await store.get(name)).value
            assert value == value[: len(value) // 10_000] * 10_000
            await store.put(name, b"it works on")

    asyncio.run(check())


async def test_processes_that_count_up_lose_nothing(tmp_path):
    processes = [start("count_up.py", tmp_path / "store", 40) for _ in range(3)]
    for process in processes:
        with process:
            await asyncio.to_thread(process.wait)
            assert process.returncode == 0
    store = FilesystemStore(tmp_path / "store")
    assert (await store.get("layers/ab/count")).value == b"120"
    await store.close()


async def test_content_is_on_the_disk_before_it_has_its_name(store, monkeypatch):
    """And none of that happens on the event loop's thread."""
    calls = []

    def spy(module, name, describe):
        real = getattr(module, name)

        def recorded(*args):
            assert threading.current_thread() is not threading.main_thread()
            calls.append(describe(*args))
            return real(*args)

        monkeypatch.setattr(module, name, recorded)

    spy(os, "fsync", lambda fd: "sync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
    spy(os, "replace", lambda source, target: "rename")
    await store.put("layers/ab/first", b"makes all directories but the blob's")
    await put(store, b"first")
    for write in (put(store, b"first"), store.put("layers/ab/first", b"again")):
        calls.clear()
        await write
        assert calls == ["sync file", "rename", "sync directory"]


async def test_new_directories_are_on_the_disk_too(store, tmp_path, monkeypatch):
    synced = set()
    real = durable.sync_directory
    monkeypatch.setattr(durable, "sync_directory", lambda path: (synced.add(path), real(path)))
    digest = await put(store, b"first")
    blob = store.local_path(digest)
    assert synced >= {parent for parent in blob.parents if parent.is_relative_to(tmp_path)}


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreUnavailable)]
)
async def test_a_disk_that_fails(store, tmp_path, monkeypatch, code, kind):
    kept = await put(store, b"stored while there was room")

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        for write in (put(store, b"x" * 3_000_000), store.put("layers/ab/x", b"x")):
            with pytest.raises(StoreUnavailable, match=rf"file://{tmp_path}/store .*{os.strerror(code)}") as caught:
                await write
            assert type(caught.value) is kind
    assert incoming(tmp_path) == []
    assert await store.get("layers/ab/x") is None
    assert [digest async for digest, _ in store.blobs()] == [kept]


async def test_a_directory_that_may_not_be_written(store, tmp_path):
    (tmp_path / "store").mkdir()
    with as_nobody(tmp_path):
        for write in (store.check(), put(store, b"x"), store.put("layers/ab/x", b"x")):
            with pytest.raises(StoreUnavailable, match=rf"store file://{tmp_path}/store failed to .*Permission denied"):
                await write
    await store.check()


@contextlib.contextmanager
def as_nobody(directory):
    """Root may write everywhere, so it becomes somebody else; others lose their write permission."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        (directory / "store").chmod(0o500)
        try:
            yield
        finally:
            (directory / "store").chmod(0o700)


async def test_a_file_in_place_of_the_directory(store, tmp_path):
    (tmp_path / "store").write_text("not a directory")
    for failing in (store.check(), store.stat(Digest.of(b"")), store.get("layers/ab/x"), put(store, b"x")):
        with pytest.raises(StoreUnavailable, match=r"Not a directory|File exists"):
            await failing


async def test_an_unreadable_blob_is_not_an_absent_one(store, monkeypatch):
    digest = await put(store, b"content")

    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    async with store.open(digest) as chunks:
        with pytest.raises(StoreUnavailable, match=f"read {digest}"):
            await anext(chunks)


async def test_reading_writes_nothing(store, tmp_path):
    assert await store.stat(Digest.of(b"x")) is None
    assert await store.get("layers/ab/x") is None
    assert store.local_path(Digest.of(b"x")) is None
    assert not (tmp_path / "store").exists()


async def test_leftovers_go_after_a_day(store, tmp_path):
    await put(store, b"makes the directories")
    old, young = (tmp_path / "store" / paths.TEMPORARY / name for name in ("old", "young"))
    for path, age_s in ((old, blob_files.LEFTOVER_AGE_S + 60), (young, blob_files.LEFTOVER_AGE_S - 600)):
        path.write_bytes(b"rubbish, perhaps")
        os.utime(path, (time.time() - age_s,) * 2)
    reopened = FilesystemStore(tmp_path / "store")
    await reopened.check()
    assert incoming(tmp_path) == [young]
    await reopened.close()


async def test_writers_that_end_leave_nothing_behind(store, tmp_path):
    async with store.writer() as writer:
        await writer.write(b"x" * 2_000_000)
        assert len(incoming(tmp_path)) == 1
    await put(store, b"y" * 2_000_000)
    assert incoming(tmp_path) == []


async def test_optional_protocols(store):
    assert isinstance(store, LocalPaths)
    assert isinstance(store, Enumerable)


async def test_local_paths(store):
    digest = await put(store, b"content")
    assert store.local_path(digest).read_bytes() == b"content"
    assert stat.S_IMODE(store.local_path(digest).stat().st_mode) & 0o022 == 0
    await store.delete(digest)
    assert store.local_path(digest) is None


async def test_adopting_a_finished_file(store, tmp_path):
    path = store.incoming()
    path.write_bytes(b"a layer")
    digest = Digest.of(b"a layer")
    with pytest.raises(SizeMismatch):
        store.adopt(path, digest, 8)
    store.adopt(path, digest, 7)
    assert await store.stat(digest) == 7
    assert incoming(tmp_path) == []


async def test_a_blob_that_is_replaced_can_be_read_on(store):
    data = os.urandom(3 << 20)
    digest = await put(store, data)
    read = hashlib.sha256()
    async with store.open(digest) as chunks:
        read.update(await anext(chunks))
        await put(store, data)
        await store.delete(digest)
        async for chunk in chunks:
            read.update(chunk)
    assert read.hexdigest() == digest.hex


async def test_a_damaged_record_is_not_an_absent_one(store, tmp_path):
    await store.put("layers/ab/x", b"value")
    path = tmp_path / "store" / paths.record("layers/ab/x")
    for damage in (b"", path.read_bytes()[:10], b"\n", b"value"):
        path.write_bytes(damage)
        with pytest.raises(DamagedRecord, match="layers/ab/x"):
            await store.get("layers/ab/x")
    await store.put("layers/ab/x", b"healed")
    assert (await store.get("layers/ab/x")).value == b"healed"


async def test_other_files_among_the_blobs_are_not_blobs(store, tmp_path):
    digest = await put(store, b"content")
    store.local_path(digest).with_name("README").write_text("not a blob")
    (tmp_path / "store" / paths.BLOBS / "sha256" / "file").write_text("not a directory")
    assert [found async for found in store.blobs()] == [(digest, 7)]


@pytest.mark.parametrize("what", ["records", "blobs"])
async def test_a_deletion_that_is_cancelled_goes_no_further_than_its_piece(store, monkeypatch, what):
    """gc gives up a deletion that takes too long, and another may begin it anew: the first must not go on then."""
    names = [f"layers/ab/{number:03}" for number in range(250)]
    digests = [await put(store, b"%d" % number) for number in range(250)] if what == "blobs" else []
    for name in names if what == "records" else []:
        await store.put(name, b"x")
    begun, may_go_on = threading.Event(), threading.Event()
    unlink = Path.unlink

    def slow(path, missing_ok=False):
        begun.set()
        may_go_on.wait(10)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", slow)
    deleting = asyncio.create_task(store.remove_all(names) if what == "records" else store.delete_all(digests))
    await asyncio.to_thread(begun.wait, 10)
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    may_go_on.set()
    await store.close()
    left = store._records.under("layers/") if what == "records" else filter(store.local_path, digests)
    assert len(list(left)) == 250 - filesystem.DELETE_PIECE
