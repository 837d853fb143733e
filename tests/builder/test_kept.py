"""What outlives builds: what of it goes, and that nothing goes that a build uses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builder.kept import MAX_IDLE_NS, Kept, surplus
from builder.sandbox.cache_mounts import CacheDirectories
from cache.keys import CacheKey, KeyBuilder

A, B, C = (KeyBuilder(name).key() for name in "abc")
NOW_NS = MAX_IDLE_NS * 3


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([], []),
        ([("a", 60, 1), ("b", 40, 2)], []),
        ([("a", 61, 1), ("b", 40, 2)], ["a"]),
        ([("a", 1, 1), ("b", 101, 3), ("c", 1, 2)], ["b", "c", "a"]),
        ([("a", 1, -1 - MAX_IDLE_NS), ("b", 1, 2)], ["a"]),
    ],
)
def test_what_is_too_much(kept, expected):
    found = [Kept(Path(name), size_bytes, NOW_NS + used_at_ns) for name, size_bytes, used_at_ns in kept]
    assert surplus(found, 100, NOW_NS) == [Path(name) for name in expected]


async def use(caches: CacheDirectories, key: CacheKey, content: str = "") -> None:
    async with caches.hold(key, "shared", lambda _: None) as directory:
        (directory / "file").write_text(content)


def numbers(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_the_least_recently_used_cache_goes(tmp_path):
    caches = CacheDirectories(tmp_path, max_bytes=150_000)
    for age_s, key in ((30, A), (20, B), (10, C)):
        await use(caches, key, "x" * 100_000)
        used_at_s = time.time() - age_s
        os.utime(tmp_path / f"{key.hex}-0", (used_at_s, used_at_s))
    await use(caches, A, "x" * 20_000)
    caches.trim()
    assert numbers(tmp_path) == {f"{A.hex}-0", f"{C.hex}-0"}
    caches.trim()
    assert numbers(tmp_path) == {f"{A.hex}-0", f"{C.hex}-0"}


async def test_a_cache_that_grew_in_a_build_that_was_killed_is_measured_again(tmp_path):
    caches = CacheDirectories(tmp_path, max_bytes=150_000)
    await use(caches, A, "x" * 1000)
    caches.trim()
    await use(caches, A, "x" * 200_000)
    caches.trim()
    assert numbers(tmp_path) == set()


async def test_a_cache_that_a_step_has_mounted_stays(tmp_path):
    caches = CacheDirectories(tmp_path, max_bytes=0)
    async with caches.hold(A, "shared", lambda _: None) as directory:
        (directory / "file").write_text("x")
        caches.trim()
        assert (directory / "file").read_text() == "x"
    (tmp_path / ".gone-0123").mkdir()
    caches.trim()
    assert numbers(tmp_path) == set()


_USER = """
import asyncio, pathlib, sys
from builder.sandbox.cache_mounts import CacheDirectories
from cache.keys import KeyBuilder

async def main() -> None:
    caches, key = CacheDirectories(pathlib.Path(sys.argv[1]), 0), KeyBuilder("a").key()
    for number in range(30):
        async with caches.hold(key, sys.argv[2], lambda made: (made / "begun").write_text("x")) as directory:
            assert (directory / "begun").read_text() == "x"
            (directory / sys.argv[3]).write_text("x")
            await asyncio.sleep(0.001)
            assert (directory / sys.argv[3]).read_text() == "x"
        caches.trim()

asyncio.run(main())
"""


def test_builds_that_use_a_cache_and_builds_that_remove_it_are_never_in_each_others_way(tmp_path):
    children = [
        subprocess.Popen([sys.executable, "-c", _USER, str(tmp_path), sharing, f"{sharing}-{number}"])
        for sharing in ("shared", "private")
        for number in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    CacheDirectories(tmp_path, 0).trim()
    assert numbers(tmp_path) == set()


def test_a_wait_for_a_locked_cache_goes_on_when_it_is_removed_meanwhile(tmp_path):
    caches = CacheDirectories(tmp_path, max_bytes=0)

    async def both() -> None:
        async with caches.hold(A, "locked", lambda _: None):
            waiting = asyncio.create_task(use(caches, A))
            await asyncio.sleep(0)
        caches.trim()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(both())
