"""How well the steps of a build can be kept apart from the builder on this machine: found out by trying, once.

The ladder, best first: OVERLAY, where the upper directory of a step *is* its layer; NAMESPACES, with mounts but without
overlayfs; CHROOT, with nothing but chroot(2). Reading ``/proc`` for what ought to work proved no good guide (seccomp,
AppArmor, masked paths and the file system of the state directory all have a say), so each rung is really climbed, in
children of the same program that later runs the steps.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from builder.errors import BuildError
from builder.sandbox import records
from builder.sandbox.ids import may_set_groups

_TIMEOUT_S = 20.0
_PROGRAM_ROOT = str(Path(__file__).parents[2])


class Rung(Enum):
    """What a step's root is made of; the later, the less is between it and the builder."""

    OVERLAY = "overlay"
    NAMESPACES = "namespaces"
    CHROOT = "chroot"


@dataclass(frozen=True, slots=True)
class Isolation:
    """How steps are run. ``reason`` says, for the log, why nothing better can be had; empty on the best rung."""

    rung: Rung
    user_namespace: bool
    pid_namespace: bool
    reason: str = ""

    def __str__(self) -> str:
        own = [name for name, on in (("user", self.user_namespace), ("pid", self.pid_namespace)) if on]
        return self.rung.value + (f" ({' and '.join(own)} namespace)" if own else "")


_LADDER = (
    Isolation(Rung.OVERLAY, user_namespace=False, pid_namespace=True),
    Isolation(Rung.OVERLAY, user_namespace=True, pid_namespace=True),
    Isolation(Rung.OVERLAY, user_namespace=True, pid_namespace=False),
    Isolation(Rung.OVERLAY, user_namespace=False, pid_namespace=False),
    Isolation(Rung.NAMESPACES, user_namespace=False, pid_namespace=True),
    Isolation(Rung.NAMESPACES, user_namespace=True, pid_namespace=True),
    Isolation(Rung.NAMESPACES, user_namespace=True, pid_namespace=False),
    Isolation(Rung.NAMESPACES, user_namespace=False, pid_namespace=False),
    Isolation(Rung.CHROOT, user_namespace=False, pid_namespace=False),
)

_ADVICE = (
    "RUN cannot work here. The builder needs either user 0 with the capability SYS_CHROOT (it is in every container"
    " runtime's default set: do not drop ALL) or, as any user, a machine that allows unshare(CLONE_NEWUSER)"
)
_OVERLAY_ADVICE = "an overlay cannot hold another: in a container, put the state directory on a volume"


def sandbox_command() -> list[str]:
    """The command line that starts the sandbox program; its specification goes to standard input.

    It is imported rather than named as a script, which would be compiled at every start. Our directory comes last in
    the search path, after the standard library.
    """
    start = f"import sys; sys.path.append({_PROGRAM_ROOT!r}); from builder.sandbox.program import main; main()"
    return [sys.executable, "-I", "-S", "-c", start]


def probe(directory: Path, forced: Rung | None = None) -> Isolation:
    """The best isolation that works with step roots below ``directory`` (or the best way to have the ``forced`` rung).

    Starts one child program and takes some 20 to 80 ms.

    Raises:
        BuildError: No rung (or not the forced one) works here; says what each attempt met, and what would help.
    """
    candidates = [candidate for candidate in _LADDER if forced in (None, candidate.rung)]
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=directory) as scratch:
        specs = [_trivial_step(Path(scratch, str(index)), choice) for index, choice in enumerate(candidates)]
        failures = _try_in_turn(specs)
    reason = _summary(failures)
    if len(failures) == len(candidates):
        raise BuildError(f"{_ADVICE if forced is None else f'isolation {forced.value} cannot be had here'}. {reason}")
    chosen = candidates[len(failures)]
    return Isolation(chosen.rung, chosen.user_namespace, chosen.pid_namespace, reason)


def _try_in_turn(specs: list[dict[str, Any]]) -> list[str]:
    """What was in the way of each candidate before the first that works."""
    done = subprocess.run(
        sandbox_command(),
        input=records.encode(specs),
        capture_output=True,
        env={},
        cwd="/",
        timeout=_TIMEOUT_S,
        check=False,
    )
    try:
        failures = records.read(io.BytesIO(done.stdout))
    except (EOFError, ValueError, TypeError) as error:
        detail = done.stderr.decode(errors="replace").strip()
        raise BuildError(f"the sandbox program cannot be started ({sys.executable}): {detail}") from error
    return [failure.replace(spec["root"], "the root") for failure, spec in zip(failures, specs, strict=False)]


def _trivial_step(directory: Path, choice: Isolation) -> dict[str, Any]:
    """The specification of an attempt: a root with one file and no command, for the sandbox then tries the root."""
    names = ("lower", "upper", "work", "scratch")
    paths = {name: directory / name for name in names}
    for path in paths.values():
        path.mkdir(parents=True)
    (paths["lower"] / "file").touch()
    if choice.rung is not Rung.OVERLAY:
        shutil.copytree(paths["lower"], paths["work"], dirs_exist_ok=True)
    return {
        "rung": choice.rung.value,
        "user_namespace": choice.user_namespace,
        "pid_namespace": choice.pid_namespace,
        "may_set_groups": may_set_groups(),
        "root": str(paths["work"]),
        "scratch": str(paths["scratch"]),
        "lower": [str(paths["lower"])],
        "upper": str(paths["upper"]),
        "hostname": "",
        "network": "default",
        "mounts": [],
    }


def _summary(failures: list[str]) -> str:
    """What was in the way, each thing once, with what may help."""
    said = list(dict.fromkeys(failures))
    on_overlay = any(failure.startswith("mount overlay on the root: Invalid argument") for failure in said)
    return "; ".join(said) + (f" ({_OVERLAY_ADVICE})" if on_overlay else "")
