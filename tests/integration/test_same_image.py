"""The image is the one that another builder makes, on every rung of the sandbox's ladder, and the same every time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.container import User, run_as
from tests.flatten import FlatImage, differences, read_layout
from tests.integration.building import Builder, Ended, push_base, write_files
from tests.peers import Registry

DOCKERFILE = r"""
ARG BASE
FROM ${BASE} AS build
ARG VERSION=1
ENV NAME="my app" HOME=/root
WORKDIR /src/deep
COPY . .
RUN echo "$NAME $VERSION" > version && ln -s version link && ln version hard && mkfifo pipe \
 && chmod 4755 version && mkdir -p keep/empty && chown 1000:1000 keep
RUN ["/bin/sh", "-c", "rm -r docs && rm /etc/link && echo changed > /srv/shared/file"]

FROM ${BASE}
LABEL one=1 two="zwei drei"
EXPOSE 80 90/udp
VOLUME /data
STOPSIGNAL SIGINT
COPY --from=build --chown=me:me /src/deep/version /src/deep/link /opt/bin/
COPY --from=build /src/deep /all
COPY --chmod=0640 --chown=7 one.txt /etc/link-dir/
ADD archive.tar.gz /unpacked/
ADD one.txt /unpacked/renamed
WORKDIR /made/by/workdir
USER me
RUN touch /tmp/mine && id -u > /tmp/uid
USER root
RUN rm -r /srv/shared && mkdir /srv/shared && echo new > /srv/shared/other
RUN true
SHELL ["/bin/sh", "-ec"]
CMD echo done
ENTRYPOINT ["/bin/sh"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {
        "Dockerfile": DOCKERFILE,
        ".dockerignore": "# comment\n*.log\n!kept.log\ndocs/private\n",
        "one.txt": "one\n",
        "docs/a": "a\n",
        "docs/private/secret": "no\n",
        "skipped.log": "no\n",
        "kept.log": "yes\n",
        "tool/run.sh": "#!/bin/sh\n",
    }
    context = write_files(tmp_path / "context", files)
    (context / "tool" / "run.sh").chmod(0o755)
    (context / "tool" / "link").symlink_to("run.sh")
    inner = write_files(tmp_path / "inner", {"x/y": "y\n", "z": "z\n"})
    subprocess.run(
        ["tar", "-C", str(inner), "--owner=12", "--group=34", "-czf", str(context / "archive.tar.gz"), "."], check=True
    )
    return context


@pytest.fixture
def base(registry: Registry, busybox_layout: Path) -> str:
    return f"{registry.host}/{push_base(busybox_layout, registry)}"


def build(tmp_path: Path, name: str, context: Path, base: str, *more: str) -> FlatImage:
    """Our image, by way of an OCI layout."""
    layout = tmp_path / f"{name}-layout"
    Builder(tmp_path / name).must(
        context, f"--build-arg=BASE={base}", "--no-push", f"--oci-layout-path={layout}", *more
    )
    return read_layout(layout)


def buildah(tmp_path: Path, context: Path, base: str) -> FlatImage:
    """What Debian's buildah makes of the same Dockerfile."""
    roots = ("--root", str(tmp_path / "buildah"), "--runroot", str(tmp_path / "buildah-run"))
    command = ("buildah", "--storage-driver=overlay", *roots)
    given = ("--isolation=chroot", "--layers=false", "--tls-verify=false", f"--build-arg=BASE={base}", "--format=oci")
    try:
        _run(*command, "bud", *given, "-t", "theirs", str(context))
        _run(*command, "push", "theirs", f"oci:{tmp_path}/theirs")
    finally:
        subprocess.run([*command, "rmi", "--all", "--force"], capture_output=True, check=False)
        shutil.rmtree(tmp_path / "buildah", ignore_errors=True)
    return read_layout(tmp_path / "theirs")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


BUILDAH_LEAVES = frozenset({"dev", "proc", "sys", "run", "etc/hostname", "etc/hosts", "etc/resolv.conf", "data"})
"""What buildah's sandbox leaves behind as mount points, and the directory that it makes for a VOLUME; BuildKit does
neither."""


def test_files_are_those_that_buildah_makes(tmp_path, context, base):
    ours, theirs = build(tmp_path, "ours", context, base), buildah(tmp_path, context, base)
    assert "\n".join(differences(ours, theirs, BUILDAH_LEAVES)) == ""
    assert _comparable(ours.config["config"]) == _comparable(theirs.config["config"])


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The container's configuration without buildah's own label, and without SHELL and what it does to CMD: buildah
    leaves both out of an OCI image."""
    labels = {k: v for k, v in config["Labels"].items() if k != "io.buildah.version"}
    command = ["/bin/sh", "-c", *config["Cmd"][2:]]
    return {k: v for k, v in config.items() if k != "Shell"} | {"Labels": labels, "Cmd": command}


def test_every_rung_makes_the_same_image_to_the_byte(tmp_path, context, base):
    rungs = ("overlay", "namespaces", "chroot")
    images = {rung: build(tmp_path, rung, context, base, f"--isolation={rung}", "--reproducible") for rung in rungs}
    assert images["namespaces"].config == images["overlay"].config
    assert images["chroot"].config == images["overlay"].config


def test_an_ordinary_user_makes_the_same_image_to_the_byte(tmp_path, context, base):
    found = build_as(User(4711, "500000:65536"), tmp_path, context, base, "--oci-layout-path=/state/layout")
    assert "isolation: overlay (pid namespace)" in found.output
    expected = build(tmp_path, "root", context, base, "--reproducible")
    assert read_layout(tmp_path / "state" / "layout").config == expected.config
    assert {path.stat().st_uid for path in (tmp_path / "state" / "layout").rglob("*")} == {4711}


def build_as(user: User, tmp_path: Path, context: Path, base: str, *more: str) -> Ended:
    """A build of ``context``, at /context, by an ordinary user who may write to /state."""
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, user.uid, user.uid)
    given = ["/context", f"--build-arg=BASE={base}", "--no-push", "--reproducible", *more]
    builder = Builder(tmp_path / "nobody", {"HOME": "/state"})
    volumes = {state: "/state", context: "/context"}
    done = run_as(tmp_path, user, builder.command(*given), volumes=volumes, env=builder.environ())
    assert done.returncode == 0, done.stderr
    return Ended(done.returncode, done.stderr)


ONE_USER = """
ARG BASE
FROM ${BASE} AS other
COPY --chown=me:me one.txt /mine/
FROM ${BASE}
COPY --from=other /mine /mine
COPY --chown=7:8 one.txt docs /docs/
ADD archive.tar.gz /unpacked/
RUN echo more >> /docs/a; chmod 600 /unpacked/z; rm /docs/one.txt; mv /mine/one.txt /docs/moved
RUN stat -c %u:%g /mine /unpacked/x > /owners
"""


def test_an_ordinary_user_without_other_ids_keeps_owners(tmp_path, context, base):
    """Steps see files as root's, which the last one writes down; the layers know better."""
    (context / "Dockerfile").write_text(ONE_USER)
    outputs = ("type=local,dest=/state/out", "type=oci,dest=/state/layout,tar=false")
    found = build_as(User(4711), tmp_path, context, base, *(f"--output={output}" for output in outputs))
    assert "steps can run as user 0 only, and not change owners: /etc/subuid grants user me no ids" in found.output
    *layers, last = read_layout(tmp_path / "state" / "layout").config["rootfs"]["diff_ids"]
    *expected, other = build(tmp_path, "root", context, base, "--reproducible").config["rootfs"]["diff_ids"]
    assert layers == expected
    assert last != other
    assert (tmp_path / "state/out/owners").read_text() == "0:0\n0:0\n"
    assert {path.lstat().st_uid for path in (tmp_path / "state" / "out").rglob("*")} == {4711}


@pytest.mark.parametrize("how", ["--reproducible", "SOURCE_DATE_EPOCH"])
def test_two_builds_give_the_same_digest_whatever_the_checkout_s_times_and_owner(tmp_path, context, base, how):
    copy = tmp_path / "checked-out-again"
    shutil.copytree(context, copy, symlinks=True)
    for path in (*copy.rglob("*"), copy):
        os.chown(path, 4711, 4712, follow_symlinks=False)
        os.utime(path, (2e9, 2e9), follow_symlinks=False)
    digests = []
    for number, directory in enumerate((context, copy)):
        file = tmp_path / f"digest-{number}"
        environment = {"SOURCE_DATE_EPOCH": "86400"} if how == "SOURCE_DATE_EPOCH" else {}
        flags = [how] if how.startswith("--") else []
        Builder(tmp_path / str(number), environment).must(
            directory, f"--build-arg=BASE={base}", "--no-push", f"--digest-file={file}", *flags
        )
        digests.append(file.read_text())
    assert digests[0] == digests[1]


def test_layers_hold_only_what_changed(tmp_path, context, base):
    image = build(tmp_path, "ours", context, base)
    base_layer, *layers = image.layers
    assert "bin/busybox" in base_layer
    listed = [set(layer) for layer in layers]
    assert not any("bin/busybox" in layer for layer in listed)
    (touched,) = (layer for layer in listed if "tmp/mine" in layer)
    assert touched <= {"tmp", "tmp/mine", "tmp/uid"}
    (replaced,) = (layer for layer in listed if "srv/shared/other" in layer)
    assert replaced <= {
        "srv",
        "srv/shared",
        "srv/.wh.shared",
        "srv/shared/.wh..wh..opq",
        "srv/shared/.wh.file",
        "srv/shared/other",
    }
    empty = [entry for entry in image.config["history"] if entry.get("empty_layer")]
    assert any("RUN /bin/sh -c true" in entry["created_by"] for entry in empty)
    assert len(image.config["history"]) - len(empty) == len(image.layers)


def test_archives_are_read_by_other_tools(tmp_path, context, base, registry):
    Builder(tmp_path / "home").must(
        context,
        f"--build-arg=BASE={base}",
        "--no-push",
        "--destination=example.test/app:1",
        f"--tar-path={tmp_path}/image.tar",
        f"--oci-layout-path={tmp_path}/layout",
    )
    shown = [
        json.loads(subprocess.run(["skopeo", "inspect", "--config", name], check=True, capture_output=True).stdout)
        for name in (f"docker-archive:{tmp_path}/image.tar:example.test/app:1", f"oci:{tmp_path}/layout:1")
    ]
    assert shown[0]["rootfs"] == shown[1]["rootfs"]
    assert shown[0]["config"]["Entrypoint"] == ["/bin/sh"]
    _run("skopeo", "copy", f"docker-archive:{tmp_path}/image.tar:example.test/app:1", f"oci:{tmp_path}/copied:1")
    assert differences(read_layout(tmp_path / "copied"), read_layout(tmp_path / "layout")) == []
