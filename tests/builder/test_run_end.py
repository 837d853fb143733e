"""RUN, for real, on every rung: how it ends, that nothing of it stays alive, and its output."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import uuid
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.sandbox.isolation import Isolation, Rung, probe
from builder.sandbox.run import TAIL_BYTES, DirectoryRoot, RunSpec, run_step
from tests.builder.roots import Machine, make_machine, processes_with

PROJECT = Path(__file__).parents[2]


async def wait_until_gone(marker: str) -> None:
    while processes_with(marker):
        await asyncio.sleep(0.01)


async def wait_until_running(marker: str, count: int) -> None:
    while len(processes_with(marker)) < count:
        await asyncio.sleep(0.01)


# How it ends


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
async def test_the_exit_code_is_the_commands(overlay: Machine, script: str, code: int):
    assert (await overlay.run("sh", "-c", script)).exit_code == code


async def test_a_failure_is_told_on_every_rung(machine: Machine):
    assert (await machine.run("sh", "-c", "kill -9 $$")).exit_code == 137


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ("nothing", 127, "nothing: not found in the image\n"),
        ("/bin/nothing", 127, "/bin/nothing: not found in the image\n"),
        ("/tmp", 126, "/tmp: cannot be run: Permission denied\n"),
        ("/etc/passwd", 126, "/etc/passwd: cannot be run: Permission denied\n"),
        ("/tmp/lost", 127, "/tmp/lost: its interpreter (#! or dynamic loader) is not in the image\n"),
        ("/tmp/text", 126, "/tmp/text: cannot be run: Exec format error\n"),
    ],
)
async def test_a_program_that_cannot_be_started(overlay: Machine, argv: str, code: int, message: str):
    (overlay.changed / "tmp").mkdir()
    for name, text in {"lost": "#!/bin/nowhere\n", "text": "no program"}.items():
        (overlay.changed / "tmp" / name).write_text(text)
        (overlay.changed / "tmp" / name).chmod(0o755)
    result = await overlay.run(argv)
    assert (result.exit_code, bytes(overlay.output)) == (code, message.encode())


async def test_what_the_command_leaves_running_is_killed(machine: Machine):
    marker = f"31{uuid.uuid4().int % 10**9}"
    script = (
        f"sleep {marker} & (busybox setsid sleep {marker} &) ; busybox setsid sh -c 'sleep {marker} & sleep {marker}' &"
    )
    assert (await machine.run("sh", "-c", script)).exit_code == 0
    assert not processes_with(marker)


async def test_orphans_are_reaped_while_the_command_runs(machine: Machine):
    if machine.isolation.pid_namespace:
        states = await machine.sh("for i in 1 2 3; do (sleep 0 &); done; sleep 0.2; cat /proc/[0-9]*/stat")
        assert not [line for line in states.splitlines() if ") Z " in line]


async def test_cancelling_kills_everything_and_tidies_up(machine: Machine):
    marker = f"32{uuid.uuid4().int % 10**9}"
    before = machine.files
    step = asyncio.create_task(machine.run("sh", "-c", f"trap '' TERM INT HUP; sleep {marker} & sleep {marker}; true"))
    await wait_until_running(marker, 3)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert not processes_with(marker)
    assert machine.files == before
    assert {path.name for path in machine.changed.parent.iterdir()} <= {"lower", "upper", "work"}


async def test_a_time_limit_ends_the_step(overlay: Machine):
    spec = RunSpec(("sleep", "1000"), {"PATH": "/bin"}, timeout_s=0.3)
    with pytest.raises(BuildError, match=r"did not end within 0.3 s"):
        await run_step(overlay.isolation, overlay.root, spec, overlay.output.extend)


async def test_what_the_receiver_of_the_output_raises_ends_the_step(overlay: Machine):
    def refuse(_: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await run_step(overlay.isolation, overlay.root, RunSpec(("/bin/yes",)), refuse)


async def test_when_the_builder_is_killed_the_command_dies_too(machine: Machine):
    marker = f"33{uuid.uuid4().int % 10**9}"
    code = "import asyncio, sys; from tests.builder.test_run_end import endless; asyncio.run(endless(sys.argv[1:]))"
    root = machine.root.path if isinstance(machine.root, DirectoryRoot) else machine.root.lower[0]
    isolation = machine.isolation
    own = [str(int(isolation.user_namespace)), str(int(isolation.pid_namespace))]
    second = machine.changed.parent / "second"
    builder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, isolation.rung.value, *own, str(root), str(second), marker),
        env={"PYTHONPATH": str(PROJECT)},
        start_new_session=True,
    )
    try:
        await wait_until_running(marker, 4)  # the builder, the shell and its two children
    finally:
        builder.kill()
        await builder.wait()
    await wait_until_gone(marker)


async def endless(arguments: list[str]) -> None:
    """The builder of the test above."""
    rung, user, pid, lower, directory, marker = arguments
    isolation = Isolation(Rung(rung), user_namespace=user == "1", pid_namespace=pid == "1")
    Path(directory).mkdir()
    machine = make_machine(Path(directory), isolation, Path(lower))
    await machine.run("sh", "-c", f"busybox setsid sleep {marker} & sleep {marker}; true")


# Output


async def test_both_streams_come_in_order_and_the_tail_is_kept(overlay: Machine):
    result = await overlay.run("sh", "-c", "echo one; echo two >&2; echo three; exit 1")
    assert bytes(overlay.output) == result.output_tail == b"one\ntwo\nthree\n"


async def test_much_output_streams_in_flat_memory(overlay: Machine):
    sizes = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spec = RunSpec(("sh", "-c", "yes 0123456789 | head -c 50000000; echo end"), {"PATH": "/bin"})
    result = await run_step(overlay.isolation, overlay.root, spec, lambda piece: sizes.append(len(piece)))
    assert sum(sizes) == 50_000_004
    assert result.output_tail.endswith(b"end\n")
    assert len(result.output_tail) == TAIL_BYTES
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 16 * 1024


async def test_steps_run_side_by_side(tmp_path: Path, isolations: dict[str, Isolation]):
    machines = [make_machine(tmp_path / str(index), isolations["overlay"]) for index in range(8)]
    outputs = await asyncio.gather(*(m.sh(f"echo {index} >/out; cat /out") for index, m in enumerate(machines)))
    assert outputs == [f"{index}\n" for index in range(8)]


# The API


@pytest.mark.parametrize(
    "fault", [{"argv": ()}, {"argv": ("",)}, {"cwd": "tmp"}, {"env": {"A": "b\0c"}}, {"argv": ("sh", "\0")}]
)
def test_a_specification_that_cannot_be_run_is_refused(fault: dict[str, object]):
    with pytest.raises(ValueError, match=r"expected|NUL"):
        RunSpec(**{"argv": ("true",), **fault})  # type: ignore[arg-type]  # wrong on purpose


async def test_the_kind_of_root_must_fit_the_rung(tmp_path: Path, isolations: dict[str, Isolation]):
    with pytest.raises(ValueError, match="DirectoryRoot cannot be used with overlay"):
        await run_step(isolations["overlay"], DirectoryRoot(tmp_path), RunSpec(("true",)), lambda _: None)
    assert not list(tmp_path.iterdir())


async def test_a_root_that_is_not_there_is_an_error(tmp_path: Path, isolations: dict[str, Isolation]):
    root = DirectoryRoot(tmp_path / "missing")
    with pytest.raises(BuildError, match="missing"):
        await run_step(isolations["namespaces"], root, RunSpec(("true",)), lambda _: None)


async def test_term_reaches_the_command(overlay: Machine):
    marker = f"34{uuid.uuid4().int % 10**9}"
    step = asyncio.create_task(overlay.run("sh", "-c", f"trap 'echo asked; exit 5' TERM; sleep {marker} & wait"))
    await wait_until_running(marker, 2)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        if b"builder.sandbox.program" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGTERM)
    assert (await step).exit_code == 5
    assert bytes(overlay.output) == b"asked\n"


def test_probing_leaves_nothing_behind(tmp_path: Path):
    assert probe(tmp_path).rung is Rung.OVERLAY
    assert not list(tmp_path.iterdir())
