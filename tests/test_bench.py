"""The bench itself works, at tiny sizes; what it then measures means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import builds, project, proxies

pytestmark = pytest.mark.peers


def test_the_bench_of_the_proxy_fills_its_table(tmp_path: Path):
    rows = [line for line in proxies.measure(tmp_path, 1, proxies.QUICK).splitlines() if line.startswith("| ")]
    cells = {row.split(" | ")[0]: [cell.strip(" |") for cell in row.split(" | ")[1:]] for row in rows}
    assert len(cells) == 13
    assert all(row[0] for row in cells.values())
    fetches = next(row for name, row in cells.items() if name.endswith("fetches from the registry"))
    assert fetches[0] == "1"


def test_the_bench_of_the_builder_fills_its_table(tmp_path: Path):
    tables = builds.measure(tmp_path, 1, project.QUICK).split("\n\n")[: len(builds.MEASURES)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[0].splitlines()[2:]]
    assert len(rows) == 1 + 4 + 1  # builds at once; the first project's cases; the second's
    assert all(row[1] for row in rows)
    assert all(all(row) for row in rows if row[0].endswith(": cold"))
