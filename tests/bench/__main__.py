"""Runs the bench: tables of medians of several runs, those who are compared taking turns, written under docs/bench/."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench import builds, collecting, project, proxies

REPORTS = Path(__file__).parent.parent.parent / "docs" / "bench"
PARTS = {"builds": "Builds", "proxy": "The proxy", "gc": "Garbage collection"}
NEEDS = {"builds": builds.NEEDS, "proxy": proxies.NEEDS, "gc": ()}


def main() -> int:
    """Runs the bench and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default all)")
    parser.add_argument("--runs", type=int, default=3, help="how often everything is done (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: only shows that the bench works, writes nothing"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = options.parts or PARTS
    missing = [name for part in parts for name in NEEDS[part] if shutil.which(name) is None]
    if missing:
        print(f"The bench needs programs that are not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    REPORTS.mkdir(exist_ok=True)
    for part in parts:
        report = f"# {PARTS[part]}\n\n{measure(part, options.runs, options.quick)}\n"
        print(f"\n{report}", flush=True)
        if not options.quick:
            (REPORTS / f"{part}.md").write_text(report)
    return 0


def measure(part: str, runs: int, quick: bool) -> str:
    """One part's table with its conditions."""
    if part == "gc":
        return collecting.measure(collecting.QUICK if quick else collecting.FULL)
    with tempfile.TemporaryDirectory(prefix="crossdock-bench-") as tmp:
        if part == "builds":
            return builds.measure(Path(tmp), runs, project.QUICK if quick else project.FULL)
        return proxies.measure(Path(tmp), runs, proxies.QUICK if quick else proxies.FULL)


if __name__ == "__main__":
    sys.exit(main())
