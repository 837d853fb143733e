"""The cases of tests/builder/cases, built by Debian's buildah beside ours: files and configuration of the whole image.

    python -m tests.compare_buildah [NAME...]

Prints what is different. `OTHER` lists the differences that are meant, with reasons; a case that this buildah cannot
build is told with its own words and counted, and no difference. Ends with status 1 when there is any other. Histories
and the division into layers are compared with BuildKit (tests/compare_builders.py): buildah has its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.builder.case_files import Case, cases_with
from tests.flatten import FlatImage, differences, read_layout
from tests.integration.building import Builder, push_base, write_base
from tests.peers import start_registry

LEFT_BEHIND = frozenset({"dev", "proc", "sys", "run", "etc/hostname", "etc/hosts", "etc/resolv.conf"})
"""Mount points of its sandbox."""

_OCI_ONLY = "it leaves health check, shell and triggers out of what it pushes as OCI"
OTHER = {
    "add_archive_over_what_is_there": "--chown does not reach what an archive holds; in BuildKit it does",
    "arg_in_history_of_run": "an ENV of the same name wins over a later ARG; in BuildKit the later one does",
    "arg_several_in_one_line": "an argument does not see those before it in the same line; in BuildKit it does",
    "arg_target_stage": "it knows no TARGETSTAGE",
    "copy_keeps_modes": "it drops set-user-id and set-group-id of files from the context; BuildKit keeps them",
    "copy_onto_links": "it replaces a link that is the destination; BuildKit follows it",
    "env_seen_by_commands": "it sets HOSTNAME, too",
    "expansion_back_quote_escape": "it escapes with a backslash whatever the directive says",
    "expansion_of_names": "it gives $$ back for what BuildKit expands to nothing",
    "expose_forms": "it writes ports as they stand; BuildKit in its normal form, and ranges one by one",
    "expose_host_ports_are_passed_over": "it writes ports as they stand; BuildKit drops the host's part",
    "from_keeps_what_the_base_says": _OCI_ONLY,
    "hard_links_to_a_lower_layer": "it makes one layer, and links do not reach across layers",
    "healthcheck_exec": _OCI_ONLY,
    "healthcheck_last_wins": _OCI_ONLY,
    "healthcheck_none": _OCI_ONLY,
    "healthcheck_retries_shown_as_a_character": _OCI_ONLY,
    "ignore_exceptions": "it drops what an exception with ** has below a directory that is left out",
    "mount_bind_context": "it mounts the context as it is, with what .dockerignore leaves out, and its owners",
    "mount_over_a_symlink": "it mounts nothing where a link in the image leads; BuildKit does",
    "onbuild_recorded": _OCI_ONLY,
    "shell_for_run": _OCI_ONLY,
    "shell_form_uses_shell": "it puts /bin/sh before a command in shell form whatever SHELL says",
    "stage_name_twice": "of two stages of one name it takes now the one, now the other",
    "stage_name_scratch": "no stage can be called scratch there",
    "volume_forms": "it makes the directories of VOLUME",
    "volume_in_the_base_keeps_what_is_copied": "it drops what is written below a VOLUME; BuildKit keeps it",
    "workdir_above_the_root": "it keeps dots in the working directory",
}
"""Cases that differ on purpose."""

UNDERSTOOD = ("--build-arg=", "--target=", "--label=", "--build-context=", "--secret=")


def main(names: Sequence[str]) -> int:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="xd-") as scratch, start_registry(Path(scratch) / "registry") as registry:
        base = f"{registry.host}/{push_base(write_base(Path(scratch)), registry)}"
        for case in cases_with("image.txt"):
            if not names or case.directory.name in names:
                with tempfile.TemporaryDirectory(prefix="xd-") as place:
                    verdict, lines = compare(case, Path(place), base)
                counts[verdict.partition(":")[0]] += 1
                print("\n    ".join([f"{case.directory.name}: {verdict}", *lines]), flush=True)
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return 1 if counts["DIFFERS"] else 0


def compare(case: Case, place: Path, base: str) -> tuple[str, list[str]]:
    """The verdict, and what is different."""
    context = case.context(place)
    arguments = case.arguments(case=case.directory, tmp=place, base=base)
    foreign = [argument for argument in arguments if not argument.startswith(UNDERSTOOD)]
    if foreign:
        return f"not compared: {foreign[0]} is ours", []
    theirs = built_by_buildah(case, place, context, base, arguments)
    if isinstance(theirs, str):
        return f"not compared: {theirs}", []
    given = (f"--dockerfile={case.dockerfile}", f"--build-arg=BASE={base}", "--no-push", *arguments)
    Builder(place / "ours").must(context, *given, f"--oci-layout-path={place}/layout")
    ours = read_layout(place / "layout")
    lines = differences(ours, theirs, LEFT_BEHIND)
    mine, other = comparable(ours), comparable(theirs)
    fields = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
    lines += [f"{name}: {json.dumps(mine.get(name))} != {json.dumps(other.get(name))}" for name in fields]
    if not lines:
        return "the same", []
    known = OTHER.get(case.directory.name)
    return (f"differs: {known}", []) if known else ("DIFFERS", lines)


def built_by_buildah(case: Case, place: Path, context: Path, base: str, arguments: Sequence[str]) -> FlatImage | str:
    """Its image, or the last line of what it says."""
    storage = ("buildah", f"--root={place}/root", f"--runroot={place}/run", "--storage-driver=overlay")
    given = (
        "--isolation=chroot",
        "--layers=false",
        "--tls-verify=false",
        f"--build-arg=BASE={base}",
        "--format=docker",
    )
    commands = (
        ("bud", *given, *arguments, f"--file={case.dockerfile}", "--tag=theirs", str(context)),
        ("push", "theirs", f"oci:{place}/theirs"),
    )
    environ = os.environ | {"TMPDIR": str(place)}
    try:
        for command in commands:
            done = subprocess.run([*storage, *command], capture_output=True, text=True, timeout=60, env=environ)
            if done.returncode:
                return (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:200]
        return read_layout(place / "theirs")
    except subprocess.TimeoutExpired:
        return "it does not end"
    finally:
        subprocess.run([*storage, "rmi", "--all", "--force"], capture_output=True, check=False)
        subprocess.run(["umount", str(place / "root" / "overlay")], capture_output=True, check=False)


def comparable(image: FlatImage) -> dict[str, Any]:
    """The container's configuration, without what is empty and buildah's own label."""
    config = dict(image.config.get("config", {}))
    labels = {name: text for name, text in (config.get("Labels") or {}).items() if name != "io.buildah.version"}
    return {name: value for name, value in (config | {"Labels": labels}).items() if value}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
