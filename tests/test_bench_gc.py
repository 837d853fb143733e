"""The bench of gc itself works, at tiny sizes, and its first run reads a tag and a manifest for each entry."""

from __future__ import annotations

from tests.bench import collecting


def test_it_fills_its_table():
    rows = [line.split(" | ") for line in collecting.measure((20, 40)).splitlines() if line.startswith("| ")]
    cells = {row[0].strip("| "): [cell.strip(" |") for cell in row[1:]] for row in rows}
    assert cells["first run, GET requests"] == ["41", "81"]
    assert all(all(row) for row in cells.values())
