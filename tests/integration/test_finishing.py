"""``--single-snapshot`` and ``--ignore-path``: other layers, the same files of the rest, and the same cache."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.flatten import FlatImage, differences, read_layout
from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS base
RUN mkdir -p /d/s && echo 1 > /d/s/one && ln /d/s/one /d/two && mkfifo /d/pipe && rm /srv/shared/file
FROM base
ENV STEP=2
COPY --link tool /opt/tool
RUN rm -r /d/s /bin/wc && chmod 700 /opt && echo three > /srv/shared/three
RUN rm -r /srv/shared && mkdir /srv/shared && echo four > /srv/shared/four && mkdir /d/s && ln -s ../two /d/s/one
WORKDIR /d/w
CMD ["/opt/tool"]
"""


@pytest.fixture
def given(tmp_path: Path, registry: Registry, busybox_layout: Path) -> list[str]:
    """A context, its base image and a cache, as arguments."""
    push_base(busybox_layout, registry)
    context = write_files(tmp_path / "context", {"Dockerfile": DOCKERFILE, "tool": "#!/bin/sh\n"})
    cache = ("--cache", f"--cache-repo={registry.host}/cache")
    return [
        str(context),
        f"--build-arg=BASE={registry.host}/base/busybox:1",
        "--reproducible",
        "--no-push",
        "-d=app:1",
        *cache,
    ]


def has_layer(image: FlatImage) -> list[bool]:
    return [not entry.get("empty_layer", False) for entry in image.config["history"]]


def test_one_layer_has_what_several_have_and_the_steps_are_cached_as_ever(tmp_path, given):
    several = Builder(tmp_path / "1")
    several.must(*given, f"--oci-layout-path={tmp_path}/several")
    whole = Builder(tmp_path / "2").must(*given, "--single-snapshot", f"--oci-layout-path={tmp_path}/one")
    assert set(whole.outcomes) == {"CACHED"}
    read_by_others(tmp_path / "one", tmp_path / "bundle")
    assert "one layer was made of 5" in whole.output
    first, one = read_layout(tmp_path / "several"), read_layout(tmp_path / "one")
    assert differences(one, first) == []
    assert [len(image.layers) for image in (first, one)] == [6, 2]
    assert has_layer(one)[-7:] == [False] * 5 + [True, False]
    for key in ("history", "rootfs"):
        del one.config[key], first.config[key]
    assert one.config == first.config
    again = Builder(tmp_path / "3").must(*given, "--squash", f"--digest-file={tmp_path}/digest")
    assert "was made" not in again.output
    (described,) = json.loads((tmp_path / "one/index.json").read_bytes())["manifests"]
    assert (tmp_path / "digest").read_text() == described["digest"]
    assert Builder(tmp_path / "3").left() == []  # not a layer was fetched


def test_ignored_paths_are_in_no_layer_and_later_steps_see_them(tmp_path, registry, given):
    dockerfile = "ARG BASE\nFROM ${BASE}\nCOPY tool /keep/tool\nRUN mkdir /keep/c /t && cp /keep/tool /keep/c/x\n"
    write_files(tmp_path / "context", {"Dockerfile": dockerfile + "RUN cp /keep/c/x /t/y && ln /t/y /keep/c/z\n"})
    ignored = ("--ignore-path=/keep/c", "--ignore-path=/srv/**", "--ignore-path=/t")
    layout, files = tmp_path / "layout", tmp_path / "files"
    Builder(tmp_path / "1").must(*given, *ignored[:2], f"--oci-layout-path={layout}", f"--output={files}")
    image = read_layout(layout)
    assert image.layers[1:] == [["keep", "keep/tool"], ["keep", "t"], ["keep", "t", "t/y"]]
    assert not (files / "keep/c").exists()
    assert "srv/shared/file" in image.files  # the base's own
    Builder(tmp_path / "2").must(*given, *ignored, "--squash", f"--oci-layout-path={tmp_path}/one")
    assert sorted(read_layout(tmp_path / "one").layers[1]) == ["keep", "keep/tool"]
    again = Builder(tmp_path / "3").must(*given, *ignored, "--squash", f"--digest-file={tmp_path}/digest")
    assert set(again.outcomes) == {"CACHED"}
    assert Builder(tmp_path / "3").left() == []


def read_by_others(layout: Path, bundle: Path) -> None:
    run = {"check": True, "capture_output": True, "text": True, "timeout": 60}
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:1", str(bundle)], **run)
    root = bundle / "rootfs"
    assert sorted(path.name for path in (root / "srv/shared").iterdir()) == ["four"]
    assert not (root / "bin/wc").exists()
    assert (root / "d/two").read_text() == "1\n"
    inspected = subprocess.run(["skopeo", "inspect", "--config", f"oci:{layout}:1"], **run)
    assert len(json.loads(inspected.stdout)["rootfs"]["diff_ids"]) == 2
