"""``crossdock proxy`` as a process: starting, stopping, refusing, and being killed."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from cache.filesystem import FilesystemStore
from cache.oci.digest import Digest
from tests.proxy.running import get, scripted_upstream

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, str(ROOT / "crossdock.py"), "proxy"]


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A proxy of its own process on a free port; its URL is what it says."""
    command = [*COMMAND, "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.match(r"Crossdock proxy listening on (http://127\.0\.0\.1:\d+) ", line)
        assert match, line
        yield process, match[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def refused(*options: str) -> tuple[int, str]:
    ended = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_told_to(tmp_path: Path, number: signal.Signals):
    with started("--store", f"file://{tmp_path}/store") as (process, url):
        assert asyncio.run(get(f"{url}/healthz"))[0] == 200
        process.send_signal(number)
        assert process.wait(20) == 0


def test_a_config_file_with_options_over_it(tmp_path: Path):
    file = tmp_path / "crossdock.toml"
    file.write_text(f'listen = "nonsense"\nstore = "file://{tmp_path}/store"\nupstream = []\nhosted = ["mine"]\n')
    with started("--config", str(file)) as (_, url):
        assert asyncio.run(get(f"{url}/v2/mine/x/manifests/1"))[2].count(b"MANIFEST_UNKNOWN") == 1
        assert asyncio.run(get(f"{url}/v2/cache/x/manifests/1"))[2].count(b"NAME_UNKNOWN") == 1


def test_a_port_in_use(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = refused("--listen", address, "--store", f"file://{tmp_path}/store")
    assert (status, address in said, "in use" in said) == (1, True, True)


def test_a_store_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    status, said = refused("--listen", "127.0.0.1:0", "--store", f"file://{tmp_path}/file/store")
    assert (status, f"{tmp_path}/file/store" in said) == (1, True)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--listen", "x", "--upstream", "y", "--hosted", "Z"), "listen: 'x'"),
        (("--upstream", "a.test=https://user:hunter2@a"), "must not carry credentials"),
        (("--store", "gopher://x"), "file:///path"),
        (("--tag-ttl", "soon"), "'soon'"),
        (("--no-such-option",), "--no-such-option"),
        (("--config", "/nonexistent.toml"), "/nonexistent.toml"),
    ],
)
def test_a_configuration_with_a_fault(options: tuple[str, ...], part: str):
    status, said = refused(*options)
    assert (status, part in said, "hunter2" in said) == (2, True, False)


async def test_a_killed_proxy_leaves_only_whole_blobs(tmp_path: Path):
    data = bytes(range(256)) * 16_384
    digest = Digest.of(data)
    path = f"/v2/org/app/blobs/{digest}"
    async with scripted_upstream() as upstream:
        upstream.blobs, upstream.pause_at = {str(digest): data}, 3_000_000
        where = ("--store", f"file://{tmp_path}/store", "--upstream", f"up.test={upstream.url}")
        options = (*where, "--default-upstream", "up.test")
        with started(*options) as (process, url):
            async with aiohttp.ClientSession() as session, session.get(url + path) as response:
                await response.content.readexactly(2_000_000)
                process.kill()
                process.wait()
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        store = FilesystemStore(tmp_path / "store")
        assert [digest async for digest, _ in store.blobs()] == []
        upstream.go_on.set()
        with started(*options) as (_, url):
            assert (await get(url + path))[2] == data
            assert (await get(url + path))[1]["X-Cache"] == "hit"
        held = [found async for found, _ in store.blobs()]
        assert held == [digest]
        async with store.open(digest) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == data
        await store.close()
