"""Bytes cut into parts: hashed once, in memory within a budget, in a file beyond it."""

import asyncio
import hashlib
import os
import subprocess
import sys

import pytest

from cache.errors import DigestMismatch
from cache.oci.digest import Digest
from cache.s3.part_intake import Intake, MemoryBudget
from cache.s3.part_sizes import PART_BYTES
from tests.cache.s3_use import MIB
from tests.s3_servers import BUCKET, CREDENTIALS

DATA = os.urandom(2 * PART_BYTES + 12345)


def chunks(step_bytes):
    return [DATA[start : start + step_bytes] for start in range(0, len(DATA), step_bytes)]


@pytest.mark.parametrize("budget_bytes", [0, 3 * MIB, 100 * MIB])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("known", [True, False])
def test_parts_are_the_bytes_whatever_the_memory(tmp_path, budget_bytes, algorithm, known):
    budget, digest = MemoryBudget(budget_bytes), Digest.of(DATA, algorithm)
    intake = Intake(digest if known else None, budget, tmp_path)
    filled = [part for chunk in chunks(3 * MIB + 7) for part in intake.add([chunk])]
    assert [part.number for part in filled] == [1, 2]
    parts = intake.finish(digest)
    contents = [b"".join(part.blocks()) for part in parts]
    assert b"".join(contents) == DATA
    assert [part.sha256 for part in parts] == [hashlib.sha256(content).digest() for content in contents]
    assert budget.used_bytes <= budget_bytes
    assert list(tmp_path.iterdir()) == []  # the file has no name
    intake.discard()
    intake.discard()
    assert budget.used_bytes == 0


def test_parts_that_left_give_their_room_back(tmp_path):
    """A writer with little memory uses the same places of its file again."""
    digest = Digest.of(DATA * 3)
    intake = Intake(digest, MemoryBudget(0), tmp_path)
    for chunk in chunks(MIB) * 3:
        for part in intake.add([chunk]):
            part.release()
    assert intake._scratch._end <= 2 * PART_BYTES
    intake.discard()


def test_other_bytes_and_other_uses_are_refused():
    intake = Intake(None, MemoryBudget(MIB), None)
    intake.add([b"content"])
    with pytest.raises(DigestMismatch):
        intake.finish(Digest.of(b"other"))
    assert [part.size_bytes for part in intake.finish(Digest.of(b"content"))] == [7]
    with pytest.raises(RuntimeError, match="has ended"):
        intake.add([b"more"])
    with pytest.raises(RuntimeError, match="has ended"):
        intake.finish(Digest.of(b"content"))
    intake.discard()


STREAM = """
import asyncio, hashlib, pathlib, re, sys
from cache.oci.digest import Digest
from cache.s3.store import S3Store
from cache.s3.location import S3Location

MIB = 1 << 20
CHUNK = bytes(range(256)) * (MIB // 256)
bucket, prefix, endpoint, known, writers = sys.argv[1:]


def peak_kib():
    # Not ru_maxrss, which a child inherits from the process that started it.
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

async def write(store, digest, count):
    hasher = hashlib.sha256()
    async with store.writer(digest) as writer:
        for number in range(count):
            chunk = number.to_bytes(8, "big") + CHUNK[8:]
            hasher.update(chunk)
            await writer.write(chunk)
        return await writer.commit(Digest("sha256", hasher.hexdigest()))

async def main():
    store = S3Store(S3Location(bucket, prefix, endpoint, "us-east-1"))
    await store.check()
    hasher = hashlib.sha256()
    for number in range(300):
        hasher.update(number.to_bytes(8, "big") + CHUNK[8:])
    digest = Digest("sha256", hasher.hexdigest())
    before = peak_kib()
    if writers == "1":
        await write(store, digest if known == "known" else None, 300)
        async with store.open(digest) as chunks:
            assert sum([len(chunk) async for chunk in chunks]) == 300 * MIB
    else:
        await asyncio.gather(*(write(store, None, 20) for _ in range(int(writers))))
    print((peak_kib() - before) // 1024)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(("known", "writers"), [("known", "1"), ("unknown", "15")])
async def test_memory_is_bounded(seaweedfs_server, s3_credentials, known, writers):
    """300 MiB through a writer and a reader, and as much through many writers at once: the process grows by the budget
    for parts and little else."""
    arguments = [BUCKET, f"tests/memory-{known}-{writers}", seaweedfs_server.endpoint_url, known, writers]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STREAM, *arguments, stdout=subprocess.PIPE, env={**os.environ, **CREDENTIALS}
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    grown_mib = int(output.split()[-1])
    assert 0 < grown_mib < 110, output
