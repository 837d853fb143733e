"""The bench of gc itself works, at tiny sizes, and shows that gc asks a store for no more than it must."""

from __future__ import annotations

from tests.bench import collecting

SIZES = (100,)


def test_it_fills_its_table():
    rows = [line.split(" | ") for line in collecting.measure(SIZES).splitlines() if line.startswith("| ")]
    cells = {row[0].strip("| "): [cell.strip(" |") for cell in row[1:]] for row in rows}
    assert all(all(row) for row in cells.values())
    for column, entries in enumerate(SIZES):
        found = {row: int(cell[column]) for row, cell in cells.items() if row.endswith("requests")}
        shards = found["first run, PUT requests"]  # of what is known of manifests
        assert found["first run, GET requests"] == 2 * entries + shards + 1
        assert found["next run, GET requests"] == entries + 2 * shards + 1
        assert found["next run, PUT requests"] == 0
        assert found["a hundredth goes, DELETE requests"] == entries // 100  # tags, each as it was judged
        assert found["its blobs go, DELETE requests"] == 3  # records, blobs and the batch
        assert found["look-up of a tag, requests"] == 1
