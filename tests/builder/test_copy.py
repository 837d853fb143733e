"""COPY and ADD: what patterns find, where it lands, and the digest that keys depend on."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from builder.contexts.ignore import IgnoreRules
from builder.errors import ContextError
from builder.execution import copy
from builder.execution.chmod import ModeChange
from builder.execution.copy import content_digest, unpack_archives
from builder.execution.copy_rules import split_pattern
from builder.execution.placement import Destination, Source, make_directory, place
from builder.layer.archives import is_archive
from builder.layer.changes import Change, Entry
from builder.layer.rootfs import Tree
from builder.layer.tarlayer import write_layer
from builder.layer.unpack import unpack_layer
from builder.planning.sources import Selection
from tests.builder.trees import CAPABILITY, layer_of, listing, make, unpacked


def collect(tree: Tree, patterns: Sequence[str], *more: IgnoreRules, **options: object) -> tuple[Source, ...]:
    """What the patterns find, without flags."""
    return copy.collect(tree, Selection(patterns=tuple(patterns)), *more, **options)  # type: ignore[arg-type]


MADE_AT_NS = 1_234_000_000_000
CONTEXT: dict[str, str | bytes | None] = {
    "a.txt": "a",
    "b.txt": "b",
    "c.md": "c",
    "dir/x": "x",
    "dir/sub/y": "y",
    "dir2/x": "other x",
    "link": "-> dir",
    "file-link": "-> dir/x",
    "outside": "-> ../../../etc",
    "dir/inner": "-> x",
    "deep/1/z": "z1",
    "deep/2/z": "z2",
    "empty": None,
}


@pytest.fixture
def context(tmp_path: Path) -> Tree:
    root = make(tmp_path / "context", CONTEXT)
    os.chown(root / "a.txt", 1000, 1000)
    return Tree([root])


@pytest.fixture
def stage(tmp_path: Path) -> Tree:
    root = make(
        tmp_path / "stage",
        {
            "etc/conf": "old",
            "app/x": "old",
            "app/sub/old": "",
            "bin": "-> usr/bin",
            "usr/bin/sh": "",
            "away": "-> /new/d",
        },
    )
    os.chmod(root / "app", 0o1777)
    os.chown(root / "app", 5, 6)
    os.chmod(root / "app/sub", 0o700)
    return Tree([root])


def shown(changes: Sequence[Change]) -> dict[str, str]:
    """The changes in short: type, permissions and owner by path."""
    kinds = {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l", stat.S_IFIFO: "p", stat.S_IFCHR: "c"}
    return {
        change.path: f"{kinds[stat.S_IFMT(change.mode)]} {stat.S_IMODE(change.mode):o} {change.uid}:{change.gid}"
        for change in changes
        if isinstance(change, Entry)
    }


def copied(tree: Tree, patterns: Sequence[str], stage: Tree, destination: Destination) -> list[Change]:
    return place(collect(tree, patterns, owner=(0, 0)), destination, stage)


def paths(changes: Sequence[Change]) -> list[str]:
    return [change.path for change in changes]


# Patterns


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "abc", True),
        ("a*c", "abbc", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a]", "b", True),
        ("[]]", "]", None),
        ("[a", "a", None),
        ("[a-]", "a", None),
        ("[-a]", "a", None),
        ("[z-a]*", "a", False),
        (r"*\*", "a*", True),
        (r"*\*", "ab", False),
        (r"[\]]", "]", True),
        (r"[\--a]", "-", True),
        ("*\\", "a", None),
        ("a.*", "ab", False),
        ("*(x)", "(x)", True),
        ("*", "new\nline", True),
        ("?", "\udcff", True),
    ],
)
def test_patterns_are_those_of_go(pattern: str, name: str, matches: bool | None):
    if matches is None:
        with pytest.raises(ContextError, match="is not a pattern"):
            split_pattern(pattern)
        return
    base, (compiled,) = split_pattern(pattern)
    assert base == ""
    assert (compiled.fullmatch(name) is not None) is matches


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.txt"], ["a.txt"]),
        (["/a.txt"], ["a.txt"]),
        (["../../a.txt"], ["a.txt"]),
        (["dir/../b.txt"], ["b.txt"]),
        (["*.txt"], ["a.txt", "b.txt"]),
        (["dir*"], ["dir", "dir2"]),
        (["deep/*/z"], ["z", "z"]),
        (["link/x"], ["x"]),
        (["link"], ["link"]),
        (["link/*"], ["inner", "sub", "x"]),
        (["a.txt", "nothing*"], ["a.txt"]),
        (["*/x"], ["x", "x"]),
        (["."], [""]),
        (["no*", "nor?"], []),
    ],
)
def test_what_patterns_find(context: Tree, patterns: list[str], expected: list[str]):
    assert [source.name for source in collect(context, patterns)] == expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["missing"], "the source 'missing' is not there"),
        (["dir/missing/x"], "the source 'dir/missing/x' is not there"),
        (["a.txt/x"], "the source 'a.txt/x' is not there"),
        (["outside"], "the source 'outside' is not there"),
        (["../../../etc/passwd"], "the source '../../../etc/passwd' is not there"),
        (["[", "a.txt"], "is not a pattern"),
        (["loop/x"], "too many levels of symbolic links"),
        (["o*"], r"'o\*' finds 'outside', a link to what is not there"),
    ],
)
def test_what_is_not_found_is_named(context: Tree, patterns: list[str], message: str):
    (context.real_path("dir").parent / "loop").symlink_to("loop")
    with pytest.raises(ContextError, match=message):
        collect(context, patterns)


def test_a_directory_gives_what_it_holds(context: Tree):
    (source,) = collect(context, ["link"], owner=(0, 0))
    assert source.kind == "directory"
    assert [entry.path for entry in source.entries] == ["inner", "sub", "sub/y", "x"]
    assert source.entries[0].link == "x"


def test_a_named_link_gives_what_it_points_to(context: Tree):
    (source,) = collect(context, ["file-link"])
    assert (source.kind, source.name) == ("file", "file-link")
    assert Path(str(source.entries[0].content)).read_text() == "x"


def test_files_of_the_context_belong_to_root_those_of_a_stage_to_their_owner(context: Tree):
    assert [collect(context, ["a.txt"], owner=owner)[0].entries[0].uid for owner in ((0, 0), None)] == [0, 1000]


def test_ignored_files_do_not_exist(context: Tree):
    ignore = IgnoreRules.parse("dir\n!dir/sub/y\n*.md\nempty\ndeep/1\n")
    found = collect(context, ["."], ignore)[0].entries
    assert [entry.path for entry in found if not entry.is_directory] == [
        "a.txt", "b.txt", "deep/2/z", "dir/sub/y", "dir2/x", "file-link", "link", "outside",
    ]  # fmt: skip
    assert [entry.path for entry in found if entry.is_directory] == ["deep", "deep/2", "dir", "dir/sub", "dir2"]
    assert [entry.path for entry in collect(context, ["dir"], ignore)[0].entries] == ["sub", "sub/y"]
    assert [source.name for source in collect(context, ["[a-l]*"], ignore)] == [
        "a.txt", "b.txt", "deep", "dir", "dir2", "link",
    ]  # fmt: skip
    for excluded in ("c.md", "empty", "dir/x", "file-link"):
        with pytest.raises(ContextError, match=f"the source '{excluded}' is excluded by .dockerignore"):
            collect(context, [excluded], ignore)


# Placing


@dataclass(frozen=True)
class Case:
    patterns: list[str]
    destination: str
    expected: dict[str, str]
    workdir: str = "/"
    chown: tuple[int, int] | None = None
    chmod: int | None = None


CASES = {
    "a file under a new name": Case(["a.txt"], "/new", {"new": "f 644 0:0"}),
    "a file into a directory": Case(["a.txt"], "/app", {"app": "d 1777 5:6", "app/a.txt": "f 644 0:0"}),
    "a trailing slash makes a directory": Case(["a.txt"], "/n/", {"n": "d 755 0:0", "n/a.txt": "f 644 0:0"}),
    "relative to the workdir": Case(["a.txt"], ".", {"w": "d 755 0:0", "w/a.txt": "f 644 0:0"}, workdir="/w"),
    "above the workdir": Case(["a.txt"], "../../../x", {"x": "f 644 0:0"}, workdir="/w"),
    "a file is replaced": Case(["a.txt"], "/etc/conf", {"etc": "d 755 0:0", "etc/conf": "f 644 0:0"}),
    "parents are made": Case(
        ["a.txt"],
        "/n/m/x",
        {"n": "d 755 7:8", "n/m": "d 755 7:8", "n/m/x": "f 600 7:8"},
        chown=(7, 8),
        chmod=ModeChange.parse("600"),
    ),
    "through a link": Case(
        ["a.txt"], "/bin/", {"usr": "d 755 0:0", "usr/bin": "d 755 0:0", "usr/bin/a.txt": "f 644 0:0"}
    ),
    "through a dangling link": Case(["a.txt"], "/away", {"new": "d 755 0:0", "new/d": "f 644 0:0"}),
    "a directory's content": Case(
        ["dir"],
        "/n",
        {
            "n": "d 755 0:0",
            "n/inner": "l 777 0:0",
            "n/sub": "d 755 0:0",
            "n/sub/y": "f 644 0:0",
            "n/x": "f 644 0:0",
        },
    ),
    "directories merge": Case(
        ["dir"],
        "/app",
        {
            "app": "d 1777 5:6",
            "app/inner": "l 777 0:0",
            "app/sub": "d 755 0:0",
            "app/sub/y": "f 644 0:0",
            "app/x": "f 644 0:0",
        },
    ),
    "chown and chmod": Case(
        ["dir/"],
        "/n",
        {
            "n": "d 755 9:9",
            "n/inner": "l 777 9:9",
            "n/sub": "d 2750 9:9",
            "n/sub/y": "f 2750 9:9",
            "n/x": "f 2750 9:9",
        },
        chown=(9, 9),
        chmod=ModeChange.parse("2750"),
    ),
    "several into a directory": Case(
        ["*.txt"], "/n/", {"n": "d 755 0:0", "n/a.txt": "f 644 0:0", "n/b.txt": "f 644 0:0"}
    ),
    "several into one that is there": Case(
        ["*.txt"], "/etc", {"etc": "d 755 0:0", "etc/a.txt": "f 644 0:0", "etc/b.txt": "f 644 0:0"}
    ),
    "the last of two wins": Case(["dir/x", "dir2/x"], "/n/", {"n": "d 755 0:0", "n/x": "f 644 0:0"}),
    "an empty directory": Case(["empty"], "/n", {"n": "d 755 0:0"}),
    "an empty directory on one that is there": Case(["empty"], "/app", {}),
    "to the root": Case(["a.txt"], "/", {"a.txt": "f 644 0:0"}),
}


@pytest.mark.parametrize("name", CASES)
def test_where_sources_land(context: Tree, stage: Tree, name: str):
    case = CASES[name]
    destination = Destination(case.destination, case.workdir, case.chown, case.chmod, MADE_AT_NS)
    changes = copied(context, case.patterns, stage, destination)
    assert shown(changes) == case.expected
    assert all(change.mtime_ns == MADE_AT_NS for change in changes if change.path in {"n", "n/m", "w"})


def test_the_last_source_wins(context: Tree, stage: Tree):
    changes = copied(context, ["dir/x", "dir2/x"], stage, Destination("/n/"))
    assert Path(str(changes[-1].content)).read_text() == "other x"


@pytest.mark.parametrize(
    ("patterns", "destination", "message"),
    [
        (["*.txt"], "/new", "several sources need a directory to go to: end the destination '/new' in a slash"),
        (["dir"], "/etc/conf", "/etc/conf is there and is not a directory"),
        (["a.txt"], "/etc/conf/", "/etc/conf is there and is not a directory"),
        (["a.txt"], "/etc/conf/x", "/etc/conf is there and is not a directory"),
        (["deep/1"], "/taken", "cannot copy a file to /taken/z, which is a directory"),
        (["deep"], "/files", "cannot copy the directory '1' to /files/1, which is not a directory"),
        (["a.txt"], "/loop/x", "cannot copy to '/loop/x': .*too many levels"),
    ],
)
def test_what_cannot_be_placed(context: Tree, tmp_path: Path, patterns, destination: str, message: str):
    stage = Tree([make(tmp_path / "s", {"etc/conf": "", "taken/z/x": "", "files/1": "-> /etc", "loop": "-> loop"})])
    with pytest.raises(ContextError, match=message):
        copied(context, patterns, stage, Destination(destination))


def test_onto_nothing_at_all(context: Tree):
    assert paths(copied(context, ["a.txt"], Tree([]), Destination("/n/"))) == ["n", "n/a.txt"]
    assert paths(copied(context, ["dir/sub"], Tree([]), Destination("/"))) == ["y"]


def test_a_working_directory_is_made_once(stage: Tree):
    assert shown(make_directory("/n/m", stage, (5, 5), 0)) == {"n": "d 755 5:5", "n/m": "d 755 5:5"}
    assert make_directory("/app/sub", stage, (5, 5), 0) == []
    assert shown(make_directory("/bin/x", stage, (0, 0), 0)).keys() == {"usr", "usr/bin", "usr/bin/x"}


def test_special_files_links_and_attributes_of_a_stage_are_kept(tmp_path: Path, stage: Tree):
    root = make(tmp_path / "source", {"d/a": "content", "d/z": "other"})
    os.link(root / "d/a", root / "d/b")
    os.mkfifo(root / "d/fifo")
    os.mknod(root / "d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(root / "d/a", 3, 4)
    os.setxattr(root / "d/z", "security.capability", CAPABILITY)
    os.setxattr(root / "d/z", "user.overlay.origin", b"x")
    changes = place(collect(Tree([root]), ["/d"]), Destination("/n"), stage)
    target = unpacked(layer_of(changes), tmp_path / "layer", lower=[stage.real_path("")])
    assert {f"n/{p}": w[:-1] for p, w in listing(root / "d").items()} == {
        path: what[:-1] for path, what in listing(target).items() if path != "n"
    }
    assert listing(target)["n/b"][-1] == "n/a"


def test_a_hard_link_whose_first_name_is_overwritten_keeps_its_content(tmp_path: Path):
    root = make(tmp_path / "source", {"one/a": "linked", "two/a": "overwritten"})
    os.link(root / "one/a", root / "one/b")
    changes = place(collect(Tree([root]), ["one", "two"]), Destination("/n/"), Tree([]))
    (tmp_path / "out").mkdir()
    layer = io.BytesIO()
    write_layer(changes, layer)
    layer.seek(0)
    unpack_layer(layer, tmp_path / "out", overlay=False)
    assert [(tmp_path / "out/n" / name).read_text() for name in "ab"] == ["overwritten", "linked"]


# Archives


def archive(tmp_path: Path) -> bytes:
    """A tar with owners, an implied directory and a directory where the stage has a link."""
    root = make(tmp_path / "packed", {"bin/tool": "tool", "etc/conf": "new", "app/x/y": "", "deep/1/z": "z"})
    os.chown(root / "bin/tool", 10, 11)
    os.chmod(root / "etc/conf", 0o600)
    names = ["bin", "bin/tool", "etc/conf", "app/x", "app/x/y", "deep/1/z"]
    command = ["tar", "--no-recursion", "--numeric-owner", "-C", root, "-cf", "-", *names]
    return subprocess.run(command, check=True, capture_output=True).stdout


PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_archives_are_unpacked_whatever_their_name(tmp_path: Path, stage: Tree, packer: str):
    root = make(tmp_path / "context", {"file.bin": PACKERS[packer](archive(tmp_path))})
    sources = collect(Tree([root]), ["file.bin"], owner=(0, 0), detect_archives=True)
    assert [source.kind for source in sources] == ["archive"]
    changes = place(
        unpack_archives(sources, tmp_path / "scratch"), Destination("/", chmod=ModeChange.parse("777")), stage
    )
    assert shown(changes) == {
        "app": "d 1777 5:6",
        "app/x": "d 755 0:0",  # the stage has a file here
        "app/x/y": "f 644 0:0",
        "bin": "d 755 0:0",  # the stage has a link here
        "bin/tool": "f 644 10:11",
        "deep": "d 755 0:0",
        "deep/1": "d 755 0:0",
        "deep/1/z": "f 644 0:0",
        "etc": "d 755 0:0",
        "etc/conf": "f 600 0:0",
    }


def test_an_archive_goes_into_its_destination_and_takes_chown(tmp_path: Path, stage: Tree):
    root = make(tmp_path / "context", {"a.tar": archive(tmp_path), "b.txt": "plain"})
    sources = collect(Tree([root]), ["a.tar", "b.txt"], owner=(0, 0), detect_archives=True)
    unpack_archives(sources, tmp_path / "scratch")  # as an earlier step may have done
    changes = place(unpack_archives(sources, tmp_path / "scratch"), Destination("n/", chown=(1, 2)), stage)
    found = shown(changes)
    assert {found[path] for path in ("n/bin/tool", "n/b.txt")} == {"f 644 1:2"}
    assert found["n"] == "d 755 1:2"
    assert found["n/deep"] == "d 755 0:0"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        bytes(2048),
        b"\x1f\x8bnot really",
        gzip.compress(b"a gzip file that is no tar" * 99),
        b"BZh9x" * 200,
    ],
    ids=["empty", "text", "zeros", "gzip's beginning", "gzip of no tar", "bzip2's beginning"],
)
def test_other_files_are_copied(tmp_path: Path, content: bytes):
    root = make(tmp_path, {"file.tar.gz": content})
    assert not is_archive(str(root / "file.tar.gz"))
    assert collect(Tree([root]), ["file.tar.gz"], detect_archives=True)[0].kind == "file"


def test_a_damaged_archive_is_named(tmp_path: Path):
    root = make(tmp_path / "context", {"a.tgz": gzip.compress(archive(tmp_path))[:-30]})
    sources = collect(Tree([root]), ["a.tgz"], detect_archives=True)
    with pytest.raises(ContextError, match=r"cannot unpack 'a.tgz': the archive is damaged"):
        unpack_archives(sources, tmp_path / "scratch")


def test_replacing_a_directory_drops_what_was_placed_in_it(tmp_path: Path):
    sources = [
        Source("one", "unpacked", (Entry("d", stat.S_IFDIR | 0o755), Entry("d/x", stat.S_IFLNK | 0o777, link="y"))),
        Source("two", "unpacked", (Entry("d", stat.S_IFLNK | 0o777, link="e"),)),
    ]
    assert shown(place(sources, Destination("/"), Tree([]))) == {"d": "l 777 0:0"}


# Digests


def digest_of(root: Path, patterns: Sequence[str] = (".",)) -> str:
    return str(content_digest(collect(Tree([root]), patterns, owner=(0, 0))))


def test_the_digest_is_of_what_lands(tmp_path: Path):
    one = make(tmp_path / "one", CONTEXT)
    two = make(tmp_path / "two", CONTEXT)
    os.utime(two / "a.txt", (1, 1))
    os.chown(two / "b.txt", 77, 77)
    assert digest_of(one) == digest_of(two)
    assert digest_of(one, ["dir"]) == digest_of(two, ["link"])
    assert digest_of(one, ["dir/x"]) != digest_of(one, ["file-link"])


@pytest.mark.parametrize(
    "script",
    [
        "echo other > a.txt",
        "chmod 600 a.txt",
        "mv a.txt a2.txt",
        "rm dir/inner; ln -s sub/y dir/inner",
        "rm b.txt; ln a.txt b.txt",
        "mkdir empty/more",
        "chmod 700 empty",
        "mkfifo fifo",
        "rm c.md; mkdir c.md",
        "setfattr=1",
    ],
)
def test_the_digest_changes_with(tmp_path: Path, script: str):
    root = make(tmp_path, CONTEXT)
    before = digest_of(root)
    if script == "setfattr=1":
        os.setxattr(root / "a.txt", "user.x", b"1")
    else:
        subprocess.run(["sh", "-ec", script], cwd=root, check=True)
    assert digest_of(root) != before


def test_the_digest_is_framed(tmp_path: Path):
    assert digest_of(make(tmp_path / "1", {"ab": "c"})) != digest_of(make(tmp_path / "2", {"a": "bc"}))


def test_a_file_that_vanishes_is_named(tmp_path: Path):
    root = make(tmp_path, {"x": "1"})
    sources = collect(Tree([root]), ["x"])
    (root / "x").unlink()
    with pytest.raises(ContextError, match=r"cannot read the source '.*x': No such file"):
        content_digest(sources)


def test_big_and_many_files(tmp_path: Path):
    root = make(
        tmp_path, {f"{number}": bytes([number % 251]) * 100 for number in range(1000)} | {"big": bytes(9 << 20)}
    )
    before = digest_of(root)
    with (root / "big").open("r+b") as file:
        file.seek((9 << 20) - 1)
        file.write(b"1")
    assert digest_of(root) != before
