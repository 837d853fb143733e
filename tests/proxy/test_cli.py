"""``crossdock proxy`` as a process: starting, stopping, refusing, and being killed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import aiohttp
import pytest

from cache.disk.filesystem import FilesystemStore
from cache.oci.digest import Digest
from tests.proxy.processes import COMMAND, started
from tests.proxy.running import get, scripted_upstream


def refused(*options: str) -> tuple[int, str]:
    ended = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_told_to(tmp_path: Path, number: signal.Signals):
    with started(tmp_path) as process:
        assert asyncio.run(get(f"{process.url}/healthz"))[0] == 200
        process.popen.send_signal(number)
        assert process.popen.wait(20) == 0


async def test_it_starts_and_is_ready_while_an_upstream_is_down(tmp_path: Path):
    with started(tmp_path, "--upstream", "up.test=http://127.0.0.1:1", "--default-upstream", "up.test") as process:
        assert (await get(f"{process.url}/readyz"))[0] == 200
        assert (await get(f"{process.url}/v2/org/app/manifests/1"))[0] == 503
        assert (await get(f"{process.url}/readyz"))[0] == 200


async def test_it_is_not_ready_without_its_store(tmp_path: Path):
    with started(tmp_path) as process:
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").write_text("")
        status, _, body = await get(f"{process.url}/readyz")
        assert (status, body) == (503, b"the store does not work\n")
        assert (await get(f"{process.url}/healthz"))[0] == 200


def checked(*options: str) -> str:
    """What --check-config says of a configuration that can be used."""
    command = [*COMMAND, *options, "--check-config"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_configuration_is_checked_without_opening_anything(tmp_path: Path):
    (tmp_path / "tokens").write_text("ci:a-token-that-nobody-sees\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = checked(
            *("--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--store", f"file://{tmp_path}/store"),
            *(
                "--upstream",
                "up.test=http://up.test tag-ttl=5m mirror=http://mirror.test",
                "--default-upstream",
                "up.test",
            ),
            *("--tokens", f"{tmp_path}/tokens", "--rule", "ci,bob cache/ write,read", "--rule", "admin * all"),
        )
    assert not (tmp_path / "store").exists()
    assert said.splitlines()[0] == "ok"
    assert said.splitlines()[2:] == [
        "upstream up.test (default): http://up.test; mirror http://mirror.test; tag-ttl 300s",
        "hosted cache",
        "rule bob,ci cache read,write",
        "rule admin * all",
    ]
    assert "a-token-that-nobody-sees" not in said


def test_a_store_that_is_none_is_a_fault_of_the_configuration():
    status, said = refused("--check-config", "--store", "gopher://x")
    assert (status, "file:///path" in said) == (2, True)


def test_all_faults_of_the_files_are_found_at_once(tmp_path: Path):
    (tmp_path / "users").write_text("bob:plain-text-password\nci\n")
    for name in ("cert", "key"):
        (tmp_path / name).write_text("not PEM")
    status, said = refused(
        *("--check-config", "--users", f"{tmp_path}/users", "--tokens", f"{tmp_path}/none", "--rule", "bob * read"),
        *("--tls-cert", f"{tmp_path}/cert", "--tls-key", f"{tmp_path}/key", "--spool-dir", f"{tmp_path}/nowhere"),
        *("--upstream", f"up.test=http://up.test account={tmp_path}/config.json"),
    )
    assert status == 2
    for part in ("users line 1", "users line 2", "none", "cert", "nowhere", "config.json"):
        assert f"{tmp_path}/{part}" in said, part
    assert "plain-text-password" not in said


def test_a_config_file_with_options_over_it(tmp_path: Path):
    file = tmp_path / "crossdock.toml"
    file.write_text(f'listen = "nonsense"\nstore = "file://{tmp_path}/store"\nupstream = []\nhosted = ["mine"]\n')
    with started(tmp_path, "--config", str(file)) as process:
        url = process.url
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
        options = ("--upstream", f"up.test={upstream.url}", "--default-upstream", "up.test")
        with started(tmp_path, *options) as process:
            async with aiohttp.ClientSession() as session, session.get(process.url + path) as response:
                await response.content.readexactly(2_000_000)
                process.popen.kill()
                process.popen.wait()
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        store = FilesystemStore(tmp_path / "store")
        assert [digest async for digest, _ in store.blobs()] == []
        upstream.go_on.set()
        with started(tmp_path, *options) as process:
            assert (await get(process.url + path))[2] == data
            async with asyncio.timeout(20):  # it is served as soon as it is whole, and stored right after
                while not (held := [found async for found, _ in store.blobs()]):
                    await asyncio.sleep(0.01)
            assert (await get(process.url + path))[1]["X-Cache"] == "hit"
        assert held == [digest]
        async with store.open(digest) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == data
        await store.close()
