"""The sandbox program's parts that need no sandbox, its probing from outside, and what stubs leave behind."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.sandbox import records, stubs
from builder.sandbox.isolation import Isolation, Rung, probe, sandbox_command
from builder.sandbox.program import exit_code
from builder.sandbox.root import inside
from builder.sandbox.stubs import Stub
from tests.builder.roots import Machine, make_machine, processes_with

PROJECT = Path(__file__).parents[2]

# Where a path leads in the root


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("etc/hosts", "etc/hosts"),
        ("/etc//./hosts", "etc/hosts"),
        ("../../etc", "etc"),
        ("relative", "etc/real"),
        ("absolute/x", "etc/real/x"),
        ("climbing", "etc/passwd"),
        ("twice", "etc/real"),
        ("dangling", "run/missing/file"),
        ("", ""),
    ],
)
def test_links_are_taken_as_the_step_will_see_them(tmp_path: Path, path: str, expected: str):
    (tmp_path / "etc/real").mkdir(parents=True)
    links = {"relative": "etc/real", "absolute": "/etc/real", "climbing": "../../../etc/passwd"}
    links |= {"twice": "/relative", "dangling": "/run/missing/file"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert inside(str(tmp_path), path) == expected


def test_a_loop_of_links_is_an_error(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many symlinks in the image's /a"):
        inside(str(tmp_path), "a")


# What the two halves tell each other


def test_records_come_back_as_they_were_written():
    sent = [("made", "etc/ü\udcff", "", 1, 2**62), ("exit", 0), {"argv": ["sh"], "env": {}}, []]
    pipe = io.BytesIO(b"".join(records.encode(value) for value in sent))
    assert list(records.read_all(pipe)) == sent


def test_a_record_that_is_cut_off_is_an_error():
    with pytest.raises(EOFError):
        records.read(io.BytesIO(records.encode(("error", "text"))[:-2]))


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)])
def test_a_wait_status_becomes_an_exit_code(status: int, code: int):
    assert exit_code(status) == code


# The program as a whole


def test_it_imports_little():
    command = sandbox_command()
    command[-1] = command[-1].replace("main()", "print(*sys.modules)")
    loaded = subprocess.run(command, env={}, check=True, capture_output=True, text=True).stdout.split()
    assert "builder.sandbox.program" in loaded
    assert not {"asyncio", "contextlib", "json", "pathlib", "subprocess", "typing"} & set(loaded)


def test_it_does_nothing_without_a_specification():
    done = subprocess.run([*sandbox_command(), "1"], env={}, input=b"", capture_output=True, check=False)
    assert done.returncode == 1
    assert b"EOFError" in done.stderr


async def test_a_program_that_does_not_start_is_an_error(overlay: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BuildError, match="the sandbox program ended before its command did"):
        await overlay.run("true")
    with pytest.raises(BuildError, match="the sandbox program cannot be started"):
        probe(overlay.changed)


# Probing


@pytest.mark.parametrize("rung", list(Rung))
def test_a_rung_can_be_forced(tmp_path: Path, rung: Rung):
    found = probe(tmp_path / "state", rung)
    assert found.rung is rung
    assert found.reason == ""
    assert not list((tmp_path / "state").iterdir())


def test_the_best_rung_here_has_namespaces_and_says_so(tmp_path: Path):
    assert str(probe(tmp_path)) == "overlay (pid namespace)"


def test_a_forced_rung_that_cannot_be_had_is_an_error(tmp_path: Path):
    program = f"from builder.sandbox.isolation import *; probe(Path({str(tmp_path)!r}), Rung.CHROOT)"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_chroot", sys.executable, "-c", program],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "BuildError: isolation chroot cannot be had here. Operation not permitted: the root" in done.stderr


# Stubs


def stub(path: Path, base: Path, aside: str = "") -> Stub:
    """The record of something that has just been made, as the sandbox writes it."""
    after = path.parent.stat().st_mtime_ns
    return Stub(str(path.relative_to(base)), aside, 1_000_000_000, after)


def test_stubs_go_and_their_parents_get_their_times_back(tmp_path: Path):
    base, scratch = tmp_path / "base", tmp_path / "scratch"
    (base / "etc").mkdir(parents=True)
    (base / "etc/hosts").touch()
    assert stubs.remove(base, scratch, [stub(base / "etc/hosts", base)]) == {"etc/hosts"}
    assert not list((base / "etc").iterdir())
    assert (base / "etc").stat().st_mtime_ns == 1_000_000_000


def test_a_parent_that_the_command_has_changed_keeps_its_time(tmp_path: Path):
    base, scratch = tmp_path / "base", tmp_path / "scratch"
    (base / "etc").mkdir(parents=True)
    (base / "etc/hosts").touch()
    made = stub(base / "etc/hosts", base)
    os.utime(base / "etc", ns=(5_000_000_000, 5_000_000_000))
    stubs.remove(base, scratch, [made])
    assert (base / "etc").stat().st_mtime_ns == 5_000_000_000


def test_what_was_moved_aside_comes_back(tmp_path: Path):
    base, scratch = tmp_path / "base", tmp_path / "scratch"
    (base / "etc").mkdir(parents=True)
    scratch.mkdir()
    (scratch / "moved-1").write_text("of the image")
    (base / "etc/hosts/deep").mkdir(parents=True)  # the command has made a directory of it
    stubs.remove(base, scratch, [stub(base / "etc/hosts", base, "moved-1")])
    assert (base / "etc/hosts").read_text() == "of the image"


def test_directories_stay_when_there_is_something_in_them_but_dev_goes(tmp_path: Path):
    base, scratch = tmp_path / "base", tmp_path / "scratch"
    made = []
    for name in ("etc", "dev"):
        (base / name).mkdir(parents=True)
        made.append(stub(base / name, base))
        (base / name / "mine").touch()
    assert stubs.remove(base, scratch, made) == {"dev"}
    assert [path.name for path in base.iterdir()] == ["etc"]


@pytest.mark.parametrize("replacement", ["gone", "link", "file"])
def test_where_the_way_to_a_stub_is_another_now_nothing_is_touched(tmp_path: Path, replacement: str):
    base, scratch, outside = tmp_path / "base", tmp_path / "scratch", tmp_path / "outside"
    (base / "etc").mkdir(parents=True)
    outside.mkdir()
    (outside / "hosts").touch()
    made = [stub(base / "etc/hosts", base)]
    (base / "etc").rmdir()
    if replacement == "link":
        (base / "etc").symlink_to(outside)
    elif replacement == "file":
        (base / "etc").touch()
    assert stubs.remove(base, scratch, made) == {"etc/hosts"}
    assert (outside / "hosts").exists()


# From outside


async def test_a_command_under_chroot_has_the_capabilities_of_a_container_and_no_more(
    tmp_path: Path, isolations: dict[str, Isolation]
):
    """There is no /proc to look from inside; so the test looks at the running command."""
    machine = make_machine(tmp_path, isolations["chroot"])
    marker = f"35{time.monotonic_ns()}"
    step = asyncio.create_task(machine.run("sleep", marker))
    while not (found := processes_with(marker)):
        await asyncio.sleep(0.01)
    lines = Path(f"/proc/{found.pop()}/status").read_text().splitlines()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    sets = [line.split()[1] for line in lines if line.startswith("Cap")]
    assert sets == ["0" * 16, "00000000a80425fb", "00000000a80425fb", "00000000a80425fb", "0" * 16]
