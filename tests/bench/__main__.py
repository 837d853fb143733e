"""Runs the bench and writes its table: medians of several runs, the tools taking turns."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench import case
from tests.bench.tools import BASE, STATE, TOOLS, Place, Tool
from tests.debian import push_layout
from tests.peers import Registry, start_registry

REPORT = Path(__file__).parent.parent.parent / "build" / "bench.md"
CASES = ("cold build", "full hit", "one source file changed")
Seconds = dict[tuple[str, str], list[float]]


def main() -> int:
    """Runs the bench and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often everything is done (default 3)")
    runs = parser.parse_args().runs
    missing = [name for name in ("docker-registry", "skopeo", "buildah", "busybox") if shutil.which(name) is None]
    if missing:
        print(f"The bench needs programs that are not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    seconds: Seconds = {}
    with tempfile.TemporaryDirectory(prefix="crossdock-bench-") as tmp:
        for title, name, took in measure(Path(tmp), runs):
            seconds.setdefault((name, title), []).append(took)
            print(f"{title:30} {name:26} {took:7.2f} s", file=sys.stderr, flush=True)
    report = f"{table(seconds)}\n\n{conditions(runs)}\n"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report)
    print(f"\n{report}\nWritten to build/bench.md")
    return 0


def measure(tmp: Path, runs: int) -> Iterator[tuple[str, str, float]]:
    """Each (tool, case, seconds) as it is measured."""
    with start_registry(tmp / "registry") as registry:
        push_layout(case.write_base(tmp), f"{registry.host}/{BASE}")
        context = case.write_context(tmp)
        for run in range(runs):
            for number, tool in enumerate(TOOLS):
                repository = f"bench/app-{run}-{number}"
                place = Place(tmp / f"{run}-{number}", context, registry, repository)
                for name, took in measure_tool(tool, place, registry):
                    yield tool.title, name, took
                shutil.rmtree(place.directory, ignore_errors=True)


def measure_tool(tool: Tool, place: Place, registry: Registry) -> Iterator[tuple[str, float]]:
    """The three cases, one after the other on what the one before left."""
    place.directory.mkdir()
    with tool.ready(place) as address:
        for name in CASES:
            if name == "one source file changed":
                case.change_one_source_file(place.context, place.repository)
            if tool.starts_empty:
                shutil.rmtree(place.directory / STATE, ignore_errors=True)
            os.sync()  # nobody pays for what was written before
            started = time.perf_counter()
            tool.build(place, address)
            yield name, time.perf_counter() - started


def table(seconds: Mapping[tuple[str, str], list[float]]) -> str:
    """A Markdown table: the median and, in brackets, the range."""
    titles = [tool.title for tool in TOOLS]
    rows = [f"| seconds | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for name in CASES:
        cells = [
            f"{statistics.median(took):.2f} ({min(took):.2f}-{max(took):.2f})"
            for took in (seconds[name, title] for title in titles)
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def conditions(runs: int) -> str:
    """What was measured, and on what."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    version = subprocess.run(["buildah", "--version"], capture_output=True, text=True).stdout.strip()
    return (
        f"Medians of {runs} runs (range in brackets), start of the program and push to a docker-registry on the same "
        f"machine included. Two stages, a base of {case.BASE_FILES} files, {case.GENERATED_FILES} generated files. "
        "Cold: nothing on the builder's disk, in its cache or in the proxy. Through the proxy the builder's disk is "
        "empty for every build; buildah keeps its pulled base, and has its layer cache off. File systems are synced "
        "before each build; the page cache is left as it is. "
        f"Crossdock chooses its isolation itself; {version}: chroot isolation, overlay storage. "
        f"{os.cpu_count()} CPUs ({cpu_model()}), {memory_bytes / 1e9:.0f} GB of memory, Linux {platform.release()}, "
        f"Python {platform.python_version()}."
    )


def cpu_model() -> str:
    """The processor as the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
