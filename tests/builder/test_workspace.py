"""Work directories: one for each build, none left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.workspace import work_directory


def test_a_work_directory_goes_with_its_build(tmp_path):
    with work_directory(tmp_path) as one, work_directory(tmp_path) as other:
        assert one != other
        (one / "file").write_text("x")
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next_and_a_living_one_is_kept(tmp_path):
    program = (
        "import sys, time, pathlib\n"
        "from builder.workspace import work_directory\n"
        "with work_directory(pathlib.Path(sys.argv[1])) as work:\n"
        "    (work / 'deep').mkdir(); (work / 'deep' / 'file').write_text('x')\n"
        "    print(work, flush=True); time.sleep(60)\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed = children[0]
    try:
        left, kept = (Path(child.stdout.readline().strip()) for child in children)  # type: ignore[union-attr]
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert left.exists()
        with work_directory(tmp_path):
            assert not left.exists()
            assert (kept / "deep" / "file").exists()
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_many_builds_start_at_once(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from builder.workspace import work_directory\n"
        "for _ in range(50):\n"
        "    with work_directory(pathlib.Path(sys.argv[1])) as work:\n"
        "        (work / 'file').write_text('x')\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert list((tmp_path / "work").iterdir()) == []


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BuildError, match=r"state directory .*/file/state.*--state-dir"),
        work_directory(tmp_path / "file/state"),
    ):
        pass


def test_builds_are_spread_over_an_ext4_disk_and_other_file_systems_are_left_alone(tmp_path):
    small = tmp_path / "tmpfs"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(small)], check=True)
    try:
        for state in (tmp_path / "state", small / "state"):
            with work_directory(state):
                on_ext4 = subprocess.run(["stat", "-f", "-c", "%T", str(state)], capture_output=True, text=True)
                if on_ext4.stdout.strip() == "ext2/ext3":
                    shown = subprocess.run(["lsattr", "-d", str(state / "work")], capture_output=True, text=True)
                    assert "T" in shown.stdout.split()[0]
    finally:
        subprocess.run(["umount", str(small)], check=True)
