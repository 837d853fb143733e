"""What each case's Dockerfile builds, or fails with: see case_files.py for what is in a case."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from builder import cli
from tests.builder.case_files import CASES, Case, base_layer_count, cases_with, describe, diff_ids
from tests.integration.building import push_base
from tests.peers import start_registry


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, busybox_layout: Path):
    """The name of the small base image in a registry of this module's own."""
    with start_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield f"{registry.host}/{push_base(busybox_layout, registry)}"


def build(case: Case, tmp_path: Path, base: str, *arguments: str) -> int:
    """Builds the case in this process; returns the exit status."""
    context = case.context(tmp_path)
    own = case.arguments(case=case.directory, tmp=tmp_path, base=base)
    state = (f"--state-dir={tmp_path}/state", "--no-push", "--progress=plain")
    return cli.main(
        [str(context), f"--dockerfile={case.dockerfile}", f"--build-arg=BASE={base}", *state, *own, *arguments]
    )


@pytest.mark.parametrize("case", cases_with("image.txt"), ids=lambda case: case.directory.name)
def test_image(case: Case, tmp_path: Path, base: str, busybox_layout: Path, capfd: pytest.CaptureFixture[str]):
    layout = tmp_path / "layout"
    status = build(case, tmp_path, base, f"--oci-layout-path={layout}")
    assert status == 0, capfd.readouterr().err
    below = base_layer_count(layout, diff_ids(busybox_layout))
    case.expect("image.txt", describe(layout, below))


@pytest.mark.parametrize(
    "name", ["copy_destinations", "heredoc_copy_several", "run_makes_special_files", "workdir_made"]
)
def test_a_umask_changes_nothing(name: str, tmp_path: Path, base: str, busybox_layout: Path):
    layout, previous = tmp_path / "layout", os.umask(0o077)
    try:
        assert build(Case(CASES / name), tmp_path, base, f"--oci-layout-path={layout}") == 0
    finally:
        os.umask(previous)
    Case(CASES / name).expect("image.txt", describe(layout, base_layer_count(layout, diff_ids(busybox_layout))))


@pytest.mark.parametrize("case", cases_with("failure.txt"), ids=lambda case: case.directory.name)
def test_failure(case: Case, tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]):
    status = build(case, tmp_path, base, f"--oci-layout-path={tmp_path}/layout")
    told = re.search(r"^[Ee]rror: (.*)", capfd.readouterr().err, re.DOTALL | re.MULTILINE)
    assert told
    text = told[1].replace(base, "BASE").replace(base.partition("/")[0], "HOST").replace(str(tmp_path), "TMP")
    text = re.sub(r"sha256:(?!0{64})[0-9a-f]{64}", "sha256:DIGEST", text)  # tar programs differ
    case.expect("failure.txt", f"status {status}\n{text}")
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize("case", cases_with("warnings.txt"), ids=lambda case: case.directory.name)
def test_warnings(case: Case, tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]):
    assert build(case, tmp_path, base, "--check") == 1
    told = re.findall(r"^warning: (.*)", capfd.readouterr().err, re.MULTILINE)
    case.expect("warnings.txt", "".join(f"{line.replace(base, 'BASE')}\n" for line in told))
