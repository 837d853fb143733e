"""The cases of tests/builder/cases, built by BuildKit as it is in Debian's dockerd, beside what is written in them.

    python -m tests.compare_builders [NAME...]

Starts a dockerd of its own on a private socket, without networks of containers, and a registry; ends both. Prints what
is different in configuration, history and layers. Cases in syntax that this BuildKit does not know yet are left out;
`KNOWN` lists the differences that are meant, with reasons. Ends with status 1 when there is any other.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.builder.case_files import Case, cases_with, describe_parts, diff_ids
from tests.debian import push_layout
from tests.integration.building import write_base
from tests.peers import start_registry

NOT_KNOWN_TO_IT = (
    *("<<", "--link", "--parents", "--exclude", "--checksum", "--unpack", "--start-interval", "chmod=u", "--network"),
    *("env=", "size=", "type=secret", "target=${", "##", "%%", "//lib", "a.zst", "ADD https", "-labs"),
)
"""What came to Dockerfiles after the BuildKit of Debian 12 (docker 20.10)."""

_OLD_HISTORY = (
    "its history has no values of arguments and no start interval, ports as a map, and arguments of RUN twice"
    " that are declared twice; later ones are like ours"
)
_OLD_COPY = "it leaves FIFOs out of copies and makes empty files of devices; later ones are like ours"
KNOWN = {
    "add_archive_over_what_is_there": "--chown does not reach what an archive holds; in later ones it does",
    "add_archive_that_follows_its_own_link": "a missing directory behind a link is an error; later ones make it",
    "arg_given": _OLD_HISTORY,
    "arg_given_is_not_expanded": _OLD_HISTORY,
    "arg_in_history_of_run": _OLD_HISTORY,
    "arg_of_the_platform_overridden": _OLD_HISTORY,
    "arg_proxies_are_not_kept": _OLD_HISTORY,
    "arg_several_in_one_line": "an argument does not see those before it in the same line; in later ones it does",
    "arg_target_stage": "it knows no TARGETSTAGE; later ones do",
    "expose_forms": _OLD_HISTORY,
    "expose_host_ports_are_passed_over": _OLD_HISTORY,
    "from_keeps_what_the_base_says": _OLD_HISTORY,
    "from_platform_architecture_alone": _OLD_HISTORY,
    "from_platform_of_the_builder": _OLD_HISTORY,
    "onbuild_sees_the_child_s_arguments": _OLD_HISTORY,
    "run_sets_what_is_set_already": "/etc/hosts cannot be written to there; ours is a copy for the step",
    "target_by_number": "its targets have names only; this one is ours",
    "workdir_above_the_root": "it keeps dots in the working directory; later ones are like ours",
    "arg_platform": "it knows no TARGETSTAGE; later ones do",
    "healthcheck_exec": _OLD_HISTORY,
    "healthcheck_last_wins": _OLD_HISTORY,
    "healthcheck_none": _OLD_HISTORY,
    "healthcheck_retries_shown_as_a_character": _OLD_HISTORY,
    "mount_bind_rw_is_thrown_away": "here the Dockerfile is in the context too",
    "mount_over_a_symlink": "it leaves mount points behind; later ones remove them",
    "mount_point_leaves_nothing": "it leaves mount points behind; later ones remove them",
    "copy_checkout_of_another_owner": "a context that comes as a tar keeps its owners",
    "copy_from_keeps_owners_and_modes": "--chmod drops set-user-id; later ones keep it",
    "copy_chmod_octal": "this one drops set-user-id, and expands no variables there; later ones are like ours",
    "files_that_are_special_in_the_context": _OLD_COPY,
    "hard_links_to_a_lower_layer": "on overlayfs a file that gets another name is in the layer under the old one, too",
    "run_makes_devices": _OLD_COPY,
    "run_makes_special_files": _OLD_COPY,
    "mount_bind_hides_and_shows_again": "its step has a layer of mount points",
    "onbuild_of_a_stage": "it looks for the trigger's stage in the build context; later ones are like ours",
}
"""Cases that differ on purpose."""

LEFT_BEHIND = re.compile(
    r"  drwxr-xr-x 0:0 (dev|proc|sys|src|m|c|d|other|deep|deep/er|rel|a|a/b|a/b/c|b|var|var/cache|var/cache/x)"
    r"|  -rw-r--r-- 0:0 (\S+/)?Dockerfile .*"
)
"""Mount points that this BuildKit leaves in a layer, which later ones remove as we do; and the Dockerfile, which for it
lies in the context."""


def main(names: Sequence[str]) -> int:
    cases = [case for case in cases_with("image.txt") if not names or case.directory.name in names]
    cases = [case for case in cases if names or _is_known(case)]
    different = 0
    with tempfile.TemporaryDirectory() as scratch, _peers(Path(scratch)) as (docker, base, base_diff_ids):
        for case in cases:
            found = _build(case, docker, base, base_diff_ids, Path(scratch))
            lines = _differences((case.directory / "image.txt").read_text(), found)
            known = KNOWN.get(case.directory.name, "")
            verdict = "the same" if not lines else f"differs: {known}" if known else "DIFFERS"
            print(f"{case.directory.name}: {verdict}")
            if lines and not known:
                different += 1
                print("\n".join(f"    {line}" for line in lines))
    print(f"{len(cases)} cases, {different} differ without a reason")
    return 1 if different else 0


def _is_known(case: Case) -> bool:
    """Whether this BuildKit can build it as it is sent to it: a tar, which is not cut by ``.dockerignore``."""
    text = case.dockerfile.read_text()
    arguments = case.arguments(case="", tmp="", base="")
    ignores = any((case.directory / name).exists() for name in ("context/.dockerignore", "Dockerfile.dockerignore"))
    foreign = any("--build-context" in argument for argument in arguments)
    return not any(part in text for part in NOT_KNOWN_TO_IT) and not foreign and not ignores


def _differences(ours: str, theirs: str) -> list[str]:
    told = _told(_without_empty_layers(theirs))
    compared = difflib.unified_diff(_told(ours), told, "ours", "theirs", n=0, lineterm="")
    lines = [line for line in compared if not line.startswith(("---", "+++", "@@"))]
    return [line for line in lines if not (line[0] == "+" and (LEFT_BEHIND.fullmatch(line[1:]) or line in LATER))]


LATER = ('+WorkingDir: "/"', "+ArgsEscaped: true")
"""What it writes for an image from scratch and for a CMD in shell form, and we do not: builder.planning.metadata."""


def _without_empty_layers(text: str) -> str:
    """The text of an image as BuildKit's own exporter writes it; the one in dockerd keeps layers that hold nothing."""
    head, *layers = re.split(r"^layer \d+\n", text, flags=re.MULTILINE)
    holding = [layer for layer in layers if layer]
    rest = iter(layers)
    lines = [
        line.replace("history:", "history (empty):", 1) if line.startswith("history:") and not next(rest, "") else line
        for line in head.splitlines(keepends=True)
    ]
    return "".join([*lines, *(f"layer {number}\n{layer}" for number, layer in enumerate(holding, 1))])


def _told(text: str) -> list[str]:
    """The lines to compare; the owner and mode of a copy are in the history of later versions only."""
    return [re.sub(r" --ch(own|mod)=\S+", "", line) if "# buildkit" in line else line for line in text.splitlines()]


@contextmanager
def _peers(scratch: Path) -> Iterator[tuple[list[str], str, list[str]]]:
    """The docker command, the name of the base and its layers."""
    layout = write_base(scratch)
    address = f"unix://{scratch}/docker.sock"
    places = [f"--data-root={scratch}/data", f"--exec-root={scratch}/exec", f"--pidfile={scratch}/pid"]
    alone = ["--bridge=none", "--iptables=false", "--ip-masq=false", "--storage-driver=vfs", f"--host={address}"]
    with start_registry(scratch / "registry") as registry:
        push_layout(layout, f"{registry.host}/base:1")
        daemon = subprocess.Popen(["dockerd", *places, *alone], stderr=subprocess.DEVNULL)
        docker = ["docker", "--host", address]
        try:
            for _ in range(100):
                if subprocess.run([*docker, "info"], capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.2)
            yield docker, f"{registry.host}/base:1", diff_ids(layout)
        finally:
            daemon.terminate()
            daemon.wait(30)


def _build(case: Case, docker: list[str], base: str, base_diff_ids: Sequence[str], scratch: Path) -> str:
    place = Path(tempfile.mkdtemp(dir=scratch))
    context = case.context(place)
    arguments = case.arguments(case=case.directory, tmp=place, base=base)
    build_args = {"BASE": base, **dict(a[12:].split("=", 1) for a in arguments if a.startswith("--build-arg="))}
    given = dict(a[2:].split("=", 1) for a in arguments if a.startswith("--"))
    platform = given.get("custom-platform", "")
    labels = dict(a[8:].split("=", 1) for a in arguments if a.startswith("--label="))
    query = {"version": "2", "t": "it", "nocache": "1", "networkmode": "host", "buildargs": json.dumps(build_args)}
    query |= {"platform": platform, "target": given.get("target", ""), "labels": json.dumps(labels)}
    shutil.copy(case.dockerfile, context / "Dockerfile")  # one more file in the context, which few cases look at
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(context, ".")
    said = _post(docker[2].removeprefix("unix://"), f"/build?{urlencode(query)}", packed.getvalue())
    if '"errorDetail"' in said or '"message"' in said:
        return said[-1500:]
    saved = subprocess.run([*docker, "save", f"--output={place}/image.tar", "it"], capture_output=True, check=False)
    if b"empty export" in saved.stderr:
        return _without_layers(docker)
    if saved.returncode:
        return saved.stderr.decode()
    with tarfile.open(place / "image.tar") as archive:
        (described,) = json.loads(_member(archive, "manifest.json"))
        config = json.loads(_member(archive, described["Config"]))
        above = 0 if config["rootfs"]["diff_ids"][: len(base_diff_ids)] != list(base_diff_ids) else len(base_diff_ids)
        return describe_parts(config, [_member(archive, name) for name in (described["Layers"] or ())[above:]])


def _without_layers(docker: list[str]) -> str:
    """The same of an image that cannot be saved, for it has no layer."""
    (image,) = json.loads(subprocess.run([*docker, "inspect", "it"], capture_output=True, check=True).stdout)
    listed = [*docker, "history", "--no-trunc", "--format={{.CreatedBy}}", "it"]
    lines = subprocess.run(listed, capture_output=True, check=True, text=True).stdout.splitlines()[::-1]
    entry = {"comment": "buildkit.dockerfile.v0", "empty_layer": True}
    config = {name: value for name, value in image["Config"].items() if name in CONTAINER_FIELDS}
    history = [{**entry, "created_by": line} for line in lines]
    return describe_parts({"config": config, "history": history, **_author(image)}, [])


def _author(image: dict[str, Any]) -> dict[str, str]:
    return {"author": image["Author"]} if image["Author"] else {}


CONTAINER_FIELDS = frozenset(
    ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User")
) | {"Volumes", "WorkingDir"}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _post(socket_path: str, target: str, body: bytes) -> str:
    """What the daemon answers, on its private socket; the daemon's own interface needs no other program."""
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(socket_path)
    connection.request("POST", target, body, {"Content-Type": "application/x-tar"})
    with contextlib.closing(connection):
        return connection.getresponse().read().decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
