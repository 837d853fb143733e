"""What the tests of whole builds share: a busybox base image, contexts, and the builder as a program."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.builder.roots import APPLETS, make_busybox_root
from tests.debian import push_layout, write_layout
from tests.peers import Registry
from tests.programs import CROSSDOCK

STEP = re.compile(r"^\[\S+ \d+/\d+\] .*: (CACHED|NOT NEEDED|[\d.]+s, .+)$", re.MULTILINE)


@pytest.fixture(scope="session")
def busybox_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with a small image: busybox, two users, a directory with the set-group-id bit, a link to a file."""
    return write_base(tmp_path_factory.mktemp("busybox"))


def write_base(made: Path) -> Path:
    """The same below ``made``."""
    root = make_busybox_root(made / "root")
    for name in {"cp", "date", "find", "mkfifo", "sort", "true", "wc"} - set(APPLETS):
        (root / "bin" / name).symlink_to("busybox")
    shared = root / "srv" / "shared"
    shared.mkdir(parents=True)
    (shared / "file").write_text("from the base\n")
    shared.chmod(0o2775)
    os.chown(shared, 0, 1000)
    (root / "etc" / "link").symlink_to("../srv/shared/file")
    write_layout(root, made / "layout")
    return made / "layout"


def push_base(layout: Path, registry: Registry, name: str = "base/busybox:1") -> str:
    """Puts the base into a registry and gives its name there, without the host."""
    login = f"{registry.username}:{registry.password}" if registry.username else None
    push_layout(layout, f"{registry.host}/{name}", login)
    return name


def write_files(directory: Path, files: Mapping[str, str]) -> Path:
    """Makes a build context of these texts."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


@dataclass(frozen=True)
class Ended:
    """A build that has ended."""

    status: int
    output: str

    @property
    def outcomes(self) -> list[str]:
        """How each step ended, in order: CACHED, NOT NEEDED, or seconds and size."""
        return STEP.findall(self.output)

    @property
    def rebuilt(self) -> list[str]:
        """The steps that were really done."""
        steps = (match.group() for match in STEP.finditer(self.output))
        return [line for line in steps if not line.endswith((": CACHED", ": NOT NEEDED"))]


@dataclass(frozen=True)
class Builder:
    """``crossdock build`` with a home of its own."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: object) -> list[str]:
        return [*CROSSDOCK, "build", "--progress=plain", *(str(argument) for argument in arguments)]

    def environ(self) -> dict[str, str]:
        self.home.mkdir(parents=True, exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **self.environment}

    def left(self) -> list[Path]:
        """The files that builds have left in its home, apart from digests of contexts' files: no layer, no store."""
        return [path for path in self.home.rglob("*") if path.is_file() and path.parent.name != "file-digests"]

    def build(self, *arguments: object) -> Ended:
        """Runs a build to its end."""
        done = subprocess.run(
            self.command(*arguments), env=self.environ(), capture_output=True, text=True, timeout=100, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stderr)

    def must(self, *arguments: object) -> Ended:
        """Runs a build that must succeed."""
        ended = self.build(*arguments)
        assert ended.status == 0, ended.output
        return ended
