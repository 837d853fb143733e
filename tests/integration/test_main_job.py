"""The whole way: registry, proxy, base image, steps in the sandbox, cache, push with credentials."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.oci.digest import Digest
from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry
from tests.programs import start_proxy, write_docker_config

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS build
WORKDIR /src
COPY list ./
RUN mkdir out && while read name; do echo "made $name" > out/$name; done < list
COPY app/ app/
RUN cat app/* > out/app

FROM ${BASE}
ENV GREETING=hello
COPY --from=build /src/out /srv/app/
RUN echo "$GREETING from $(ls /srv/app | wc -l) files" > /facts
LABEL kind=test
CMD ["cat", "/facts"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"Dockerfile": DOCKERFILE, "list": "one\ntwo\n", "app/a": "a\n", "app/b": "b\n"}
    return write_files(tmp_path / "context", files)


@pytest.fixture
def proxy(tmp_path: Path, private_registry: Registry, busybox_layout: Path) -> Iterator[str]:
    push_base(busybox_layout, private_registry)
    options = (f"--upstream=up.test={private_registry.url}", "--default-upstream=up.test", "--hosted=cache")
    with start_proxy(tmp_path / "proxy", *options) as address:
        yield address


def new_builder(tmp_path: Path, name: str, proxy: str, registry: Registry) -> Builder:
    """A builder with an empty disk that knows the upstream's password for the proxy."""
    login = f"{registry.username}:{registry.password}"
    config = write_docker_config(tmp_path / "docker", {proxy: login})
    return Builder(tmp_path / name, {"DOCKER_CONFIG": str(config)})


def arguments(context: Path, proxy: str, tag: str) -> list[str]:
    return [
        str(context),
        f"--build-arg=BASE={proxy}/base/busybox:1",
        "--cache",
        f"--cache-repo={proxy}/cache/app",
        f"--destination={proxy}/team/app:{tag}",
    ]


def skopeo(registry: Registry, command: str, *more: str) -> str:
    login = f"--creds={registry.username}:{registry.password}"
    done = subprocess.run(
        ["skopeo", command, "--tls-verify=false", login, *more], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_the_second_build_runs_nothing_and_moves_no_layer(tmp_path, context, proxy, private_registry):
    first = new_builder(tmp_path, "one", proxy, private_registry).must(*arguments(context, proxy, "1"))
    assert "CACHED" not in first.outcomes
    assert len(first.outcomes) == 10

    before = len(private_registry.requests())
    second = new_builder(tmp_path, "two", proxy, private_registry).must(*arguments(context, proxy, "2"))
    assert second.outcomes == ["CACHED"] * 10
    assert "isolation" not in second.output
    later = private_registry.requests()[before:]
    assert [r for r in later if r.method == "GET" and "/blobs/" in r.path] == []
    assert Builder(tmp_path / "two").left() == []

    inspected = json.loads(skopeo(private_registry, "inspect", f"docker://{private_registry.host}/team/app:2"))
    assert inspected["Labels"] == {"kind": "test"}


def test_an_image_for_another_repository_is_pushed_without_moving_layers_through_the_builder(
    tmp_path, context, proxy, private_registry
):
    new_builder(tmp_path, "one", proxy, private_registry).must(*arguments(context, proxy, "1"))
    second = new_builder(tmp_path, "two", proxy, private_registry).must(
        *arguments(context, proxy, "2"), f"--destination={proxy}/other/app:1"
    )
    assert second.outcomes == ["CACHED"] * 10
    for line in (line for line in second.output.splitlines() if line.startswith("pushed ")):
        assert " in 0 blobs" in line or " in 1 blobs" in line, line  # the config at the most
    skopeo(private_registry, "inspect", f"docker://{private_registry.host}/other/app:1")


def test_a_changed_source_file_rebuilds_only_what_depends_on_it(tmp_path, context, proxy, private_registry):
    new_builder(tmp_path, "one", proxy, private_registry).must(*arguments(context, proxy, "1"))
    (context / "app" / "a").write_text("changed\n")
    second = new_builder(tmp_path, "two", proxy, private_registry).must(*arguments(context, proxy, "2"))
    assert [line.split("] ")[1].split(": ")[0] for line in second.rebuilt if "no layer" not in line] == [
        "COPY app/ app/",
        "RUN cat app/* > out/app",
        "COPY --from=build /src/out /srv/app/",
        'RUN echo "$GREETING from $(ls /srv/app | wc -l) files" > /facts',
    ]


def test_metadata_changes_rebuild_nothing(tmp_path, context, proxy, private_registry):
    new_builder(tmp_path, "one", proxy, private_registry).must(*arguments(context, proxy, "1"))
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text().replace("kind=test", "kind=other").replace("WORKDIR", "EXPOSE 1\nWORKDIR")
    )
    second = new_builder(tmp_path, "two", proxy, private_registry).must(*arguments(context, proxy, "2"))
    assert set(second.outcomes) == {"CACHED"}
    inspected = json.loads(skopeo(private_registry, "inspect", f"docker://{private_registry.host}/team/app:2"))
    assert inspected["Labels"] == {"kind": "other"}


def test_the_local_store_is_the_cache_where_no_repository_is_given(tmp_path, context, registry, busybox_layout):
    push_base(busybox_layout, registry)
    builder = Builder(tmp_path / "home")
    given = [context, f"--build-arg=BASE={registry.host}/base/busybox:1", "--cache"]
    builder.must(*given, "--no-push")
    second = builder.must(*given, f"--destination={registry.host}/app:1", f"--digest-file={tmp_path}/digest")
    assert set(second.outcomes) == {"CACHED"}
    digest = (tmp_path / "digest").read_text()
    assert str(Digest.parse(digest)) == digest
    shown = skopeo_open(registry, "inspect", "--format={{.Digest}}", f"docker://{registry.host}/app:1")
    assert shown.strip() == digest


def skopeo_open(registry: Registry, command: str, *more: str) -> str:
    done = subprocess.run(["skopeo", command, "--tls-verify=false", *more], check=True, capture_output=True, text=True)
    return done.stdout


def test_a_cache_that_cannot_be_reached_is_warned_of_and_the_image_is_built(
    tmp_path, context, registry, busybox_layout
):
    push_base(busybox_layout, registry)
    ended = Builder(tmp_path / "home").must(
        context,
        f"--build-arg=BASE={registry.host}/base/busybox:1",
        "--cache",
        "--cache-repo=127.0.0.1:1/cache",
        "--no-push",
    )
    assert "warning: the cache cannot be read" in ended.output
    assert "CACHED" not in ended.outcomes
