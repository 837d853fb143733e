"""RUN in a container without any privilege: which rung is reached, and that a step works there as it must."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.isolation import Rung, probe
from builder.sandbox.run import DirectoryRoot
from tests.builder.roots import Machine, make_machine
from tests.container import PROJECT, run_in_pod

pytestmark = pytest.mark.peers

SCRIPT = """\
echo one >/tmp/f; chown 100:65534 /tmp/f; chmod 4750 /tmp/f
mkdir /srv; rm /etc/group; echo gone >/dev/null
cat /proc/[0-9]*/environ 2>/dev/null || true
sleep 1000 & echo done
"""
INSIDE = "import asyncio; from tests.integration.test_unprivileged import inside; asyncio.run(inside())"
DEVICES = ["null", "random", "urandom", "zero"]
ENVIRONMENT = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", "BUILDER_SECRET": "hunter2"}


async def inside() -> None:
    """What runs in the container: a few steps on the best rung. Prints what came of them."""
    state = Path("/state")
    isolation = probe(state)
    machine = make_machine(state, isolation)
    resolved = isolation.rung is not Rung.OVERLAY
    lower = machine.changed if resolved else state / "lower"
    (lower / "bin/su").write_bytes(Path("/bin/busybox").read_bytes())
    (lower / "bin/su").chmod(0o4755)
    output = await machine.sh(SCRIPT)
    found = {
        "rung": isolation.rung.value,
        "user_namespace": isolation.user_namespace,
        "pid_namespace": isolation.pid_namespace,
        "reason": isolation.reason,
        "output": output,
        "changes": sorted(machine.files),
        "file": _describe(machine.changed / "tmp/f"),
        "group": _describe(machine.changed / "etc/group"),
        "left_running": _running("sleep"),
    }
    print(json.dumps(found | await _more_steps(state / "second", machine, lower)))


async def _more_steps(directory: Path, machine: Machine, lower: Path) -> dict[str, Any]:
    """Steps after the first; on an overlay each needs its own upper directory."""
    found: dict[str, Any] = {}
    steps: dict[str, dict[str, Any]] = {
        "ids": {"script": "id -u; id -g; id -G", "uid": 1000, "gid": 1000, "groups": (1000, 7, 60000)},
        "set_user_id": {"script": "id -u; /bin/su root -c 'id -u'", "uid": 1000, "gid": 1000},
        "resolv": {"script": "cat /etc/resolv.conf"},
        "devices": {"script": "ls /dev | grep -E '^(null|random|urandom|zero)$'"},
    }
    for name, options in steps.items():
        if not isinstance(machine.root, DirectoryRoot):
            (directory / name).mkdir(parents=True)
            machine = make_machine(directory / name, machine.isolation, lower)
        found[name] = await machine.sh(**options)
    if not isinstance(machine.root, DirectoryRoot):
        (directory / "exit").mkdir()
        machine = make_machine(directory / "exit", machine.isolation, lower)
    found["exit_code"] = (await machine.run("sh", "-c", "exit 7")).exit_code
    return found


def _describe(path: Path) -> list[int] | None:
    if not path.exists() and not path.is_symlink():
        return None
    info = path.lstat()
    return [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_rdev]


def _running(word: str) -> int:
    lines = (entry / "cmdline" for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sum(path.read_bytes().startswith(word.encode()) for path in lines)


def run_inside(tmp_path: Path, *extra: str, volume: bool, strict: bool = False) -> dict[str, Any]:
    """The report of ``inside``, run in a container of its own."""
    state = tmp_path / "state"
    state.mkdir()
    done = run_in_pod(
        tmp_path,
        [sys.executable, "-c", INSIDE],
        volumes={state: "/state"} if volume else {},
        strict=strict,
        env=ENVIRONMENT,
        extra=extra,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def check_steps(found: dict[str, Any]) -> None:
    """What holds on every rung."""
    assert found["output"].endswith("done\n")
    assert "hunter2" not in found["output"]
    assert found["file"] == [stat.S_IFREG, 0o4750, 100, 65534, 0]
    assert found["ids"].split() == ["1000", "1000", "1000", "7", "60000"]
    assert found["set_user_id"] == "1000\n0\n"
    assert found["resolv"]
    assert found["exit_code"] == 7
    assert found["left_running"] == 0


def test_with_a_volume_a_steps_upper_directory_is_its_layer(tmp_path: Path):
    found = run_inside(tmp_path, volume=True)
    assert (found["rung"], found["user_namespace"], found["pid_namespace"]) == ("overlay", True, False)
    assert "mount proc on the root/proc: Operation not permitted" in found["reason"]
    check_steps(found)
    assert found["devices"].split() == DEVICES
    assert found["changes"] == ["etc", "etc/group", "srv", "tmp", "tmp/f"]
    assert found["group"] == [stat.S_IFCHR, 0, 0, 0, 0]


def test_without_a_volume_there_is_no_overlay_but_namespaces(tmp_path: Path):
    found = run_inside(tmp_path, volume=False)
    assert (found["rung"], found["user_namespace"], found["pid_namespace"]) == ("namespaces", True, False)
    assert "put the state directory on a volume" in found["reason"]
    check_steps(found)
    assert found["devices"].split() == DEVICES
    assert found["group"] is None


@pytest.mark.parametrize(
    ("volume", "extra", "devices"),
    [
        (True, ["--cap-add=MKNOD"], DEVICES),
        (True, ["--cap-drop=MKNOD"], ["null"]),
        (False, [], ["null"]),  # podman mounts a container's own file system nodev
    ],
)
def test_where_namespaces_are_refused_there_is_chroot(
    tmp_path: Path, volume: bool, extra: list[str], devices: list[str]
):
    found = run_inside(tmp_path, *extra, volume=volume, strict=True)
    assert (found["rung"], found["user_namespace"], found["pid_namespace"]) == ("chroot", False, False)
    assert "unshare with a user namespace: Operation not permitted" in found["reason"]
    check_steps(found)
    assert found["devices"].split() == devices
    assert {path.split("/")[0] for path in found["changes"]} == {"etc", "srv", "tmp"}
    assert found["group"] is None


def test_the_advice_where_not_even_chroot_is_allowed(tmp_path: Path):
    program = "from builder.sandbox.isolation import probe; from pathlib import Path; probe(Path('/tmp/state'))"
    done = run_in_pod(tmp_path, [sys.executable, "-c", program], strict=True, env=ENVIRONMENT, extra=["--cap-drop=ALL"])
    assert done.returncode == 1
    assert "needs either user 0 with the capability SYS_CHROOT" in done.stderr
    assert "unshare with a user namespace: Operation not permitted" in done.stderr
