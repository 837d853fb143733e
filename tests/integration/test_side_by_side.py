"""Stages that do not wait for each other run at once; builds share what they have unpacked."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
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


KILLS = int(os.environ.get("CROSSDOCK_KILLS", "8"))
"""More take longer, and meet more moments."""


def kill_after(delay_s: float, builder: Builder, *told: str) -> bool:
    """Begins a build and kills it by -9; False when it had ended before."""
    with subprocess.Popen(builder.command(*told), env=builder.environ(), stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    return False


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
    assert "isolation: overlay" in ended.output
    blobs = [r for r in registry.requests()[before:] if r.method == "GET" and "/blobs/" in r.path]
    assert len(blobs) == 1, blobs  # the configuration


MANY_FILES = """\
ARG BASE
FROM ${BASE}
RUN n=0; while [ $n -lt 3000 ]; do echo $n > /srv/$n; n=$((n+1)); done
"""


def test_of_builds_that_begin_at_once_one_fetches_the_base(tmp_path: Path, registry: Registry, base: str) -> None:
    made = [told for told in arguments(tmp_path, base, MANY_FILES) if told != "--no-push"]
    Builder(tmp_path / "before").must(*made, f"--destination={registry.host}/base/many:1")
    builder = Builder(tmp_path / "home")
    told = arguments(tmp_path, f"{registry.host}/base/many:1", "ARG BASE\nFROM ${BASE}\nARG N\nRUN echo $N > /n\n")
    before = len(registry.requests())
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda n: builder.must(*told, f"--build-arg=N={n}"), range(4)))
    assert len({one.output.splitlines()[-1] for one in ended}) == 4
    gets = Counter(r.path for r in registry.requests()[before:] if r.method == "GET" and "/blobs/" in r.path)
    assert sorted(gets.values()) == [1, 1, 4], gets  # two layers; the configuration


COPIES = """\
ARG BASE
FROM ${BASE} AS made
COPY source /source
RUN wc -l < source > /lines; touch -d "@$(date +%s)" /lines
FROM ${BASE}
COPY --from=made /lines /lines
RUN cat /lines > /copy
RUN --mount=type=bind,from=made,source=/lines,target=/given cat /given > /other
"""


def test_a_stage_that_comes_out_the_same_makes_nothing_else_be_built_again(tmp_path: Path, base: str) -> None:
    builder = Builder(tmp_path / "home")
    told = [*arguments(tmp_path, base, COPIES), "--cache"]
    source = tmp_path / "context/source"
    source.write_text("one line\n")
    assert len(builder.must(*told).rebuilt) == 5
    source.write_text("another line\n")
    again = builder.must(*told)
    assert len(again.rebuilt) == 2, again.output
    source.write_text("two\nlines\n")
    assert len(builder.must(*told).rebuilt) == 5
    source.write_text("another line\n")
    assert builder.must(*told).rebuilt == []


def test_killed_builds_leave_nothing_that_a_later_one_believes(tmp_path: Path, base: str) -> None:
    builder = Builder(tmp_path / "home")
    dockerfile = "ARG BASE\nFROM ${BASE}\nCOPY . /\nARG N=\nRUN find /bin /srv -exec ls -ldn {} + > /all; sleep 0.2\n"
    told = [*arguments(tmp_path, base, dockerfile), "--reproducible"]
    expected = builder.must(*told, "--cache=false").output.splitlines()[-1]
    moments = random.Random(8)
    delays_s = [moments.uniform(0.1, 1.5) for _ in range(KILLS)]
    killed = sum(
        kill_after(delay_s, builder, *told, "--cache", f"--build-arg=N={n}") for n, delay_s in enumerate(delays_s)
    )
    print(f"{killed} of {KILLS} builds were killed before their end")
    assert builder.must(*told, "--cache").output.splitlines()[-1] == expected
    assert builder.must(*told, "--cache=false").output.splitlines()[-1] == expected
    state = tmp_path / "home/.cache/crossdock/build"
    assert set(os.listdir(state)) - {"file-digests"} == {"store", "unpacked", "work"}
    assert os.listdir(state / "work") == []
    assert not [path for path in state.glob("unpacked/*/*") if len(path.name) != 64 or not (path / "seal").exists()]
