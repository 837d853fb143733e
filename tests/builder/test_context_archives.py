"""Tars that are build contexts: what is refused, with the member's name, and that nothing lands outside."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.contexts.members import context_path
from builder.errors import BuildError, ContextError
from builder.execution.copy import check_unchanged, collect
from builder.layer.rootfs import Tree
from builder.layer.unpack import unpack_archive, unpack_context
from builder.options import Limits
from builder.planning.sources import Selection

Member = tuple[str, bytes, str]
"""A name, a type of tarfile's, and where it links to."""

FILE, LINK, HARD, DIRECTORY = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def tar(*members: Member, records: dict[str, str] | None = None) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.pax_headers = kind, target, records or {}
            archive.addfile(info, io.BytesIO())
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("/etc/x", FILE, "")], "'/etc/x' in the archive is an absolute path"),
        ([("a/../../x", FILE, "")], "'a/../../x' in the archive has .."),
        ([("x", HARD, "../outside")], "'../outside' in the archive has .."),
        ([("x", HARD, "/outside")], "'/outside' in the archive is an absolute path"),
        ([("a", LINK, "/"), ("a/x", FILE, "")], "'a/x' in the archive goes through the symlink 'a'"),
        ([("a", LINK, ".."), ("a/b/x", DIRECTORY, "")], "goes through the symlink 'a'"),
        ([("a", LINK, ".."), ("x", HARD, "a/y")], "'x' in the archive goes through the symlink 'a'"),
        ([("a", LINK, ".."), ("b", HARD, "a"), ("b/x", FILE, "")], "goes through the symlink 'b'"),
        ([("x", HARD, "not/there")], "'not/there'"),
        ([("dev", tarfile.CHRTYPE, "")], "'dev' in the archive is a device"),
        ([("dev", tarfile.BLKTYPE, "")], "'dev' in the archive is a device"),
        ([(".", FILE, "")], "would replace the root"),
        ([("a", FILE, ""), ("a/x", FILE, "")], "'a' is not a directory"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, members, said):
    root = tmp_path / "outer" / "root"
    root.mkdir(parents=True)
    with pytest.raises(BuildError) as caught:
        unpack_context(tar(*members), root, Limits())
    assert said in str(caught.value)
    assert os.listdir(root.parent) == ["root"]


@pytest.mark.parametrize(("name", "said"), [("", "has no name"), ("a\0b", "zero byte")])
def test_names_that_are_none(name, said):
    with pytest.raises(BuildError, match=said):
        context_path(name)


def test_a_zero_byte_in_a_record(tmp_path: Path):
    with pytest.raises(BuildError, match="zero byte"):
        unpack_context(tar(("x", FILE, ""), records={"path": "a\0b"}), tmp_path, Limits())


def test_what_contexts_may_hold(tmp_path: Path):
    members = [("./", DIRECTORY, ""), ("./d/f", FILE, ""), ("l", LINK, "/etc"), ("h", HARD, "./d/f"), ("g", HARD, "l")]
    members += [("fifo", tarfile.FIFOTYPE, ""), ("l2", LINK, "d"), ("l2", DIRECTORY, ""), ("l2/x", FILE, "")]
    unpack_context(tar(*members), tmp_path, Limits())
    assert sorted(os.listdir(tmp_path)) == ["d", "fifo", "g", "h", "l", "l2"]
    assert (os.readlink(tmp_path / "g"), os.listdir(tmp_path / "l2")) == ("/etc", ["x"])
    assert (tmp_path / "h").samefile(tmp_path / "d/f")


_NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "../a", "/a", ".", "a/../b", "b/c"])
_KINDS = st.sampled_from([FILE, DIRECTORY, LINK, HARD])


@settings(max_examples=200)
@given(
    members=st.lists(st.tuples(_NAMES, _KINDS, st.sampled_from(["a", "..", "/", "../..", "a/b", "b"])), max_size=6),
    unpack=st.sampled_from([unpack_context, unpack_archive]),
)
def test_nothing_ever_lands_outside(tmp_path_factory: pytest.TempPathFactory, members: list[Member], unpack):
    """Neither of a context nor of what ADD unpacks."""
    outer = tmp_path_factory.mktemp("outer")
    (outer / "root").mkdir()
    (outer / "kept").write_text("kept")
    with contextlib.suppress(BuildError):
        unpack(tar(*members), outer / "root", Limits())
    assert sorted(os.listdir(outer)) == ["kept", "root"]
    assert ((outer / "kept").read_text(), (outer / "kept").stat().st_nlink) == ("kept", 1)


class Endless:
    """Zeros for ever, compressed so that a little gives much; counts what was read."""

    def __init__(self) -> None:
        self.data = tar(("x", FILE, "")).getvalue()[:512]
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        self.read_bytes += size
        data, self.data = self.data[:size] or bytes(size), self.data[size:]
        return data


def test_a_stream_without_end_is_given_up(tmp_path: Path):
    stream = Endless()
    with pytest.raises(BuildError, match="more than 5000000 bytes unpacked"):
        unpack_context(stream, tmp_path, Limits(unpacked_bytes=5_000_000))
    assert stream.read_bytes < 8_000_000


def test_headers_without_end_are_given_up(tmp_path: Path):
    """Each announces more about a member that never comes."""
    number = iter(range(10**9))

    class Headers:
        data = b""

        def read(self, size: int, /) -> bytes:
            if not self.data:
                header = tarfile.TarInfo("x")
                header.pax_headers = {f"x{next(number)}": "x" * 500_000}
                self.data = header.create_pax_header(header.get_info(), "utf-8")[:-512]
            data, self.data = self.data[:size], self.data[size:]
            return data

    with pytest.raises(BuildError, match="an extended header of"):
        unpack_context(Headers(), tmp_path, Limits())
    assert next(number) < 100


def test_no_more_files_than_allowed(tmp_path: Path):
    members = [(f"f{number}", FILE, "") for number in range(5)]
    unpack_context(tar(*members), tmp_path, Limits(files=5))
    (tmp_path / "again").mkdir()
    with pytest.raises(BuildError, match="more than 4 files"):
        unpack_context(tar(*members), tmp_path / "again", Limits(files=4))


# Files that change after they were read


def test_a_file_that_changed_after_it_was_collected(tmp_path: Path):
    file = tmp_path / "f"
    file.write_text("one")
    sources = collect(Tree([tmp_path]), Selection(patterns=("f",)))
    check_unchanged(sources)
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    with pytest.raises(ContextError, match="changed during the build"):
        check_unchanged(sources)
    file.unlink()
    with pytest.raises(ContextError, match="has gone during the build"):
        check_unchanged(sources)
