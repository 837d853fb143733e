"""The main job from end to end, on this machine alone: registry, proxy, two builds, push, pull, run.

Ends with status 1 and says why when any part of it does not hold. Everything it starts listens on 127.0.0.1, and ends
with it; all its files are in one temporary directory.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.debian import debian_layout, push_layout
from tests.peers import Registry, start_registry
from tests.programs import CROSSDOCK, environment, start_proxy, write_docker_config

CONTEXT = Path(__file__).parent / "context"
UPSTREAM = "registry.demo"
HUB_TIMEOUT_S = 5
STEP = re.compile(r"\[\S+ \d+/\d+\] .*: (?P<outcome>CACHED|NOT NEEDED|[\d.]+s, .+)")
PROGRAMS = ("docker-registry", "htpasswd", "skopeo", "podman", "runc")


class DemoFailedError(Exception):
    """Something that the demo shows did not hold."""


@dataclass(frozen=True)
class Scene:
    """What is running: the private registry, the proxy in front of it, and who we are to both."""

    tmp: Path
    upstream: Registry
    proxy: str
    environment: dict[str, str]

    @property
    def app(self) -> str:
        """The application's repository, through the proxy."""
        return f"{self.proxy}/{UPSTREAM}/team/app"


def main() -> int:
    """Runs the demo and returns its exit status."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        print(f"The demo needs programs that are not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="crossdock-demo-") as tmp, contextlib.ExitStack() as running:
        try:
            play(open_scene(Path(tmp), running))
        except DemoFailedError as failure:
            print(f"\nThe demo failed: {failure}", file=sys.stderr)
            return 1
    print("\nEverything that the demo started has ended, and its files are gone.")
    return 0


def open_scene(tmp: Path, running: contextlib.ExitStack) -> Scene:
    """Starts the registry and the proxy."""
    upstream = running.enter_context(start_registry(tmp / "upstream", htpasswd=True))
    title(1, "A private registry, and Crossdock's proxy in front of it")
    say(f"docker-registry on {upstream.host}, with a user and a password")
    proxy = running.enter_context(
        start_proxy(
            tmp / "proxy",
            f"--upstream={UPSTREAM}={upstream.url}",
            "--upstream=docker.io=https://registry-1.docker.io",
            "--default-upstream=docker.io",
            "--hosted=cache",
        )
    )
    say(f"crossdock proxy on {proxy}, its store a directory; upstreams {UPSTREAM} and docker.io, cache/ hosted")
    login = f"{upstream.username}:{upstream.password}"
    config = write_docker_config(tmp / "docker", {proxy: login, upstream.host: login})
    return Scene(tmp, upstream, proxy, environment(config))


def play(scene: Scene) -> None:
    """The demo itself. Raises DemoFailedError."""
    title(2, "A base image")
    base = choose_base(scene)

    title(3, "First build: every step runs, is saved to the cache repo, and the image is pushed through the proxy")
    first_s, outcomes = build(scene, base, "1")
    require("CACHED" not in outcomes, "the first build found steps in an empty cache")

    title(4, "Second build, with an empty disk as on a new CI machine: every step comes from the cache")
    second_s, outcomes = build(scene, base, "2")
    require(set(outcomes) == {"CACHED"}, f"the second build's steps were not all CACHED: {outcomes}")

    title(5, "The image is in the private registry itself, and the proxy gives it only to who may read it")
    check_pushed(scene)

    title(6, "Pulled back through the proxy, and a command run from it")
    run_image(scene)

    print(
        f"\nFirst build   {first_s:6.2f} s\nSecond build  {second_s:6.2f} s, {len(outcomes)} of {len(outcomes)} CACHED"
    )


def choose_base(scene: Scene) -> str:
    """Docker Hub's Debian through the proxy where it can be reached; else one made here, from Debian's own packages."""
    manifest = f"http://{scene.proxy}/v2/docker.io/library/debian/manifests/bookworm-slim"
    try:
        with urllib.request.urlopen(manifest, timeout=HUB_TIMEOUT_S):
            say("Docker Hub can be reached: debian:bookworm-slim, pulled through the proxy")
            return "debian:bookworm-slim"
    except (OSError, urllib.error.URLError) as error:
        say(f"Docker Hub cannot be reached from here ({error})")
    try:
        layout = debian_layout()
    except (OSError, subprocess.CalledProcessError) as error:
        raise DemoFailedError(f"no base image: {error}") from error
    upstream = scene.upstream
    push_layout(layout, f"{upstream.host}/base/debian:bookworm", f"{upstream.username}:{upstream.password}")
    say("made a Debian base image with debootstrap instead, and put it into the private registry")
    return f"{scene.proxy}/{UPSTREAM}/base/debian:bookworm"


def build(scene: Scene, base: str, tag: str) -> tuple[float, list[str]]:
    """Builds and pushes the image; gives the seconds it took and how each step ended. Raises DemoFailedError."""
    arguments = [
        *("build", str(CONTEXT), f"--build-arg=BASE={base}", f"--destination={scene.app}:{tag}"),
        *("--cache", f"--cache-repo={scene.proxy}/cache/app"),
        *(f"--registry-mirror={scene.proxy}", f"--insecure-registry={scene.proxy}", "--progress=plain"),
    ]
    say("crossdock " + " ".join(arguments).replace(str(CONTEXT), "tests/demo/context"))
    started = time.perf_counter()
    state = f"--state-dir={scene.tmp / 'state' / tag}"
    command = [*CROSSDOCK, *arguments, state]
    outcomes = []
    with subprocess.Popen(command, env=scene.environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            print("     |", line, end="")
            if step := STEP.fullmatch(line.rstrip("\n")):
                outcomes.append(step["outcome"])
    seconds = time.perf_counter() - started
    require(process.returncode == 0, f"the build ended with status {process.returncode}")
    require(bool(outcomes), "the build told of no step")
    say(f"took {seconds:.2f} s, start of Python included")
    return seconds, outcomes


def check_pushed(scene: Scene) -> None:
    """The upstream has the image, and a reader without a password gets nothing. Raises DemoFailedError."""
    inspect = ("skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}")
    direct = run(scene, *inspect, f"docker://{scene.upstream.host}/team/app:2")
    require(direct.returncode == 0, f"the registry does not have the image: {direct.stderr}")
    say(f"{scene.upstream.host}/team/app:2 is {direct.stdout.strip()}")
    refused = run(scene, *inspect, "--no-creds", f"docker://{scene.app}:2")
    require(refused.returncode != 0, "the proxy gave a private image to a stranger")
    say("without a password the proxy refuses it")


def run_image(scene: Scene) -> None:
    """Pulls the image through the proxy and runs its command. Raises DemoFailedError."""
    image = f"{scene.app}:2"
    podman = ("podman", "--root", str(scene.tmp / "podman"), "--runroot", str(scene.tmp / "podman-run"))
    engine = (*podman, "--runtime=runc", "--cgroup-manager=cgroupfs")
    limits = ("--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
    try:
        pulled = run(scene, *engine, "pull", "--quiet", "--tls-verify=false", image)
        require(pulled.returncode == 0, f"podman cannot pull it: {pulled.stderr}")
        say(f"podman run {image}")
        ran = run(scene, *engine, "run", "--rm", *limits, image)
    finally:
        run(scene, *engine, "rmi", "--all", "--force")
    require(ran.returncode == 0, f"its command failed: {ran.stderr}")
    require("The image works" in ran.stdout, f"its command said something else: {ran.stdout!r}")
    for line in ran.stdout.splitlines():
        print("     |", line)


def run(scene: Scene, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with the demo's credentials."""
    return subprocess.run(command, env=scene.environment, capture_output=True, text=True, timeout=300)


def require(holds: bool, otherwise: str) -> None:
    """Raises DemoFailedError with ``otherwise`` when it does not hold."""
    if not holds:
        raise DemoFailedError(otherwise)


def title(number: int, text: str) -> None:
    """Prints a numbered step."""
    print(f"\n{number}. {text}", flush=True)


def say(text: str) -> None:
    """Prints a line below the step."""
    print(f"   {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
