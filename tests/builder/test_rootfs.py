"""The merged view of directories, held against what the kernel's overlayfs shows of the same ones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from builder.layer.rootfs import Tree
from tests.builder.trees import listing, make, overlay


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three layers, top first, with a deleted file, a hidden directory, and types that change."""
    bottom = make(
        tmp_path / "1",
        {"a/x": "1", "a/y": "1", "gone/x": "1", "opaque/old/x": "1", "dir/x": "1", "file": "1", "usr/lib/so": "1"},
    )
    middle = make(tmp_path / "2", {"a/x": "2", "a/z": "2", "opaque/new": "2", "dir": "2", "lib": "-> usr/lib"})
    top = make(tmp_path / "3", {"b/c": "3", "file/inside": "3", "dir/new": "3"})
    os.mknod(middle / "gone", 0o020000, os.makedev(0, 0))
    (top / "a").mkdir()
    os.mknod(top / "a/y", 0o020000, os.makedev(0, 0))
    os.setxattr(middle / "opaque", "user.overlay.opaque", b"y")
    return [top, middle, bottom]


def test_shows_what_overlayfs_shows(layers: list[Path], tmp_path: Path):
    with overlay(layers, tmp_path / "mount") as (merged, _):
        seen = listing(merged)
    assert listing(Tree(layers)) == seen
    assert set(seen) >= {"a/z", "opaque/new", "dir/new", "file/inside", "lib"}
    assert not set(seen) & {"a/y", "gone", "opaque/old", "dir/x"}


def test_answers_for_single_paths(layers: list[Path]):
    tree = Tree(layers)
    assert tree.listdir("a") == ["x", "z"]
    assert tree.real_path("a/x") == layers[1] / "a/x"
    assert tree.lstat("a/y") is None
    assert tree.lstat("gone") is None
    assert tree.lstat("a/x/below") is None
    assert tree.readlink("lib") == "usr/lib"
    with pytest.raises(FileNotFoundError):
        tree.real_path("gone")
    with pytest.raises(NotADirectoryError):
        tree.listdir("a/x")


def test_one_directory_hides_its_own_whiteouts(tmp_path: Path):
    top = make(tmp_path, {"x": "1"})
    os.mknod(top / "deleted", 0o020000, os.makedev(0, 0))
    assert Tree([top]).listdir("") == ["x"]


def test_an_empty_stack_is_an_empty_root():
    tree = Tree([])
    assert tree.listdir("") == []
    assert tree.lstat("etc") is None
    assert tree.resolve("../etc/./passwd") == "etc/passwd"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("lib/so", "usr/lib/so"),
        ("absolute/so", "usr/lib/so"),
        ("out", "etc/passwd"),
        ("usr/../../../lib", "usr/lib"),
        ("chain/so", "usr/lib/so"),
        ("dangling/x", "nowhere/x"),
        ("missing/../lib/x", "usr/lib/x"),
        ("usr/lib/so/x", "usr/lib/so/x"),
    ],
)
def test_links_are_followed_inside(tmp_path: Path, path: str, expected: str):
    links = {
        "usr/lib/so": "",
        "lib": "-> usr/lib",
        "absolute": "-> /usr/lib",
        "out": "-> ../../../../etc/passwd",
        "chain": "-> absolute",
        "dangling": "-> nowhere",
    }
    assert Tree([make(tmp_path, links)]).resolve(path) == expected


def test_the_last_link_can_be_kept(tmp_path: Path):
    tree = Tree([make(tmp_path, {"usr/link": "-> lib", "bin": "-> usr"})])
    assert tree.resolve("bin/link", follow_last=False) == "usr/link"
    assert tree.resolve("bin/link/.", follow_last=False) == "usr/link"


def test_a_loop_is_an_error(tmp_path: Path):
    with pytest.raises(OSError) as caught:
        Tree([make(tmp_path, {"a": "-> b", "b": "-> a"})]).resolve("a/x")
    assert caught.value.errno == errno.ELOOP


def test_names_come_in_the_order_of_their_bytes(tmp_path: Path):
    names = [b"B", b"a", b"a-b", "é".encode(), b"\xff"]
    for name in names:
        (tmp_path / os.fsdecode(name)).mkdir()
    (tmp_path / "a" / "z").touch()
    walked = [os.fsencode(seen.path) for seen in Tree([tmp_path]).walk()]
    assert walked == [b"B", b"a", b"a/z", b"a-b", "é".encode(), b"\xff"]


def test_a_walk_leaves_out_what_it_is_told(tmp_path: Path):
    tree = Tree([make(tmp_path, {"keep/x": "", "skip/x": ""})])
    assert [seen.path for seen in tree.walk(descend=lambda path: path != "skip")] == ["keep", "keep/x", "skip"]
