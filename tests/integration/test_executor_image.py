"""A Kaniko user's pipeline in the executor image that our own builder made, under podman with default capabilities."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builder.case_files import describe
from tests.builder.servers import repository
from tests.debian import push_layout
from tests.peers import Registry, start_registry
from tests.programs import CROSSDOCK, ROOT, environment, write_docker_config

__all__ = ["repository"]

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS build
WORKDIR /src
COPY greeting.txt .
RUN tr a-z A-Z < greeting.txt > loud.txt && chmod 640 loud.txt

FROM ${BASE}
RUN useradd --uid 4321 --create-home speaker
COPY --from=build --chown=speaker /src/loud.txt /home/speaker/
USER speaker
CMD ["cat", "/home/speaker/loud.txt"]
"""
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Pipeline:
    """A private registry, the executor image in podman's storage, and the ``config.json`` that gets mounted."""

    tmp: Path
    run_root: str
    registry: Registry
    docker_config: Path

    @property
    def executor_image(self) -> str:
        """The image that our builder made."""
        return f"{self.registry.host}/tools/crossdock:test"

    @property
    def base(self) -> str:
        """The base image of Dockerfiles."""
        return f"{self.registry.host}/base/debian:1"

    def podman(self, *arguments: str) -> Done:
        """Runs podman on a storage of its own."""
        storage = ("--root", str(self.tmp / "root"), "--runroot", self.run_root)
        return self.program("podman", *storage, "--runtime=runc", "--cgroup-manager=cgroupfs", *arguments)

    def run(self, *arguments: str) -> Done:
        """``podman run`` with the default capabilities and the host's network."""
        limits = ("--ulimit=nofile=20000:20000", "--ulimit=nproc=1000:1000")
        return self.podman("run", "--rm", "--network=host", *limits, *arguments)

    def executor(self, checkout: Path, *flags: str, config: Path | None = None) -> Done:
        """The build step of the pipeline."""
        mounts = (f"--volume={checkout}:/workspace", f"--volume={config or self.docker_config}:/kaniko/.docker:ro")
        given = ("--context", "dir:///workspace", "--insecure", f"--insecure-registry={self.registry.host}")
        return self.run(*mounts, self.executor_image, *given, f"--build-arg=BASE={self.base}", *flags)

    def inspect(self, name: str) -> dict[str, Any]:
        """The configuration of an image in the registry, as skopeo reads it."""
        done = self.program("skopeo", "inspect", "--config", "--tls-verify=false", f"docker://{name}")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def program(self, *command: str) -> Done:
        """Runs a program with the registry's credentials and no others."""
        env = environment(self.docker_config)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, debian_base: Path) -> Iterator[Pipeline]:
    """The registry with a base image and with the executor image, built and pushed by ``crossdock build``."""
    subprocess.run(["make", "--no-print-directory", "image"], cwd=ROOT, check=True, capture_output=True)
    tmp = tmp_path_factory.mktemp("pipeline")
    with (
        tempfile.TemporaryDirectory(prefix="xd-") as run_root,  # podman wants a short path here
        start_registry(tmp / "registry", htpasswd=True) as registry,
    ):
        login = f"{registry.username}:{registry.password}"
        pipeline = Pipeline(tmp, run_root, registry, write_docker_config(tmp / "docker", {registry.host: login}))
        push_layout(debian_base, pipeline.base, login)
        made = pipeline.program(
            *(*CROSSDOCK, "build", str(ROOT / "build" / "image"), f"--build-arg=BASE={pipeline.base}"),
            *("--insecure", f"--insecure-registry={registry.host}", f"--destination={pipeline.executor_image}"),
            f"--state-dir={tmp / 'state'}",
        )
        assert made.returncode == 0, made.stderr
        pulled = pipeline.podman("pull", "--quiet", "--tls-verify=false", pipeline.executor_image)
        assert pulled.returncode == 0, pulled.stderr
        yield pipeline
        pipeline.podman("rmi", "--all", "--force")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the pipeline has checked out."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "greeting.txt").write_text("hello from the pipeline\n")
    return directory


def test_an_existing_pipeline_builds_and_pushes(pipeline: Pipeline, checkout: Path):
    app = f"{pipeline.registry.host}/team/app"
    cache = ("--cache=true", f"--cache-repo={pipeline.registry.host}/team/cache")

    built = pipeline.executor(checkout, f"--destination={app}:1", *cache, "--digest-file=/workspace/digest")
    assert built.returncode == 0, built.stderr
    assert (checkout / "digest").read_text().startswith("sha256:")
    config = pipeline.inspect(f"{app}:1")["config"]
    assert (config["Cmd"], config["User"]) == (["cat", "/home/speaker/loud.txt"], "speaker")

    again = pipeline.executor(checkout, f"--destination={app}:2", *cache)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(": CACHED") >= 4
    assert pipeline.inspect(f"{app}:2")["rootfs"] == pipeline.inspect(f"{app}:1")["rootfs"]

    ran = pipeline.run("--tls-verify=false", f"{app}:2")
    assert ran.stdout == "HELLO FROM THE PIPELINE\n", ran.stderr


def test_a_wrong_password_ends_the_pipeline(pipeline: Pipeline, checkout: Path, tmp_path: Path):
    wrong = write_docker_config(tmp_path / "docker", {pipeline.registry.host: "crossdock:wrong"})
    refused = pipeline.executor(checkout, f"--destination={pipeline.registry.host}/team/refused:1", config=wrong)
    assert refused.returncode != 0
    assert pipeline.registry.host in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_failing_step_gives_its_own_status(pipeline: Pipeline, checkout: Path):
    (checkout / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN exit 42\n")
    failed = pipeline.executor(checkout, "--no-push")
    assert failed.returncode == 42, failed.stderr


@pytest.mark.parametrize("command", [("/kaniko/warmer",), ("crossdock", "proxy"), ("crossdock", "warm")])
def test_the_other_commands_start_as_any_user(pipeline: Pipeline, command: tuple[str, ...]):
    program, *arguments = command
    shown = pipeline.run("--user=10001", f"--entrypoint={program}", pipeline.executor_image, *arguments, "--help")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("Usage: ")


def test_a_context_in_git(pipeline: Pipeline, checkout: Path, repository: str):
    (checkout / "Dockerfile").write_text("FROM scratch\nCOPY top sub /\n")
    flags = ("--dockerfile=/workspace/Dockerfile", "--no-push", "--oci-layout-path=/workspace/layout")
    given = (pipeline.executor_image, f"--context={repository}#main", *flags)
    built = pipeline.run("--env=GIT_PULL_METHOD=git", f"--volume={checkout}:/workspace", *given)
    assert built.returncode == 0, built.stderr
    shown = describe(checkout / "layout", 0)
    assert ' top "2\\n"' in shown
    assert ' file "f\\n"' in shown


def test_what_pipelines_and_contexts_look_for_is_there(pipeline: Pipeline):
    programs = "for program in executor sh git ssh openssl; do command -v $program || exit 1; done"
    script = f"test $(pwd) = /workspace && test -s /etc/ssl/certs/ca-certificates.crt && {programs}"
    found = pipeline.run("--entrypoint=/busybox/sh", pipeline.executor_image, "-c", script)
    assert (found.returncode, found.stdout.partition("\n")[0]) == (0, "/kaniko/executor"), found.stderr
