"""Programs in a container as a pod has it (default capabilities, default seccomp, nothing privileged), or as a user.

Both have a small root file system with this machine's programs, this Python and this project, at their usual paths.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.builder.roots import processes_with

PROJECT = Path(__file__).parents[1]
PROFILE = Path("/usr/share/containers/seccomp.json")
# What the profiles of Docker and containerd refuse to a container without SYS_ADMIN, and Debian's podman grants.
REFUSED = {"fsconfig", "fsmount", "fsopen", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root", "setns"}
REFUSED |= {"clone", "clone3", "umount", "umount2", "unshare"}
CLONE_NAMESPACES = 0x7E020000


READABLE = tuple(dict.fromkeys((Path("/usr"), Path(sys.base_prefix), PROJECT, Path(sys.prefix).resolve())))


@dataclass(frozen=True)
class User:
    """Who a program runs as; ``granted`` are the ids of /etc/subuid and /etc/subgid, as START:COUNT."""

    uid: int = 0
    granted: str = ""


ROOT = User()


def run_in_pod(
    tmp: Path,
    command: Sequence[str],
    *,
    volumes: Mapping[Path, str] | None = None,
    strict: bool = False,
    user: User = ROOT,
    env: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs a command of this machine in a fresh container whose root file system is an overlay.

    What is of this machine can only be read; the network is the host's. ``volumes`` are directories of the machine
    with the path that they get. ``strict`` applies a seccomp profile that refuses namespaces and mounts, as Docker's
    and containerd's do. ``extra`` are options of ``podman run``. ``tmp`` keeps the container's root file system.
    """
    rootfs = _make_rootfs(tmp / "rootfs", user)
    mounts = [f"--volume={path}:{path}:ro" for path in READABLE]
    mounts += [f"--volume={path}:{target}" for path, target in (volumes or {}).items()]
    options = [
        *extra,
        f"--user={user.uid}:{user.uid}",
        *(f"--env={name}={value}" for name, value in (env or {}).items()),
    ]
    if strict:
        options.append(f"--security-opt=seccomp={_strict_profile(tmp / 'seccomp.json')}")
    limits = ("--ulimit=nofile=20000:20000", "--ulimit=nproc=1000:1000", "--network=host", "--rm")
    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as own:  # podman refuses long paths here
        storage = ("--root", f"{own}/storage", "--runroot", f"{own}/run")
        podman = ("podman", *storage, "--runtime=runc", "--cgroup-manager=cgroupfs", "run", *limits)
        done = _run([*podman, *mounts, *options, "--rootfs", f"{rootfs}:O", *command])
        while processes_with(own):  # podman tidies up in the background, and would make the directory again
            time.sleep(0.01)
        return done


def run_as(
    tmp: Path, user: User, command: Sequence[str], *, volumes: Mapping[Path, str], env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command as an ordinary user of a machine, not of a container: nothing is hidden, no profile applies."""
    rootfs = _make_rootfs(tmp / "rootfs", user)
    binds = {path: str(path) for path in (*READABLE, *map(Path, ("/dev", "/proc", "/sys")))} | dict(volumes)
    lines = [f"mount --bind {rootfs} {rootfs}"]
    for path, target in binds.items():
        lines += [f"mkdir -p {rootfs}{target}", f"mount --rbind {path} {rootfs}{target}"]
    # Not chroot: from one the kernel lets nobody make a user namespace.
    lines += [f"cd {rootfs}", "pivot_root . var/tmp", "umount -l /var/tmp", "cd /"]
    variables = shlex.join(f"{name}={value}" for name, value in env.items())
    ids = f"--reuid={user.uid} --regid={user.uid} --clear-groups --inh-caps=-all"
    lines.append(f"exec setpriv {ids} env -i {variables} {shlex.join(command)}")
    return _run(["unshare", "--mount", "--propagation=private", "sh", "-ec", "\n".join(lines)])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def _make_rootfs(path: Path, user: User) -> Path:
    """Directories to mount on, the links of a merged /usr, and who there is."""
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"usr/{name}")
    (path / "tmp").chmod(0o1777)
    (path / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\nme:x:{user.uid}:{user.uid}::/tmp:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (path / "etc" / name).write_text(f"me:{user.granted}\n" if user.granted else "")
    return path


def _strict_profile(path: Path) -> Path:
    """Podman's own profile, less what other runtimes do not allow; clone stays, without namespaces."""
    profile = json.loads(PROFILE.read_text())
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in REFUSED]
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    no_namespace = {"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    profile["syscalls"] += [
        {"names": sorted(REFUSED - {"clone", "clone3"}), "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},  # ENOSYS: libc then uses clone
    ]
    path.write_text(json.dumps(profile))
    return path
