"""The bench of the builder: the same project built and pushed by each tool, the tools taking turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import project
from tests.bench.builders import BASE, STATE, TOOLS, Place, Tool
from tests.bench.report import Results, machine
from tests.debian import push_layout
from tests.peers import start_registry

NEEDS = ("docker-registry", "skopeo", "buildah", "busybox")
CASES = ("cold build", "full hit", "one source file changed")


def measure(tmp: Path, runs: int, size: project.Size) -> str:
    """Runs the bench; gives its table and under what conditions it was made."""
    results = Results([tool.title for tool in TOOLS])
    with start_registry(tmp / "registry") as registry:
        push_layout(project.write_base(tmp, size), f"{registry.host}/{BASE}")
        context = project.write_context(tmp, size)
        for run in range(runs):
            for number, tool in enumerate(TOOLS):
                place = Place(tmp / f"{run}-{number}", context, registry, f"bench/app-{run}-{number}")
                for name, took_s in measure_tool(tool, place):
                    results.add(name, tool.title, took_s)
                shutil.rmtree(place.directory, ignore_errors=True)
    return f"{results.table('seconds')}\n\n{conditions(runs, size)}"


def measure_tool(tool: Tool, place: Place) -> Iterator[tuple[str, float]]:
    """The three cases, one after the other on what the one before left."""
    place.directory.mkdir()
    with tool.ready(place) as address:
        for name in CASES:
            if name == "one source file changed":
                project.change_one_source_file(place.context, place.repository)
            if tool.starts_empty:
                shutil.rmtree(place.directory / STATE, ignore_errors=True)
            os.sync()  # nobody pays for what was written before
            started = time.perf_counter()
            tool.build(place, address)
            yield name, time.perf_counter() - started


def conditions(runs: int, size: project.Size) -> str:
    """What was measured, and on what."""
    version = subprocess.run(["buildah", "--version"], capture_output=True, text=True).stdout.strip()
    return (
        f"Medians of {runs} runs (range in brackets), start of the program and push to a docker-registry on the same "
        f"machine included. Two stages, a base of {size.base_files} files, {size.generated_files} generated files. "
        "Cold: nothing on the builder's disk, in its cache or in the proxy. Through the proxy the builder's disk is "
        "empty for every build; buildah keeps its pulled base, and has its layer cache off. File systems are synced "
        "before each build; the page cache is left as it is. "
        f"Crossdock chooses its isolation itself; {version}: chroot isolation, overlay storage. {machine()}"
    )
