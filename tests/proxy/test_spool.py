from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cache.errors import StoreUnavailable
from cache.oci.digest import Digest
from proxy.spool import Spool


async def collect(spool: Spool, start: int, stop: int) -> bytes:
    return b"".join([piece async for piece in spool.read(start, stop)])


async def test_readers_follow_what_is_appended(tmp_path: Path):
    data = bytes(range(256)) * 40
    spool = Spool(tmp_path, len(data))
    readers = [asyncio.create_task(collect(spool, *part)) for part in ((0, len(data)), (100, 5000), (9000, len(data)))]
    for start in range(0, len(data), 1000):
        await spool.append(data[start : start + 1000])
        await asyncio.sleep(0)
    spool.seal()
    assert await asyncio.gather(*readers) == [data, data[100:5000], data[9000:]]
    assert await spool.digest("sha256") == Digest.of(data)
    assert list(tmp_path.iterdir()) == []


async def test_the_last_byte_waits_for_the_seal(tmp_path: Path):
    spool = Spool(tmp_path, 3)
    await spool.append(b"abc")
    pieces = spool.read(0, 3)
    assert await anext(pieces) == b"ab"
    last = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0.01)
    assert not last.done()
    spool.seal()
    assert await last == b"c"


@pytest.mark.parametrize("size_bytes", [0, 3])
async def test_a_failure_reaches_every_reader(tmp_path: Path, size_bytes: int):
    spool = Spool(tmp_path, size_bytes)
    await spool.append(b"x" * size_bytes)
    readers = [asyncio.create_task(collect(spool, 0, size_bytes)) for _ in range(3)]
    await asyncio.sleep(0.01)
    spool.fail(ConnectionError("gone"))
    for reader in readers:
        with pytest.raises(ConnectionError, match="gone"):
            await reader
    with pytest.raises(ConnectionError, match="gone"):
        await spool.sealed()


async def test_a_disk_that_takes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    spool = Spool(tmp_path, 3)
    monkeypatch.setattr("os.pwrite", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        await spool.append(b"abc")
