"""Several platforms and several targets in one build, read back by programs that are not ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry

DOCKERFILE = """\
ARG BASE
FROM --platform=$BUILDPLATFORM ${BASE} AS tools
RUN echo tools > /tools
FROM tools AS compile
ARG TARGETPLATFORM BUILDPLATFORM TARGETARCH
RUN echo "$TARGETPLATFORM on $BUILDPLATFORM" > /made-for
FROM scratch AS app
COPY --from=compile /made-for /tools /
FROM scratch AS docs
COPY --from=tools /tools /docs
"""
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")
SKOPEO = ("skopeo", "--insecure-policy")


@pytest.fixture
def given(tmp_path: Path, registry: Registry, busybox_layout: Path) -> list[str]:
    push_base(busybox_layout, registry)
    context = write_files(tmp_path / "context", {"Dockerfile": DOCKERFILE})
    base = f"--build-arg=BASE={registry.host}/base/busybox:1"
    return [str(context), base, "--target=app", f"--platform={','.join(PLATFORMS)}", "--reproducible"]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "home")


def inspect(image: str, *more: str) -> Any:
    command = [*SKOPEO, "inspect", "--tls-verify=false", *more, image]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def platform_of(described: dict[str, str]) -> str:
    return "/".join(described[key] for key in ("os", "architecture", "variant") if described.get(key))


def test_an_index_is_pushed_and_what_does_not_depend_on_the_platform_is_built_once(given, builder, registry, tmp_path):
    name = f"{registry.host}/app:1"
    notes = ["--annotation=index:on=index", "--annotation=manifest[linux/arm64]:on=arm64"]
    ended = builder.must(*given, *notes, f"--destination={name}", f"--output={tmp_path}/files")
    index = inspect(f"docker://{name}", "--raw")
    assert [platform_of(child["platform"]) for child in index["manifests"]] == list(PLATFORMS)
    assert index["annotations"] == {"on": "index"}
    children = [inspect(f"docker://{registry.host}/app@{child['digest']}", "--raw") for child in index["manifests"]]
    assert [child.get("annotations") for child in children] == [None, {"on": "arm64"}, None]
    for platform, child in zip(PLATFORMS, index["manifests"], strict=True):
        config = inspect(f"docker://{registry.host}/app@{child['digest']}", "--config")
        assert platform_of(config) == platform
        files = tmp_path / "files" / platform.replace("/", "_")
        assert (files / "made-for").read_text() == f"{platform} on linux/amd64\n"
    done = [line for line in ended.rebuilt if "RUN" in line]
    assert len([line for line in done if "echo tools" in line]) == 1
    assert len([line for line in done if "made-for" in line]) == len(PLATFORMS)


def test_a_layout_holds_the_images_of_all_platforms(given, builder, tmp_path):
    builder.must(*given, f"--output=type=oci,dest={tmp_path}/layout,tar=false,name=app:1")
    (root,) = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert root["mediaType"] == "application/vnd.oci.image.index.v1+json"
    for number, platform in enumerate(PLATFORMS):
        _, architecture, *variant = platform.split("/")
        chosen = [f"--override-arch={architecture}", *(f"--override-variant={name}" for name in variant)]
        command = [*SKOPEO, *chosen, "copy", "-q", f"oci:{tmp_path}/layout:1", f"dir:{tmp_path}/{number}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_an_archive_for_docker_holds_one_platform(given, builder, tmp_path):
    ended = builder.build(*given, f"--output=type=docker,dest={tmp_path}/image.tar")
    assert ended.status == 1
    assert "holds the image of one platform: use type=oci for several" in ended.output


def test_a_command_for_a_machine_that_this_one_is_not_is_named(builder, tmp_path):
    context = write_files(tmp_path / "foreign", {"Dockerfile": 'FROM scratch\nRUN ["/bin/tool"]\n'})
    ended = builder.build(context, "--platform=linux/mips64", "--no-push")
    assert ended.status == 1
    assert "the command is for linux/mips64, and this machine (linux/amd64) cannot run it" in ended.output
    assert "Dockerfile:2" in ended.output


def test_each_output_says_which_target_it_is_made_of(given, builder, registry, tmp_path):
    one = [argument for argument in given if not argument.startswith("--platform")]
    docs = f"--output=type=image,name={registry.host}/docs:1,push=true,target=docs"
    ended = builder.must(
        *one, f"--destination={registry.host}/app:1", docs, f"--output=type=local,dest={tmp_path}/docs,target=docs"
    )
    assert (tmp_path / "docs/docs").read_text() == "tools\n"
    layers = [len(inspect(f"docker://{registry.host}/{name}:1")["Layers"]) for name in ("app", "docs")]
    assert layers == [1, 1]
    assert len([line for line in ended.rebuilt if "echo tools" in line]) == 1
