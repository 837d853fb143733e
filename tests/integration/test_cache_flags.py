"""What of a build's steps is looked up and saved, and where base images come from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry
from tests.programs import CROSSDOCK

DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY file /file
RUN cp /file /copy
"""


@pytest.fixture
def given(tmp_path: Path, registry: Registry, busybox_layout: Path) -> list[str]:
    push_base(busybox_layout, registry)
    context = write_files(tmp_path / "context", {"Dockerfile": DOCKERFILE, "file": "1\n"})
    return [str(context), f"--build-arg=BASE={registry.host}/base/busybox:1", "--no-push", "--cache"]


def hits(builder: Builder, *arguments: object) -> list[bool]:
    return [outcome == "CACHED" for outcome in builder.must(*arguments).outcomes]


def test_kinds_of_steps_are_left_out_of_the_cache(tmp_path, given, registry):
    place = (*given, f"--cache-repo={registry.host}/cache")
    builder = Builder(tmp_path / "home")
    assert hits(builder, *place, "--cache-run-layers=false") == [False, False]
    assert hits(builder, *place, "--cache-copy-layers=false") == [False, False]  # neither was RUN saved
    assert hits(builder, *place, "--cache-run-layers=false") == [True, False]
    assert hits(builder, *place) == [True, True]


def test_the_cache_is_a_directory_and_may_be_only_read(tmp_path, given):
    place = (*given, f"--cache-repo=oci:{tmp_path}/cache")
    assert hits(Builder(tmp_path / "1"), *place, "--no-push-cache") == [False, False]
    assert not (tmp_path / "cache").exists()
    assert hits(Builder(tmp_path / "2"), *place) == [False, False]
    blobs = sorted((tmp_path / "cache/v1/blobs").rglob("*"))
    read = (*place, "--no-push-cache", "--single-snapshot", f"--oci-layout-path={tmp_path}/layout")
    ended = Builder(tmp_path / "3", {"KANIKO_PRINT_PLAN": "true"}).must(*read)
    assert ended.outcomes == ["CACHED", "CACHED"]
    assert ended.output.count(", key ") == 2
    assert (tmp_path / "layout/index.json").exists()
    assert sorted((tmp_path / "cache/v1/blobs").rglob("*")) == blobs  # not the one layer that this build made


def test_layers_of_base_images_come_from_the_directory_that_was_warmed(tmp_path, given, registry):
    base = f"{registry.host}/base/busybox:1"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [*CROSSDOCK, "warm", f"--image={base}", "-c", str(tmp_path / "cache")]
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)
    before = registry.count("GET", "/blobs/")
    assert hits(Builder(tmp_path / "home"), *given, f"--cache-dir={tmp_path}/cache") == [False, False]
    assert registry.count("GET", "/blobs/") == before + 1  # the configuration
    layer = max((tmp_path / "cache/v1/blobs").rglob("*"), key=lambda path: path.stat().st_size)
    whole = layer.read_bytes()
    for number, damaged in enumerate((whole[: len(whole) // 2], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])):
        layer.chmod(0o644)
        layer.write_bytes(damaged)
        before = registry.count("GET", "/blobs/")
        ended = Builder(tmp_path / str(number)).must(*given, f"--cache-dir={tmp_path}/cache")
        assert registry.count("GET", "/blobs/") == before + 2  # the configuration, and the layer that is damaged here
        assert ended.output.count("has a damaged layer, which is not used: expected") == 1


def damage_blobs(store: Path) -> None:
    for blob in (store / "v1/blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(blob.read_bytes()[:-9] + b"?" * 9)


def test_a_damaged_layer_that_nothing_else_has_is_an_error(tmp_path, given):
    place = (*given, f"--cache-repo=oci:{tmp_path}/cache")
    Builder(tmp_path / "1").must(*place)
    damage_blobs(tmp_path / "cache")
    (Path(given[0]) / "Dockerfile").write_text(f"{DOCKERFILE}RUN true\n")
    ended = Builder(tmp_path / "2").build(*place, "--no-push-cache")
    assert (ended.status, "is nowhere whole" in ended.output) == (1, True), ended.output


def test_a_damaged_layer_gets_into_no_archive(tmp_path, given):
    builder, place = Builder(tmp_path / "home"), (*given, f"--state-dir={tmp_path}/state")
    builder.must(*place)
    damage_blobs(tmp_path / "state/store")
    for output in (f"--tar-path={tmp_path}/a.tar", f"--output=type=oci,dest={tmp_path}/b.tar"):
        ended = builder.build(*place, output)
        assert ended.outcomes == ["CACHED", "CACHED"]
        assert (ended.status, "is damaged in" in ended.output) == (1, True), ended.output
    assert builder.build(*place, f"--oci-layout-path={tmp_path}/layout").status == 1
    assert [*tmp_path.glob("*.tar"), *tmp_path.glob("layout/blobs/sha256/*"), *tmp_path.glob("layout/*.json")] == []
