"""Which ids an ordinary user gets from /etc/subuid, and where they are in the namespace."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from builder.layer.changes import Entry
from builder.layer.tarlayer import write_layer
from builder.sandbox.rootless import IdRange, granted_ids, id_map
from tests.container import PROJECT


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ("", ()),
        ("me:100000:65536\n", (IdRange(100000, 65536),)),
        ("you:1:2\n 1000:3:4 \nme:5:6\n", (IdRange(3, 4), IdRange(5, 6))),
        ("meme:1:2\nme\nme:1\nme:x:2\nme:1:-2\nme:1:0\n#me:1:2\n", ()),
    ],
)
def test_lines_of_the_user_s_name_or_number_count(text, granted):
    assert granted_ids(text, "me", 1000) == granted


def test_a_user_without_a_name_goes_by_the_number():
    assert granted_ids(":1:2\n1000:3:4\n", "1000", 1000) == (IdRange(3, 4),)


def test_zero_is_the_user_and_the_rest_follows():
    assert id_map(1000, (IdRange(100000, 5), IdRange(7, 60000))) == [(0, 1000, 1), (1, 100000, 5), (6, 7, 60000)]


UNPACK_WITH_TWO_IDS = """
import pathlib, sys
from builder.layer.unpack import unpack_layer
from builder.sandbox.user_namespace import enter_user_namespace

def two_ids(pid):
    for name in ("uid_map", "gid_map"):
        pathlib.Path(f"/proc/{pid}/{name}").write_text("0 0 2")
    return 0

enter_user_namespace(0, two_ids)
unpack_layer(open(sys.argv[1], "rb"), pathlib.Path(sys.argv[2]), overlay=False)
"""


def test_an_id_that_is_not_there_is_named(tmp_path: Path):
    with (tmp_path / "layer").open("wb") as layer:
        write_layer([Entry("x", stat.S_IFREG | 0o644, uid=77)], layer, compression="none")
    (tmp_path / "root").mkdir()
    command = [sys.executable, "-c", UNPACK_WITH_TWO_IDS, tmp_path / "layer", tmp_path / "root"]
    done = subprocess.run(command, env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False)
    assert "BuildError: cannot unpack 'x': user 77, group 0: not mapped in this user namespace" in done.stderr
