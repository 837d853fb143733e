"""RUN, for real, on every rung: what the command sees, what it leaves, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.isolation import Isolation, Rung, probe
from builder.run import TAIL_BYTES, DirectoryRoot, OverlayRoot, RunSpec, run_step
from tests.builder.roots import Machine, every_isolation, make_busybox_root, make_machine, processes_with

RUNGS = ("overlay", "overlay-userns", "overlay-userns-nopid", "namespaces", "namespaces-userns-nopid", "chroot")
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def isolations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Isolation]:
    return every_isolation(tmp_path_factory.mktemp("probe"))


@pytest.fixture(params=RUNGS)
def machine(request: pytest.FixtureRequest, tmp_path: Path, isolations: dict[str, Isolation]) -> Machine:
    return make_machine(tmp_path, isolations[request.param])


@pytest.fixture
def overlay(tmp_path: Path, isolations: dict[str, Isolation]) -> Machine:
    return make_machine(tmp_path, isolations["overlay"])


async def wait_until_gone(marker: str) -> None:
    while processes_with(marker):
        await asyncio.sleep(0.01)


async def wait_until_running(marker: str, count: int) -> None:
    while len(processes_with(marker)) < count:
        await asyncio.sleep(0.01)


# What a step leaves


async def test_files_owners_and_modes_come_out_as_the_command_made_them(machine: Machine):
    await machine.sh("touch a; chown 100:65534 a; mkdir d; chmod 2750 d; cat /bin/busybox >s; chmod 4755 s; ln -s a l")
    a, d, s = (os.lstat(machine.changed / name) for name in "ads")
    assert (a.st_uid, a.st_gid, stat.S_IMODE(a.st_mode)) == (100, 65534, 0o644)
    assert (d.st_uid, stat.S_IMODE(d.st_mode)) == (0, 0o2750)
    assert (s.st_uid, stat.S_IMODE(s.st_mode)) == (0, 0o4755)
    assert os.readlink(machine.changed / "l") == "a"


async def test_nothing_else_is_left_in_the_root(machine: Machine):
    before = machine.files
    times = {path: os.lstat(machine.changed / path).st_mtime_ns for path in before}
    await machine.sh("cat /etc/resolv.conf /etc/hosts >/dev/null; echo x >/dev/shm/x")
    assert machine.files == before
    assert {path: os.lstat(machine.changed / path).st_mtime_ns for path in before} == times
    assert {path.name for path in machine.changed.parent.iterdir()} <= {"lower", "upper", "work"}


async def test_an_image_without_any_directory_gets_what_is_needed_and_keeps_nothing(
    tmp_path: Path, isolations: dict[str, Isolation]
):
    for name, isolation in isolations.items():
        lower = tmp_path / name / "lower"
        lower.mkdir(parents=True)
        (lower / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (lower / "busybox").chmod(0o755)
        machine = make_machine(tmp_path / name, isolation, lower)
        result = await machine.run("/busybox", "cat", "/etc/resolv.conf")
        assert (result.exit_code, bytes(machine.output)) == (0, Path("/etc/resolv.conf").read_bytes())
        assert machine.files == ({"busybox"} if isolation.rung is not Rung.OVERLAY else set())


async def test_what_a_command_puts_into_a_directory_made_for_it_stays(tmp_path: Path, isolations: dict[str, Isolation]):
    for name in ("namespaces", "chroot"):
        machine = make_machine(tmp_path / name, isolations[name])
        (machine.changed / "etc/passwd").unlink()
        (machine.changed / "etc/group").unlink()
        (machine.changed / "etc").rmdir()
        result = await machine.run("sh", "-c", "echo kept >/etc/mine")
        assert (machine.changed / "etc/mine").read_text() == "kept\n"
        assert {path.name for path in (machine.changed / "etc").iterdir()} == {"mine"}
        assert "etc" not in result.ignore
        assert {"etc/resolv.conf", "etc/hosts", "dev"} <= result.ignore


async def test_deletions_are_whiteouts_in_the_upper_directory(tmp_path: Path, isolations: dict[str, Isolation]):
    for name in ("overlay", "overlay-userns"):
        machine = make_machine(tmp_path / name, isolations[name])
        await machine.sh("rm /etc/group; rm -r /tmp; mkdir /tmp")
        gone = os.lstat(machine.changed / "etc/group")
        assert stat.S_ISCHR(gone.st_mode)
        assert gone.st_rdev == 0
        assert os.getxattr(machine.changed / "tmp", "user.overlay.opaque") == b"y"


async def test_many_layers_with_long_and_odd_names_fit(tmp_path: Path, isolations: dict[str, Isolation]):
    bottom = make_busybox_root(tmp_path / "bottom")
    layers = []
    for index in range(200):
        layer = tmp_path / f"a:b,c\\d {'x' * 200}" / str(index)
        layer.mkdir(parents=True)
        (layer / "which").write_text(f"{index}\n")
        layers.append(layer)
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    root = OverlayRoot((*layers, bottom), upper, work)
    output = bytearray()
    result = await run_step(isolations["overlay-userns"], root, RunSpec(("cat", "/which")), output.extend)
    assert (result.exit_code, bytes(output)) == (0, b"0\n")


# What the command sees


async def test_the_environment_is_exactly_what_is_given(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BUILDER_SECRET", "hidden")
    env = {"PATH": "/bin", "A": "b c\n=", "ÜMLAUT": "ß", "RAW": "\udcff"}
    await machine.run("busybox", "env", "-0", env=env)
    assert set(bytes(machine.output).split(b"\0")[:-1]) == {
        os.fsencode(f"{name}={value}") for name, value in env.items()
    }


async def test_the_builders_environment_cannot_be_read_through_proc(machine: Machine):
    code = "import asyncio, sys; from tests.builder.test_run import leak; asyncio.run(leak(sys.argv[1:]))"
    root = machine.root.path if isinstance(machine.root, DirectoryRoot) else machine.root.lower[0]
    isolation = machine.isolation
    own = [str(int(isolation.user_namespace)), str(int(isolation.pid_namespace))]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, isolation.rung.value, *own, str(root), str(machine.changed.parent / "second")),
        env={"BUILDER_SECRET": "hunter2", "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    assert b"looked" in output
    assert b"hunter2" not in output


async def leak(arguments: list[str]) -> None:
    """The builder of the test above, a process with a secret in its environment."""
    rung, user, pid, lower, directory = arguments
    isolation = Isolation(Rung(rung), user_namespace=user == "1", pid_namespace=pid == "1")
    Path(directory).mkdir()
    machine = make_machine(Path(directory), isolation, Path(lower))
    await machine.run("sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null; echo looked")
    sys.stdout.buffer.write(machine.output)


async def test_no_descriptor_of_the_builder_is_open(machine: Machine):
    if machine.isolation.rung is Rung.CHROOT:
        script = "for n in 3 4 5 6 7 8 9; do (: <&$n) 2>/dev/null && echo $n; done; true"  # there is no /proc to look
        assert await machine.sh(script) == ""
    else:
        assert (await machine.sh("ls /proc/self/fd")).split() == ["0", "1", "2", "3"]  # 3 is of ls itself


async def test_input_is_empty_and_the_umask_is_the_usual(machine: Machine):
    assert await machine.sh("cat; umask") == "0022\n"


async def test_no_signal_is_ignored_or_blocked(machine: Machine):
    if machine.isolation.rung is not Rung.CHROOT:
        await machine.run("/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
        assert bytes(machine.output).split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


async def test_cwd_is_used_and_must_exist(machine: Machine):
    assert await machine.sh("pwd; echo made >here", cwd="/tmp") == "/tmp\n"
    assert (machine.changed / "tmp/here").read_text() == "made\n"


async def test_a_missing_cwd_is_an_error(machine: Machine):
    with pytest.raises(BuildError, match=r"^working directory /nowhere: No such file or directory$"):
        await machine.sh("true", cwd="/nowhere")


async def test_user_group_and_supplementary_groups_are_taken_on(machine: Machine):
    ids = await machine.sh("id -u; id -g; id -G; echo >/tmp/mine", uid=1000, gid=1001, groups=(1001, 7, 70000))
    assert ids.split() == ["1000", "1001", "1001", "7", "70000"]
    info = os.stat(machine.changed / "tmp/mine")
    assert (info.st_uid, info.st_gid) == (1000, 1001)


async def test_a_user_may_write_to_dev_stdout_by_name(machine: Machine):
    if machine.isolation.rung is not Rung.CHROOT:
        assert await machine.sh("echo hello >/dev/stdout", uid=1000, gid=1000) == "hello\n"


async def test_a_set_user_id_program_gives_its_rights(machine: Machine):
    lower = machine.root.path if isinstance(machine.root, DirectoryRoot) else machine.root.lower[0]
    (lower / "bin/su").write_bytes(Path("/bin/busybox").read_bytes())
    (lower / "bin/su").chmod(0o4755)
    assert await machine.sh("id -u; /bin/su root -c 'id -u'", uid=1000, gid=1000) == "1000\n0\n"


async def test_root_has_the_capabilities_of_a_container_and_no_more(machine: Machine):
    if machine.isolation.rung is Rung.CHROOT:
        await machine.sh("! test -e /proc/self")  # no mounts there; test_sandbox.py looks from outside
    else:
        sets = (await machine.sh("grep ^Cap /proc/self/status")).split()[1::2]
        assert sets == ["0" * 16, "00000000a80425fb", "00000000a80425fb", "00000000a80425fb", "0" * 16]


async def test_the_machine_cannot_be_changed_through_proc_and_sys(machine: Machine):
    if machine.isolation.rung is not Rung.CHROOT:
        assert "ok" in await machine.sh(
            "! echo 1 2>/dev/null >/proc/sys/kernel/panic; ! touch /sys/x 2>/dev/null; echo ok"
        )


async def test_devices_work(machine: Machine):
    size = "head -c 5 /dev/urandom >/tmp/r; head -c 7 /dev/zero >>/tmp/r; echo lost >/dev/null; stat -c %s /tmp/r"
    assert await machine.sh(size) == "12\n"


async def test_the_host_name_is_the_machines_or_the_one_given(overlay: Machine):
    assert (await overlay.sh("cat /proc/sys/kernel/hostname")).strip() == os.uname().nodename
    again = make_machine(overlay.changed.parent / "again", overlay.isolation)
    assert (await again.sh("cat /proc/sys/kernel/hostname", hostname="builder")) == "builder\n"


async def test_network_files_can_be_written_and_the_builders_stay_as_they_are(machine: Machine):
    before = Path("/etc/hosts").read_bytes()
    assert "1.2.3.4 x" in await machine.sh("echo 1.2.3.4 x >>/etc/hosts; cat /etc/hosts")
    assert Path("/etc/hosts").read_bytes() == before


async def test_the_images_own_network_files_come_back(machine: Machine):
    lower = machine.root.path if isinstance(machine.root, DirectoryRoot) else machine.root.lower[0]
    (lower / "etc/hosts").write_text("of the image\n")
    (lower / "etc/resolv.conf").symlink_to("../run/stub.conf")
    assert await machine.sh("cat /etc/resolv.conf") == Path("/etc/resolv.conf").read_text()
    assert (lower / "etc/hosts").read_text() == "of the image\n"
    assert os.readlink(lower / "etc/resolv.conf") == "../run/stub.conf"
    assert not {path for path in machine.files if path.startswith("run")}


async def test_a_link_in_the_image_does_not_lead_out_of_the_root(machine: Machine, tmp_path: Path):
    lower = machine.root.path if isinstance(machine.root, DirectoryRoot) else machine.root.lower[0]
    outside = tmp_path / "outside"
    outside.mkdir()
    (lower / "etc/hosts").symlink_to(f"../../../../../../../../{outside}/hosts")
    (lower / "dev").symlink_to(outside)
    await machine.run("true")
    assert not list(outside.iterdir())


async def test_a_command_that_turns_a_directory_into_a_link_harms_nobody(
    tmp_path: Path, isolations: dict[str, Isolation]
):
    machine = make_machine(tmp_path, isolations["chroot"])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hosts").write_text("precious")
    await machine.sh(f"mv /etc /gone; ln -s {outside} /etc")
    assert (outside / "hosts").read_text() == "precious"


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
    spec = RunSpec(("sleep", "1000"), {"PATH": "/bin"})
    with pytest.raises(BuildError, match=r"did not end within 0.3 s"):
        await run_step(overlay.isolation, overlay.root, spec, overlay.output.extend, timeout_s=0.3)


async def test_what_the_receiver_of_the_output_raises_ends_the_step(overlay: Machine):
    def refuse(_: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await run_step(overlay.isolation, overlay.root, RunSpec(("/bin/yes",)), refuse)


async def test_when_the_builder_is_killed_the_command_dies_too(machine: Machine):
    marker = f"33{uuid.uuid4().int % 10**9}"
    code = "import asyncio, sys; from tests.builder.test_run import endless; asyncio.run(endless(sys.argv[1:]))"
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
        if b"builder.sandbox" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGTERM)
    assert (await step).exit_code == 5
    assert bytes(overlay.output) == b"asked\n"


def test_probing_leaves_nothing_behind(tmp_path: Path):
    assert probe(tmp_path).rung is Rung.OVERLAY
    assert not list(tmp_path.iterdir())
