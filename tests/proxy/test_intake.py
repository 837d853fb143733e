"""Bytes that come in: read while they come, verified, written once, stored; whatever the store does."""

from __future__ import annotations

import asyncio
import os
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cache.disk.filesystem import FilesystemStore
from cache.errors import DigestMismatch, SizeMismatch, StoreFull, StoreUnavailable
from cache.memory import MemoryStore
from cache.oci.digest import Digest
from cache.store import BlobStore
from proxy.transfer.intake import Intake, Intakes
from proxy.transfer.spool import BATCH_BYTES, READ_BYTES
from tests.proxy.leaks import incoming, nothing_left

DATA = random.Random(3).randbytes(2_500_000)
DIGEST = Digest.of(DATA)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FilesystemStore]:
    opened = FilesystemStore(tmp_path / "store")
    yield opened
    await opened.close()


@pytest.fixture
async def intakes(store: FilesystemStore, tmp_path: Path) -> AsyncIterator[Intakes]:
    opened = Intakes(store, tmp_path)
    async with nothing_left(tmp_path / "store"):
        yield opened
    await opened.close()


async def take(intake: Intake, data: bytes, step: int = 100_000) -> None:
    for start in range(0, len(data), step):
        await intake.take(data[start : start + step])


async def content(store: BlobStore, digest: Digest) -> bytes:
    async with store.open(digest) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("expected", [DIGEST, None])
async def test_a_store_of_files_keeps_the_very_file(
    intakes: Intakes, store: FilesystemStore, tmp_path: Path, expected: Digest | None
):
    async with intakes.open(expected, None if expected is None else len(DATA)) as intake:
        await take(intake, DATA)
        (name,) = incoming(tmp_path / "store")
        inode = (tmp_path / "store/v1/incoming" / name).stat().st_ino
        await intake.verify(DIGEST)
        assert await intake.store(DIGEST)
        path = store.local_path(DIGEST)
        assert path is not None
        assert path.stat().st_ino == inode
        assert b"".join([piece async for piece in intake.spool.read(0)]) == DATA
    assert await content(store, DIGEST) == DATA


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_another_store_is_sent_a_copy(tmp_path: Path, algorithm: str):
    memory, digest = MemoryStore(), Digest.of(DATA, algorithm)
    intakes = Intakes(memory, tmp_path)

    async def bring() -> None:
        async with intakes.open() as intake:
            await take(intake, DATA)
            await intake.verify(digest)
            assert await intake.store(digest)

    async with nothing_left(tmp_path):
        await bring()
    assert await content(memory, digest) == DATA
    assert not list(tmp_path.iterdir())
    await intakes.close()


@pytest.mark.parametrize("expected", [Digest.of(DATA, "sha512"), None])
async def test_sha512_whether_announced_or_not(intakes: Intakes, store: FilesystemStore, expected: Digest | None):
    async with intakes.open(expected) as intake:
        await take(intake, DATA)
        await intake.verify(Digest.of(DATA, "sha512"))
        assert await intake.store(Digest.of(DATA, "sha512"))
    assert await content(store, Digest.of(DATA, "sha512")) == DATA


async def bring(intakes: Intakes, expected: Digest, size_bytes: int, readers: list[asyncio.Task[bytes]]) -> None:
    """Brings DATA in as something that it may not be; what follows it goes into ``readers``."""

    async def follow() -> bytes:
        seen = bytearray()
        try:
            async for piece in intake.spool.read(0):
                seen += piece
        except (DigestMismatch, SizeMismatch):
            return bytes(seen)
        raise AssertionError("a follower was shown the whole")

    async with intakes.open(expected, size_bytes) as intake:
        readers.append(asyncio.create_task(follow()))
        await take(intake, DATA)
        await intake.verify(expected)


@pytest.mark.parametrize(
    ("expected", "announced_bytes", "error"),
    [
        (Digest.of(b"other"), len(DATA), DigestMismatch),
        (DIGEST, len(DATA) - 1, SizeMismatch),
        (DIGEST, len(DATA) + 1, SizeMismatch),
    ],
)
async def test_wrong_content_is_neither_shown_whole_nor_stored(
    intakes: Intakes, store: FilesystemStore, expected: Digest, announced_bytes: int, error: type[Exception]
):
    readers: list[asyncio.Task[bytes]] = []
    with pytest.raises(error):
        await bring(intakes, expected, announced_bytes, readers)
    seen = await readers[0]
    assert DATA.startswith(seen)
    assert len(seen) < announced_bytes
    assert await store.stat(expected) is None


async def test_a_transfer_that_is_given_up_fails_its_readers(intakes: Intakes):
    async with intakes.open(DIGEST, len(DATA)) as intake:
        await take(intake, DATA)
        async with aclosing(intake.spool.read(0)) as pieces:
            await anext(pieces)
            reader = asyncio.create_task(intake.spool.wait_sealed())
    with pytest.raises(StoreUnavailable, match="given up"):
        await reader


async def test_a_disk_that_becomes_full_on_the_way(
    intakes: Intakes, store: FilesystemStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The bytes go on elsewhere, who reads notices nothing, and the store's disk gets its room back."""
    written, pwrite = 0, os.pwrite

    def full_at_a_million(fd: int, data: bytes, offset: int) -> int:
        nonlocal written
        if "/incoming/" in os.readlink(f"/proc/self/fd/{fd}"):
            if written >= 1_000_000:
                raise OSError(28, "No space left on device")
            written += len(data)
        return pwrite(fd, data, offset)

    monkeypatch.setattr("os.pwrite", full_at_a_million)
    async with intakes.open(DIGEST, len(DATA)) as intake, aclosing(intake.spool.read(0)) as pieces:
        got = bytearray()
        for start in range(0, len(DATA), 100_000):
            await intake.take(DATA[start : start + 100_000])
            got += await anext(pieces)
        assert not incoming(tmp_path / "store")
        await intake.verify(DIGEST)
        async for piece in pieces:
            got += piece
        assert bytes(got) == DATA
        assert not await intake.store(DIGEST)
    assert await store.stat(DIGEST) is None


async def test_a_store_that_gives_no_file_and_one_that_does_not_take_it(
    intakes: Intakes, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> Path:
        raise StoreFull("file:///full", "be written")

    for method in ("incoming", "adopt"):
        with monkeypatch.context() as patch:
            patch.setattr(store, method, fail)
            async with intakes.open(DIGEST, len(DATA)) as intake:
                await take(intake, DATA)
                await intake.verify(DIGEST)
                assert not await intake.store(DIGEST)
                assert b"".join([piece async for piece in intake.spool.read(0)]) == DATA
        assert await store.stat(DIGEST) is None


async def test_many_at_once_stay_in_bounded_memory(intakes: Intakes):
    """Twelve blobs of six batches, each with two readers: what is held at a time is some pieces of each."""
    count, size_bytes = 12, 6 * BATCH_BYTES
    chunk = bytes(64 * 1024)

    async def one() -> None:
        async with intakes.open(None, size_bytes) as intake:

            async def follow() -> int:
                return sum([len(piece) async for piece in intake.spool.read(0)])

            followers = [asyncio.create_task(follow()) for _ in range(2)]
            for _ in range(size_bytes // len(chunk)):
                await intake.take(bytes(chunk))
                await asyncio.sleep(0)
            await intake.verify(Digest.of(bytes(size_bytes)))
            assert await asyncio.gather(*followers) == [size_bytes] * 2

    tracemalloc.start()
    try:
        await asyncio.gather(*(one() for _ in range(count)))
        assert tracemalloc.get_traced_memory()[1] < count * (BATCH_BYTES + 3 * READ_BYTES + size_bytes / 4)
    finally:
        tracemalloc.stop()
