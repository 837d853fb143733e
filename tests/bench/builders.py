"""What is compared: each tool builds the case and pushes it, from an empty disk or from what it left there."""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.usage import Meter
from tests.docker import Docker, start_docker
from tests.peers import Registry
from tests.programs import CROSSDOCK, start_proxy

BASES = {"BASE": "bench/base:1", "SMALL": "bench/small:1"}
"""The build arguments that name base images, and what they name."""
STATE = "state"


@dataclass(frozen=True)
class Place:
    """Where a tool works in one run: its directory, the registry, and the name of its repository."""

    directory: Path
    registry: Registry
    repository: str


class Tool(ABC):
    """A way to build and push."""

    title: str
    keeps_layers = True
    """Whether a second build of the same is meant to find the steps of the first."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.meter = Meter(self.requests)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Has running what the tool expects to run for as long as builds go on."""
        yield

    def requests(self) -> int:
        """How many requests have come so far to the server that the tool talks to."""
        return len(self.place.registry.requests())

    def forget(self) -> None:
        """Leaves nothing of earlier builds on the tool's own disk."""
        shutil.rmtree(self.place.directory / STATE, ignore_errors=True)

    @abstractmethod
    def build(self, meter: Meter, context: Path, name: str = "1") -> None:
        """Builds and pushes, as this tag. Raises subprocess.CalledProcessError."""


class ThroughProxy(Tool):
    """Crossdock with base, cache and push all through its proxy; the builder's disk is empty for every build."""

    title = "Crossdock, through its proxy"

    @contextmanager
    def ready(self) -> Iterator[None]:
        upstream = (f"--upstream=bench.test={self.place.registry.url}", "--default-upstream=bench.test")
        with start_proxy(self.place.directory / "proxy", *upstream, "--hosted=cache") as self.address:
            yield

    def requests(self) -> int:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("proxy_requests_total{"))

    def build(self, meter: Meter, context: Path, name: str = "1") -> None:
        _crossdock(meter, self.place, self.address, context, name, f"--cache-repo={self.address}/cache/bench")


class LocalStore(Tool):
    """Crossdock alone: the cache is the builder's own directory, and stays there between builds."""

    title = "Crossdock, local store"

    def build(self, meter: Meter, context: Path, name: str = "1") -> None:
        _crossdock(meter, self.place, self.place.registry.host, context, name)


class BuildKit(Tool):
    """The BuildKit inside Debian's dockerd, which runs already; its overlay storage."""

    title = "BuildKit in dockerd"
    docker: Docker

    @contextmanager
    def ready(self) -> Iterator[None]:
        # A short path: the sockets of its containerd lie far below.
        with (
            tempfile.TemporaryDirectory(prefix="dockerd-") as directory,
            start_docker(Path(directory), storage="overlay2") as self.docker,
        ):
            self.meter = Meter(self.requests, (self.docker.process.pid,))
            yield

    def forget(self) -> None:
        self.docker.forget_all()

    def build(self, meter: Meter, context: Path, name: str = "1") -> None:
        host = self.place.registry.host
        image = f"{host}/{self.place.repository}:{name}"
        arguments = _base_arguments(host)
        build = self.docker.command("build", "--quiet", "--network=host", *arguments, "--tag", image, str(context))
        meter.command("env", "DOCKER_BUILDKIT=1", *build)
        meter.command(*self.docker.command("push", "--quiet", image))


class Buildah(Tool):
    """Debian's buildah, without its layer cache; a pulled base stays in its storage between builds."""

    title = "buildah"
    keeps_layers = False

    def build(self, meter: Meter, context: Path, name: str = "1") -> None:
        state = self.place.directory / STATE
        buildah = ("buildah", "--storage-driver=overlay", f"--root={state}/root", f"--runroot={state}/run")
        host = self.place.registry.host
        image = f"{host}/{self.place.repository}:{name}"
        options = ("--isolation=chroot", "--layers=false", "--tls-verify=false", "--quiet")
        meter.command(*buildah, "bud", *options, *_base_arguments(host), "--tag", image, str(context))
        meter.command(*buildah, "push", "--quiet", "--tls-verify=false", image)


TOOLS: tuple[type[Tool], ...] = (ThroughProxy, LocalStore, BuildKit, Buildah)


def _base_arguments(address: str) -> Sequence[str]:
    return [f"--build-arg={name}={address}/{image}" for name, image in BASES.items()]


def _crossdock(meter: Meter, place: Place, address: str, context: Path, name: str, *options: str) -> None:
    meter.command(
        *CROSSDOCK,
        *("build", str(context), *_base_arguments(address), "--cache", *options),
        *(f"--destination={address}/{place.repository}:{name}", f"--insecure-registry={address}"),
        *(f"--state-dir={place.directory / STATE}", "--progress=plain"),
    )
