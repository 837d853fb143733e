"""RUN, for real, on every rung: what the command sees, and what it leaves."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.sandbox.isolation import Isolation, Rung
from builder.sandbox.run import DirectoryRoot, OverlayRoot, RunSpec, run_step
from tests.builder.roots import Machine, make_busybox_root, make_machine

PROJECT = Path(__file__).parents[2]


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
        of_libc = 0b11 << 31  # signals 32 and 33: nobody else can set them, and make's children get them ignored
        blocked, ignored = (int(line.split()[1], 16) & ~of_libc for line in bytes(machine.output).splitlines())
        assert (blocked, ignored) == (0, 0)


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


async def test_the_host_name_is_the_machines(machine: Machine):
    if machine.isolation.rung is not Rung.CHROOT:
        assert (await machine.sh("cat /proc/sys/kernel/hostname")).strip() == os.uname().nodename


async def test_the_host_name_is_the_one_given(machine: Machine):
    if machine.isolation.rung is not Rung.CHROOT:
        assert await machine.sh("cat /proc/sys/kernel/hostname", hostname="builder") == "builder\n"
    assert os.uname().nodename != "builder"


async def test_ids_that_do_not_exist_are_an_error(machine: Machine):
    with pytest.raises(BuildError, match=r"OverflowError|take the ids of user"):
        await machine.sh("true", uid=2**32 + 1)


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
