"""What a command changed, found on both rungs: on a real overlay, and by comparing walks."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builder.layer.changes import Change, Entry, Whiteout
from builder.layer.rootfs import Tree
from builder.layer.snapshot import fingerprint, overlay_changes, walk_changes
from tests.builder.commands import START, check_layer, copy, operation, perform
from tests.builder.trees import CAPABILITY, layer_of, listing, make, overlay

Command = Callable[[Path], object]
Rung = Callable[[Command, frozenset[str]], list[Change]]

BASE: dict[str, str | bytes | None] = {
    "bin/tool": "tool",
    "dir/file": "1",
    "dir/sub/x": "x",
    "dir/sub/y": "y",
    "etc/hosts": "hosts",
    "link": "-> dir/file",
    "empty": None,
}


def make_base(root: Path) -> Path:
    make(root, BASE)
    os.link(root / "dir/file", root / "dir/same")
    for seen in Tree([root]).walk():
        os.utime(seen.on_disk, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    os.utime(root, (1_000_000_000, 1_000_000_000))
    return root


@pytest.fixture(params=["overlay", "walk"])
def changes_by(request, tmp_path: Path) -> Rung:
    """Runs a command on the base and says what it changed."""
    base = make_base(tmp_path / "base")

    def on_overlay(command: Command, ignore: frozenset[str]) -> list[Change]:
        with overlay([base], tmp_path / "mount") as (merged, upper):
            command(merged)
            return overlay_changes(upper, Tree([base]), ignore)

    def by_walk(command: Command, ignore: frozenset[str]) -> list[Change]:
        before = fingerprint(base, ignore)
        command(base)
        return walk_changes(base, before, ignore)

    return on_overlay if request.param == "overlay" else by_walk


def sh(script: str) -> Command:
    return lambda root: subprocess.run(["sh", "-ec", script], cwd=root, check=True)


def names(changes: list[Change]) -> list[str]:
    """The paths of the changes; those that are gone with a minus, other names of files with what they name."""
    shown = []
    for change in changes:
        if isinstance(change, Whiteout):
            shown.append("-" + change.path)
        else:
            linked = isinstance(change, Entry) and change.hardlink
            shown.append(f"{change.path}={change.link}" if linked else change.path)
    return shown


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("cat dir/file bin/tool >/dev/null; ls -R >/dev/null", []),
        ("echo new > new", ["new"]),
        ("echo changed > bin/tool", ["bin", "bin/tool"]),
        ("touch -d @5 bin/tool", ["bin", "bin/tool"]),
        ("chmod u+s bin/tool", ["bin", "bin/tool"]),
        ("chown 5:6 bin/tool", ["bin", "bin/tool"]),
        ("chown -h 5:6 link", ["link"]),
        ("ln -sfn elsewhere link", ["link"]),
        ("rm bin/tool", ["bin", "-bin/tool"]),
        ("rm -r dir", ["-dir"]),
        ("rm -r dir; mkdir dir", ["dir", "-dir/file", "-dir/same", "-dir/sub"]),
        ("rm -r dir; mkdir -p dir/sub; echo n > dir/sub/n", None),
        ("rm -r dir; echo file > dir", ["dir"]),
        ("rm bin/tool; mkdir bin/tool; echo x > bin/tool/x", ["bin", "bin/tool", "bin/tool/x"]),
        ("rm -r dir; ln -s bin dir", ["dir"]),
        ("mkdir -p new/a/b; echo x > new/a/b/x; rm -r new/a", ["new"]),
        ("mkdir new; echo x > new/a; ln new/a new/b; ln new/a new/0", ["new", "new/0", "new/a=new/0", "new/b=new/0"]),
        ("mkfifo fifo; mknod null c 1 3", ["fifo", "null"]),
        ("mv bin/tool bin/renamed", ["bin", "bin/renamed", "-bin/tool"]),
        ("chmod 700 empty", ["empty"]),
        ("echo x > dir.file", ["dir.file"]),
        ("mkdir -p proc; echo ignored > proc/x; echo 1 > etc/hosts", ["etc"]),
        ("rm etc/hosts", ["etc"]),
    ],
)
def test_finds_what_a_command_changed(changes_by: Rung, script: str, expected: list[str] | None):
    if expected is None:
        expected = ["dir", "-dir/file", "-dir/same", "dir/sub", "dir/sub/n", "-dir/sub/x", "-dir/sub/y"]
    found = names(changes_by(sh(script), frozenset({"proc", "etc/hosts"})))
    # A file's parent changes only when names come or go; writing into a file leaves its directory as it was.
    assert [path for path in found if path != "etc"] == [path for path in expected if path != "etc"]


def test_content_changes_behind_the_same_time_and_size_are_found(changes_by: Rung):
    def rewrite(root: Path) -> None:
        (root / "bin/tool").write_bytes(b"loot")
        os.utime(root / "bin/tool", (1_000_000_000, 1_000_000_000))

    assert names(changes_by(rewrite, frozenset())) == ["bin", "bin/tool"]


def test_entries_say_all_that_a_layer_keeps(changes_by: Rung):
    def command(root: Path) -> None:
        (root / "new").write_bytes(b"12345")
        os.chown(root / "new", 1000, 1001)
        os.chmod(root / "new", 0o4755)
        os.setxattr(root / "new", "security.capability", CAPABILITY)
        os.utime(root / "new", ns=(7, 2_000_000_007))
        os.symlink("target", root / "symlink")

    new, symlink = changes_by(command, frozenset())
    assert isinstance(new, Entry)
    assert isinstance(symlink, Entry)
    assert (new.mode, new.uid, new.gid, new.size_bytes) == (stat.S_IFREG | 0o4755, 1000, 1001, 5)
    assert (new.xattrs, new.mtime_ns) == ({"security.capability": CAPABILITY}, 2_000_000_007)
    assert new.content is not None
    assert Path(new.content).read_bytes() == b"12345"
    assert (symlink.link, symlink.content, stat.S_ISLNK(symlink.mode)) == ("target", None, True)


def test_sockets_and_overlays_own_notes_are_left_out(changes_by: Rung):
    command = sh("mkdir -p dir/sub/new; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"dir/s\")'")
    changes = changes_by(command, frozenset())
    assert names(changes) == ["dir", "dir/sub", "dir/sub/new"]
    assert all(change.xattrs == {} for change in changes if isinstance(change, Entry))


def test_a_copied_up_file_without_a_change_is_none(tmp_path: Path):
    """Opening for writing and giving a file the owner it has copy it up, and change nothing."""
    base = make_base(tmp_path / "base")
    with overlay([base], tmp_path / "mount") as (merged, upper):
        with (merged / "bin/tool").open("ab"):
            pass
        subprocess.run(["chown", "-R", "0:0", merged / "dir/sub"], check=True)
        assert (upper / "bin/tool").exists()
        assert (upper / "dir/sub/x").exists()
        assert overlay_changes(upper, Tree([base])) == []


def test_names_that_are_not_utf8(changes_by: Rung):
    name = os.fsdecode(b"\xff\xfe")
    changes = changes_by(lambda root: (root / name).mkdir(), frozenset())
    assert names(changes) == [name]


# Random commands: what the layer brings back must be what the command left, on both rungs


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@example(before=[], command=[("rename", "a", "b/a")])
@example(before=[], command=[("remove", "a", None), ("link", "a", "b/b")])
@given(before=st.lists(operation, max_size=6), command=st.lists(operation, min_size=1, max_size=10))
def test_a_layer_brings_back_what_a_command_left(before, command):
    with tempfile.TemporaryDirectory() as scratch:
        tmp_path = Path(scratch)
        base = make(tmp_path / "base", START)
        os.link(base / "a/a/a", base / "b/b")
        perform(base, before)
        check_overlay(base, command, tmp_path / "o")
        check_walk(base, command, tmp_path / "w")


def check_overlay(base: Path, command, tmp_path: Path) -> None:
    with overlay([base], tmp_path) as (merged, upper):
        perform(merged, command)
        expected = listing(merged)
        layer = layer_of(overlay_changes(upper, Tree([base])))
    check_layer(base, layer, expected, tmp_path)


def check_walk(base: Path, command, tmp_path: Path) -> None:
    tmp_path.mkdir()
    root = copy(base, tmp_path / "root")
    before = fingerprint(root)
    perform(root, command)
    check_layer(base, layer_of(walk_changes(root, before)), listing(root), tmp_path)
