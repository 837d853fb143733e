"""What is compared: each tool builds the case and pushes it, from an empty disk or from what it left there."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import Registry
from tests.programs import CROSSDOCK, start_proxy

BASE = "bench/base:1"
STATE = "state"


@dataclass(frozen=True)
class Place:
    """Where a tool works in one run: its directory, the context, the registry, and the name of its repository."""

    directory: Path
    context: Path
    registry: Registry
    repository: str


class Tool(ABC):
    """A way to build and push."""

    title: str
    starts_empty = False
    """Whether every build begins with nothing on the builder's own disk, as on a new CI machine."""

    @contextmanager
    def ready(self, place: Place) -> Iterator[str]:
        """Has running what the tool expects to run for as long as builds go on; gives the address to pull from."""
        yield place.registry.host

    @abstractmethod
    def build(self, place: Place, address: str) -> None:
        """Builds and pushes. Raises subprocess.CalledProcessError."""


class ThroughProxy(Tool):
    """Crossdock with base, cache and push all through its proxy; the builder's disk is empty for every build."""

    title = "Crossdock, through its proxy"
    starts_empty = True

    @contextmanager
    def ready(self, place: Place) -> Iterator[str]:
        options = (f"--upstream=bench.test={place.registry.url}", "--default-upstream=bench.test", "--hosted=cache")
        with start_proxy(place.directory / "proxy", *options) as address:
            yield address

    def build(self, place: Place, address: str) -> None:
        _crossdock(place, address, f"--cache-repo={address}/cache/bench")


class LocalStore(Tool):
    """Crossdock alone: the cache is the builder's own directory, and stays there between builds."""

    title = "Crossdock, local store"

    def build(self, place: Place, address: str) -> None:
        _crossdock(place, address)


class Buildah(Tool):
    """Debian's buildah, without its layer cache; a pulled base stays in its storage between builds."""

    title = "buildah"

    def build(self, place: Place, address: str) -> None:
        roots = ("--root", str(place.directory / "root"), "--runroot", str(place.directory / "run"))
        buildah = ("buildah", "--storage-driver=overlay", *roots)
        image = f"{address}/{place.repository}:1"
        base = f"--build-arg=BASE={address}/{BASE}"
        options = ("--isolation=chroot", "--layers=false", "--tls-verify=false", "--quiet")
        _run(*buildah, "bud", *options, base, "--tag", image, str(place.context))
        _run(*buildah, "push", "--quiet", "--tls-verify=false", image)


TOOLS: tuple[Tool, ...] = (ThroughProxy(), LocalStore(), Buildah())


def _crossdock(place: Place, address: str, *options: str) -> None:
    _run(
        *CROSSDOCK,
        *("build", str(place.context), f"--build-arg=BASE={address}/{BASE}", "--cache", *options),
        *(f"--destination={address}/{place.repository}:1", f"--insecure-registry={address}"),
        *(f"--state-dir={place.directory / STATE}", "--progress=plain"),
    )


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:])
        done.check_returncode()
