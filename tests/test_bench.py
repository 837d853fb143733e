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
    rows = [line for line in builds.measure(tmp_path, 1, project.QUICK).splitlines() if line.startswith("| ")]
    assert len(rows) == len(builds.CASES) + 1
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
