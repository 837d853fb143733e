"""Programs in a container as a pod has it: user 0, default capabilities, default seccomp, nothing privileged."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.builder.roots import processes_with

PROJECT = Path(__file__).parents[1]
PROFILE = Path("/usr/share/containers/seccomp.json")
# What the profiles of Docker and containerd refuse to a container without SYS_ADMIN, and Debian's podman grants.
REFUSED = {"fsconfig", "fsmount", "fsopen", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root", "setns"}
REFUSED |= {"clone", "clone3", "umount", "umount2", "unshare"}
CLONE_NAMESPACES = 0x7E020000


def run_in_pod(
    tmp: Path,
    command: Sequence[str],
    *,
    volumes: Mapping[Path, str] | None = None,
    strict: bool = False,
    env: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs a command of this machine in a fresh container whose root file system is an overlay.

    The container has this machine's programs, this Python and this project, all read-only, at their usual paths, and
    the host's network. ``volumes`` are directories of the machine with the path that they get. ``strict`` applies a
    seccomp profile that refuses namespaces and mounts, as Docker's and containerd's do. ``extra`` are options of
    ``podman run``. ``tmp`` keeps the container's root file system.
    """
    rootfs = _make_rootfs(tmp / "rootfs")
    read_only = [Path("/usr"), Path(sys.base_prefix), PROJECT, Path(sys.prefix)]
    mounts = [f"--volume={path}:{path}:ro" for path in dict.fromkeys(read_only)]
    mounts += [f"--volume={path}:{target}" for path, target in (volumes or {}).items()]
    options = [*extra, *(f"--env={name}={value}" for name, value in (env or {}).items())]
    if strict:
        options.append(f"--security-opt=seccomp={_strict_profile(tmp / 'seccomp.json')}")
    limits = ("--ulimit=nofile=20000:20000", "--ulimit=nproc=1000:1000", "--network=host", "--rm")
    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as own:  # podman refuses long paths here
        storage = ("--root", f"{own}/storage", "--runroot", f"{own}/run")
        podman = ("podman", *storage, "--runtime=runc", "--cgroup-manager=cgroupfs", "run", *limits)
        done = subprocess.run(
            [*podman, *mounts, *options, "--rootfs", f"{rootfs}:O", *command],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        while processes_with(own):  # podman tidies up in the background, and would make the directory again
            time.sleep(0.01)
        return done


def _make_rootfs(path: Path) -> Path:
    """Directories to mount on, and the links of a merged /usr."""
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"usr/{name}")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
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
