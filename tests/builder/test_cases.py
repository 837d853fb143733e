"""What each case's Dockerfile builds, or fails with: see case_files.py for what is in a case."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder import cli
from tests.builder.case_files import Case, base_layer_count, cases_with, describe, diff_ids
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


NOT_BY_CHROOT = {
    "mount_bind_is_read_only": "a copy is put into the root, and root may write to it",
    "mount_cache_same_twice": "a cache is moved into the root, and can be in one place only; refused",
    "network_none": "needs a network namespace; refused, see test_mounts.py",
}
"""Cases that come out otherwise where nothing can be mounted."""


DEPEND_ON_RUNG = [case for case in cases_with("image.txt") if case.depends_on_rung]


@pytest.mark.parametrize("rung", ["namespaces", "chroot"])
@pytest.mark.parametrize(
    "case", [c for c in cases_with("image.txt") if c.depends_on_rung], ids=lambda case: case.directory.name
)
def test_image_on_the_other_rungs(
    case: Case, rung: str, tmp_path: Path, base: str, busybox_layout: Path, capfd: pytest.CaptureFixture[str]
):
    if rung == "chroot" and case.directory.name in NOT_BY_CHROOT:
        pytest.skip(NOT_BY_CHROOT[case.directory.name])
    layout = tmp_path / "layout"
    status = build(case, tmp_path, base, f"--oci-layout-path={layout}", f"--isolation={rung}")
    assert status == 0, capfd.readouterr().err
    found = describe(layout, base_layer_count(layout, diff_ids(busybox_layout)))
    assert found == (case.directory / "image.txt").read_text()


@pytest.mark.parametrize("case", cases_with("failure.txt"), ids=lambda case: case.directory.name)
def test_failure(case: Case, tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]):
    status = build(case, tmp_path, base, f"--oci-layout-path={tmp_path}/layout")
    told = re.search(r"^error: (.*)", capfd.readouterr().err, re.DOTALL | re.MULTILINE)
    assert told
    text = told[1].replace(base, "BASE").replace(str(tmp_path), "TMP")
    case.expect("failure.txt", f"status {status}\n{text}")
    assert not (tmp_path / "layout").exists()
