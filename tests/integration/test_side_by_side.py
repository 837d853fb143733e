"""Stages that do not wait for each other run at once; builds one after the other share what they have unpacked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry

MEET = """
RUN --mount=type=cache,id=meeting,target=/meeting touch /meeting/{me}; n=0; \\
    while [ ! -e /meeting/{other} ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n+1)); done; test -e /meeting/{other}
"""

BOTH = f"""\
ARG BASE
FROM ${{BASE}} AS one
{MEET.format(me="one", other="two")}
FROM ${{BASE}} AS two
{MEET.format(me="two", other="one")}
FROM scratch
COPY --from=one /etc/passwd /one
COPY --from=two /etc/passwd /two
"""

ONE_FAILS = """\
ARG BASE
FROM ${BASE} AS one
RUN --mount=type=cache,id=meeting,target=/meeting touch /meeting/begun; sleep 600
FROM ${BASE} AS two
RUN --mount=type=cache,id=meeting,target=/meeting while [ ! -e /meeting/begun ]; do sleep 0.1; done; exit 7
FROM scratch
COPY --from=one /etc/passwd /one
COPY --from=two /etc/passwd /two
"""


@pytest.fixture
def base(registry: Registry, busybox_layout: Path) -> str:
    return f"{registry.host}/{push_base(busybox_layout, registry)}"


def arguments(tmp_path: Path, base: str, dockerfile: str) -> list[str]:
    context = write_files(tmp_path / "context", {"Dockerfile": dockerfile})
    return [str(context), f"--build-arg=BASE={base}", "--no-push", f"--insecure-registry={base.split('/')[0]}"]


def test_stages_that_do_not_wait_for_each_other_run_at_once(tmp_path: Path, base: str) -> None:
    ended = Builder(tmp_path / "home").must(*arguments(tmp_path, base, BOTH))
    assert len(ended.rebuilt) == 4


def test_a_step_that_fails_ends_what_runs_beside_it(tmp_path: Path, base: str) -> None:
    ended = Builder(tmp_path / "home").build(*arguments(tmp_path, base, ONE_FAILS))
    assert ended.status == 7
    assert "exit code 7" in ended.output
    assert list((tmp_path / "home").rglob("work/*")) == []


def test_the_next_build_does_not_fetch_or_unpack_the_base_again(tmp_path: Path, registry: Registry, base: str) -> None:
    builder = Builder(tmp_path / "home")
    builder.must(*arguments(tmp_path, base, "ARG BASE\nFROM ${BASE}\nRUN echo one > /one\n"))
    before = len(registry.requests())
    ended = builder.must(*arguments(tmp_path, base, "ARG BASE\nFROM ${BASE}\nRUN ls > /two\n"), "--cache=false")
    if "isolation: overlay" not in ended.output:
        pytest.skip("no overlayfs here")
    blobs = [r for r in registry.requests()[before:] if r.method == "GET" and "/blobs/" in r.path]
    assert len(blobs) == 1, blobs  # the configuration


def test_killed_builds_leave_nothing_that_a_later_one_believes(tmp_path: Path, base: str) -> None:
    builder = Builder(tmp_path / "home")
    dockerfile = "ARG BASE\nFROM ${BASE}\nRUN find /bin /etc /srv -exec ls -ldn {} + > /all; sleep 0.2\n"
    told = [*arguments(tmp_path, base, dockerfile), "--reproducible", "--cache=false"]
    expected = builder.must(*told)
    for delay_s in (0.3, 0.45, 0.6, 0.75, 0.9):
        with subprocess.Popen(builder.command(*told), env=builder.environ(), stderr=subprocess.DEVNULL) as killed:
            try:
                killed.wait(delay_s)
            except subprocess.TimeoutExpired:
                killed.kill()
    again = builder.must(*told)
    assert again.output.splitlines()[-1] == expected.output.splitlines()[-1]
    assert list((tmp_path / "home").rglob("work/*")) == []
