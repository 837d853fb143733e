"""The bench of the builder: the same projects built and pushed by each tool, the tools taking turns."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.bench import project
from tests.bench.builders import BASES, TOOLS, Place, ThroughProxy, Tool
from tests.bench.project import Size
from tests.bench.report import Results, machine
from tests.bench.usage import Meter, Used
from tests.debian import push_layout
from tests.peers import start_registry

NEEDS = ("docker-registry", "skopeo", "buildah", "busybox", "dockerd")
MEASURES: dict[str, Callable[[Used], float]] = {
    "seconds": lambda used: used.wall_s,
    "processor seconds": lambda used: used.cpu_s,
    "MB of memory": lambda used: used.peak_bytes / 1e6,
    "MB over the loopback": lambda used: used.wire_bytes / 1e6,
    "requests": lambda used: used.requests,
}


@dataclass(frozen=True)
class Case:
    """A build that is measured; ``change`` is done to the context before it.

    With ``disk`` False the tool's own disk is empty. ``hits`` is for tools that keep layers.
    """

    title: str
    change: Callable[[Path, str], None] | None = None
    disk: bool = True
    hits: bool = False


COLD = Case("cold", disk=False)
PROJECTS: dict[str, tuple[Callable[[Path, Size], None], tuple[Case, ...]]] = {
    "large base": (
        project.write_app,
        (
            COLD,
            Case("full hit", hits=True),
            Case("one source file changed", project.change_one_source_file),
            Case("label changed", project.change_metadata, hits=True),
        ),
    ),
    "small base": (project.write_small, (COLD,)),
    "2,000 small files copied": (project.write_many_files, (COLD,)),
    "one file of 2 GB copied": (project.write_large_file, (COLD,)),
    "10 stages that each sleep 1 s": (project.write_stages, (COLD,)),
}
AT_ONCE = "20 builds at once, one file changed in each"


def measure(tmp: Path, runs: int, size: Size) -> str:
    """Runs the bench; gives its tables and under what conditions they were made."""
    results = {measure: Results([tool.title for tool in TOOLS]) for measure in MEASURES}
    with start_registry(tmp / "registry") as registry:
        push_layout(project.write_base(tmp, size), f"{registry.host}/{BASES['BASE']}")
        push_layout(project.write_small_base(tmp), f"{registry.host}/{BASES['SMALL']}")
        for run in range(runs):
            for number, kind in enumerate(TOOLS):
                tool = kind(Place(tmp / f"{run}-{number}", registry, f"bench/app-{run}-{number}"))
                for row, used in measure_tool(tool, tmp / "context", size):
                    for name, value in MEASURES.items():
                        results[name].add(row, tool.title, value(used))
                shutil.rmtree(tool.place.directory, ignore_errors=True)
    tables = "\n\n".join(results[name].table(name) for name in MEASURES)
    return f"{tables}\n\n{conditions(runs, size)}"


def measure_tool(tool: Tool, context: Path, size: Size) -> Iterator[tuple[str, Used]]:
    """The cases of each project, one after the other on what the one before left."""
    tool.place.directory.mkdir()
    with tool.ready():
        for title, (write, cases) in islice(PROJECTS.items(), size.projects):
            write(context, size)
            for case in cases:
                if tool.keeps_layers or not case.hits:
                    yield f"{title}: {case.title}", _measured(tool, case, context)
            if title == "large base" and _is_remote(tool):
                yield AT_ONCE, _at_once(tool, context, size.builds_at_once)
            shutil.rmtree(context)


def _is_remote(tool: Tool) -> bool:
    """Whether its cache outlives the builder's disk."""
    return isinstance(tool, ThroughProxy)


def _measured(tool: Tool, case: Case, context: Path) -> Used:
    if case.change is not None:
        case.change(context, tool.place.repository)
    if not case.disk or _is_remote(tool):
        tool.forget()
    os.sync()  # nobody pays for what was written before
    return tool.meter.run(lambda meter: tool.build(meter, context))


def _at_once(tool: Tool, context: Path, builds: int) -> Used:
    """Builds side by side, each of a context of its own, on one disk."""
    contexts = []
    for number in range(builds):
        copy = context.with_name(f"context-{number}")
        shutil.copytree(context, copy)
        project.change_one_source_file(copy, f"{tool.place.repository}-{number}")
        contexts.append(copy)
    os.sync()

    def build(meter: Meter) -> None:
        with ThreadPoolExecutor(builds) as pool:
            list(pool.map(lambda one: tool.build(meter, one[1], f"n{one[0]}"), enumerate(contexts)))

    try:
        return tool.meter.run(build)
    finally:
        for copy in contexts:
            shutil.rmtree(copy)


def conditions(runs: int, size: Size) -> str:
    """What was measured, and on what."""
    version = subprocess.run(["buildah", "--version"], capture_output=True, text=True).stdout.strip()
    return (
        f"Medians of {runs} runs (range in brackets), start of the program and push to a docker-registry on the same "
        f"machine included. Large base: two stages, a base of {size.base_files} files, {size.generated_files} "
        "generated files. Cold: nothing on the builder's disk, in its cache or in the proxy. Through the proxy the "
        "builder's disk is empty for every build, but for those at once, which share one; buildah keeps its pulled "
        "base, and has its layer cache off; the daemon of BuildKit runs already, and its processor time and memory are "
        "counted (those of the proxy and the registry are not). Requests are those to the server that "
        "the tool talks to, the proxy or the registry. Memory is the sum of what all processes of the tool have "
        "resident, sampled. File systems are synced before each build; the page cache is left as it is. "
        f"Crossdock chooses its isolation itself; {version}: chroot isolation, overlay storage. {machine()}"
    )
