"""A small root with busybox in it, and steps run in it on each rung of the ladder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.isolation import Isolation, Rung, probe
from builder.sandbox.run import DirectoryRoot, OverlayRoot, RunResult, RunSpec, run_step

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    *("sh", "cat", "chmod", "chown", "grep", "head", "id", "ln", "ls", "mkdir", "mv", "pwd", "rm", "rmdir", "sleep"),
    *("stat", "test", "touch", "true", "yes"),
)
RUNGS = ("overlay", "overlay-userns", "overlay-userns-nopid", "namespaces", "namespaces-userns-nopid", "chroot")


def make_busybox_root(path: Path) -> Path:
    """A root directory with busybox, a user database without passwords, and nothing else."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for name in APPLETS:
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc").mkdir()
    (path / "etc/passwd").write_text("root::0:0:root:/:/bin/sh\nme::1000:1000:me:/:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nme:x:1000:\n")
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    return path


@dataclass
class Machine:
    """A root on one rung; ``changed`` is where what a step makes is to be found."""

    isolation: Isolation
    root: OverlayRoot | DirectoryRoot
    changed: Path
    output: bytearray = field(default_factory=bytearray)

    @property
    def files(self) -> set[str]:
        """All paths below ``changed``, busybox's own apart."""
        found = {str(path.relative_to(self.changed)) for path in self.changed.rglob("*")}
        return {path for path in found if not path.startswith("bin")}

    async def run(self, *argv: str, **options: Any) -> RunResult:
        """Runs a command with busybox on its PATH; the output is appended to ``output``."""
        options.setdefault("env", {"PATH": "/bin"})
        spec = RunSpec(argv, **options)
        return await run_step(self.isolation, self.root, spec, self.output.extend)

    async def sh(self, script: str, **options: Any) -> str:
        """The output of a script that must succeed."""
        self.output.clear()
        result = await self.run("sh", "-ec", script, **options)
        assert result.exit_code == 0, self.output.decode()
        return self.output.decode()


def make_machine(directory: Path, isolation: Isolation, lower: Path | None = None) -> Machine:
    """A fresh root on this rung, below ``directory``."""
    lower = lower or make_busybox_root(directory / "lower")
    if isolation.rung is not Rung.OVERLAY:
        return Machine(isolation, DirectoryRoot(lower), lower)
    upper, work = directory / "upper", directory / "work"
    upper.mkdir()
    work.mkdir()
    return Machine(isolation, OverlayRoot((lower,), upper, work), upper)


def every_isolation(state_dir: Path) -> dict[str, Isolation]:
    """Each kind of isolation that this machine, where the tests are root, is known to offer."""
    overlay = probe(state_dir, Rung.OVERLAY)
    return {
        "overlay": overlay,
        "overlay-userns": Isolation(Rung.OVERLAY, user_namespace=True, pid_namespace=True),
        "overlay-userns-nopid": Isolation(Rung.OVERLAY, user_namespace=True, pid_namespace=False),
        "namespaces": probe(state_dir, Rung.NAMESPACES),
        "namespaces-userns-nopid": Isolation(Rung.NAMESPACES, user_namespace=True, pid_namespace=False),
        "chroot": probe(state_dir, Rung.CHROOT),
    }


def processes_with(marker: str) -> set[int]:
    """The processes of the machine that have ``marker`` in their command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:  # gone meanwhile
            continue
    return found


@pytest.fixture(scope="session")
def isolations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Isolation]:
    return every_isolation(tmp_path_factory.mktemp("probe"))


@pytest.fixture(params=RUNGS)
def machine(request: pytest.FixtureRequest, tmp_path: Path, isolations: dict[str, Isolation]) -> Machine:
    return make_machine(tmp_path, isolations[request.param])


@pytest.fixture
def overlay(tmp_path: Path, isolations: dict[str, Isolation]) -> Machine:
    return make_machine(tmp_path, isolations["overlay"])
