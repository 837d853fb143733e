from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache.errors import StoreUnavailable
from cache.oci.digest import Digest
from proxy.transfer.spool import BATCH_BYTES, PIECE_BYTES, READ_BYTES, Spool
from proxy.transfer.spool_file import SpoolFile

DATA = bytes(range(256)) * 8192  # four batches


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as started:
        yield started


@pytest.fixture
def make(tmp_path: Path, threads: ThreadPoolExecutor):
    return lambda size_bytes: Spool(SpoolFile(None, tmp_path, "sha256"), size_bytes, threads)


async def collect(spool: Spool, start: int, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in spool.read(start, stop)])


@pytest.mark.parametrize("step", [1000, PIECE_BYTES, 100_000, BATCH_BYTES + 1])
async def test_readers_follow_what_is_appended(make, tmp_path: Path, step: int):
    spool = make(len(DATA))
    parts = [(0, len(DATA)), (100, 600_000), (900_000, len(DATA)), (0, None)]
    readers = [asyncio.create_task(collect(spool, *part)) for part in parts]
    for start in range(0, len(DATA), step):
        await spool.append(DATA[start : start + step])
        await asyncio.sleep(0)
    assert await spool.digest("sha256") == Digest.of(DATA)
    assert await spool.digest("sha512") == Digest.of(DATA, "sha512")
    spool.seal()
    assert await asyncio.gather(*readers) == [DATA, DATA[100:600_000], DATA[900_000:], DATA]
    assert await collect(spool, 5, 2_000_000) == DATA[5:2_000_000]
    assert list(tmp_path.iterdir()) == []


async def test_what_has_come_is_read_before_it_is_written(make):
    spool = make(BATCH_BYTES)
    await spool.append(DATA[:1000])
    assert await collect(spool, 10, 1000) == DATA[10:1000]
    assert spool.buffered_bytes == 1000


async def test_memory_holds_one_batch_and_readers_take_bounded_pieces(make):
    spool = make(len(DATA))
    for start in range(0, len(DATA), 10_000):
        await spool.append(DATA[start : start + 10_000])
        assert spool.buffered_bytes < BATCH_BYTES + 10_000
    assert max([len(piece) async for piece in spool.read(0, BATCH_BYTES)]) == READ_BYTES


async def test_what_is_on_the_disk_comes_as_a_place_in_the_file(make):
    spool = make(len(DATA))
    await spool.append(DATA[:BATCH_BYTES])
    await spool.append(DATA[BATCH_BYTES : BATCH_BYTES + 1000])
    on_disk, in_memory = [part async for part in spool.parts(10, BATCH_BYTES + 500)]
    assert os.pread(on_disk.file.fileno(), BATCH_BYTES, on_disk.start) == DATA[10:BATCH_BYTES]
    assert (on_disk.start, on_disk.stop) == (10, BATCH_BYTES)
    assert in_memory == DATA[BATCH_BYTES : BATCH_BYTES + 500]


@pytest.mark.parametrize("announced", [True, False])
async def test_the_last_byte_of_an_announced_size_waits_for_the_seal(make, announced: bool):
    spool = make(3 if announced else None)
    await spool.append(b"abc")
    pieces = spool.read(0)
    assert await anext(pieces) == (b"ab" if announced else b"abc")
    last = asyncio.ensure_future(anext(pieces, b"the end"))
    await asyncio.sleep(0.01)
    assert not last.done()
    spool.seal()
    assert await last == (b"c" if announced else b"the end")


@pytest.mark.parametrize("size_bytes", [0, 3])
async def test_a_failure_reaches_every_reader(make, size_bytes: int):
    spool = make(size_bytes)
    await spool.append(b"x" * size_bytes)
    readers = [asyncio.create_task(collect(spool, 0, size_bytes)) for _ in range(3)]
    await asyncio.sleep(0.01)
    spool.fail(ConnectionError("gone"))
    for reader in readers:
        with pytest.raises(ConnectionError, match="gone"):
            await reader
    with pytest.raises(ConnectionError, match="gone"):
        await spool.wait_sealed()
    with pytest.raises(ConnectionError, match="gone"):
        await spool.digest("sha256")


async def test_a_disk_that_takes_nothing(make, monkeypatch: pytest.MonkeyPatch):
    spool = make(3)
    await spool.append(b"abc")
    monkeypatch.setattr("os.pwrite", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await spool.digest("sha256")
