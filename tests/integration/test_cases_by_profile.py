"""Every case that builds, without privileges: the same image, to the byte, as where the builder may do everything.

One process for each profile builds all the cases, one after the other.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder import cli
from tests.builder.case_files import Case, cases_with
from tests.container import PROJECT, ROOT, User, run_as, run_in_pod
from tests.integration.building import push_base
from tests.peers import start_registry

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

PROGRAM = "import sys; from tests.integration.test_cases_by_profile import build_all; build_all(*sys.argv[1:])"
ENVIRONMENT = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}

NO_DEVICES = {"run_makes_devices": "exit code 1"}
WITHOUT_OVERLAY = NO_DEVICES | dict.fromkeys(("hard_links_to_a_lower_layer", "run_sets_what_is_set_already"), "sha256:")
WITHOUT_MOUNTS = WITHOUT_OVERLAY | {
    "mount_bind_is_read_only": "exit code 1",  # the image's own check: root may write to a copy
    "mount_cache_same_twice": "a cache cannot be mounted twice in one step here",
    "network_none": "--network=none cannot be had here",
    "run_leaves_nothing_of_the_sandbox": "exit code 1",  # it looks for /proc
}
NAMES_OTHER_USERS = """
    heredoc_run_as_a_user mount_cache_owner mount_secret user_by_name user_from_argument user_known_by_number
    user_name_and_group user_numbers user_supplementary_groups user_with_a_group_has_no_other_groups
"""
WITH_ONE_USER = NO_DEVICES | dict.fromkeys(NAMES_OTHER_USERS.split(), "not mapped in this user namespace")
WITH_ONE_USER |= {"mount_bind_context": "setup.sh", "run_changes_metadata": "exit code 1"}  # they call chown
"""What cases end with that need more than there is: docs/isolation.md has the reasons."""


def build_all(directory: str, base: str) -> None:
    """What runs with the privileges of a profile: prints how each case was isolated and the digest of its image.

    For a build that failed it prints what was told, in the place of the digest.
    """
    cases = cases_with("image.txt")
    with multiprocessing.get_context("fork").Pool() as pool:
        found = pool.starmap(_build, [(case, Path(directory, case.directory.name), base) for case in cases], 1)
    json.dump({case.directory.name: outcome for case, outcome in zip(cases, found, strict=True)}, sys.stdout)


def _build(case: Case, directory: Path, base: str) -> tuple[str, str]:
    directory.mkdir(parents=True)
    digest = directory / "digest"
    given = [f"--dockerfile={case.dockerfile}", f"--build-arg=BASE={base}", "--no-push", "--progress=plain"]
    given += ["--reproducible", f"--digest-file={digest}", f"--state-dir={directory}/state"]
    given += case.arguments(case=case.directory, tmp=directory, base=base)
    try:
        context = case.context(directory)
    except subprocess.CalledProcessError as error:
        return "", str(error)
    with contextlib.redirect_stderr(io.StringIO()) as told:
        status = cli.main([str(context), *given])
    isolation = re.search("^isolation: ([^;\n]*)", told.getvalue(), re.MULTILINE)
    return isolation[1] if isolation else "", told.getvalue() if status else digest.read_text()


Images = Mapping[str, tuple[str, str]]


def read(done: subprocess.CompletedProcess[str]) -> Images:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: (isolation, digest) for name, (isolation, digest) in found.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, busybox_layout: Path) -> Iterator[str]:
    with start_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield f"{registry.host}/{push_base(busybox_layout, registry)}"


@pytest.fixture(scope="module")
def privileged(tmp_path_factory: pytest.TempPathFactory, base: str) -> Images:
    """What comes out where the builder may do everything."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("privileged")), base]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250, check=False)
    return read(done)


@dataclass(frozen=True)
class Profile:
    """What a container allows, how steps are isolated there, and what other cases end with than their image."""

    isolation: str
    volume: bool = True
    strict: bool = False
    user: User = ROOT
    refused: Mapping[str, str] = field(default_factory=dict)


PROFILES = {
    "default, with a volume": Profile("overlay (user namespace)", refused=NO_DEVICES),
    "default, without a volume": Profile("namespaces (user namespace)", volume=False, refused=WITHOUT_OVERLAY),
    "strict": Profile("chroot", strict=True, refused=WITHOUT_MOUNTS),
    "not root": Profile("overlay (user namespace)", user=User(4711), refused=WITH_ONE_USER),
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory that everybody may write to."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o1777)
    return state


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_in_a_container(tmp_path: Path, state: Path, base: str, privileged: Images, profile: Profile):
    volumes = {state: "/state"} if profile.volume else {}
    command = [sys.executable, "-c", PROGRAM, "/state", base]
    done = run_in_pod(tmp_path, command, volumes=volumes, strict=profile.strict, user=profile.user, env=ENVIRONMENT)
    check(read(done), privileged, profile)


def test_as_an_ordinary_user(tmp_path: Path, state: Path, base: str, privileged: Images):
    command = [sys.executable, "-c", PROGRAM, "/state", base]
    environment = ENVIRONMENT | {"PATH": os.environ["PATH"]}
    done = run_as(tmp_path, User(4711, "500000:65536"), command, volumes={state: "/state"}, env=environment)
    check(read(done), privileged, Profile("overlay (pid namespace)", refused=NO_DEVICES))


def check(found: Images, privileged: Images, profile: Profile) -> None:
    """The same digests, apart from what the profile refuses; each by the isolation that it stands for."""
    others = {name: digest for name, (_, digest) in found.items() if digest != privileged[name][1]}
    assert others.keys() == profile.refused.keys(), others
    assert [name for name, told in profile.refused.items() if told not in others[name]] == []
    assert {isolation for isolation, _ in found.values() if isolation} == {profile.isolation}
