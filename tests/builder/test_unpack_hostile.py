"""Random hostile archives, unpacked as layers and as ADD does: nothing outside their directory is ever touched.

No member leads out of the test's own directory, whatever is made of it: a defect shall not cost the machine its files.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.layer.rootfs import Tree
from builder.layer.unpack import unpack_archive, unpack_layer

Member = tuple[str, bytes, str, int]
"""A name, a type of tarfile's, where it links to, and its mode."""

OUTER = "OUTER"
"""Stands for the absolute path of the directory that must not be touched."""
LED_ASTRAY = ("a/kept", "b/kept", "a/b/kept", "a/inner/kept", "a", "b", "a/b")
NAMES = (*LED_ASTRAY, ".", "..", "../kept", "../../x", "a/../../kept", "a/..", f"{OUTER}/kept", f"{OUTER}/new")
WHITEOUTS = ("a/.wh.kept", "a/inner/.wh.kept", "a/.wh..wh..opq", ".wh..wh..opq", "../.wh.kept", ".wh...")
ELSEWHERE = ("..", "../..", OUTER, ".", "b")
KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE)


def some(names: Sequence[str], kinds: Sequence[bytes], targets: Sequence[str] = ("",)) -> st.SearchStrategy[Member]:
    modes = st.sampled_from([0, 0o755, 0o6777])
    return st.tuples(st.sampled_from(names), st.sampled_from(kinds), st.sampled_from(targets), modes)


MEMBERS = st.lists(
    st.one_of(
        some(("a", "b"), [tarfile.SYMTYPE], ELSEWHERE),
        some(("x", "a", "b/x"), [tarfile.LNKTYPE], ("a/kept", "b/kept", "../kept", f"{OUTER}/kept", "kept", "a")),
        some(NAMES, KINDS),
        some(WHITEOUTS, [tarfile.REGTYPE]),
    ),
    min_size=2,
    max_size=8,
)


def archive(outer: Path, members: list[Member]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, target, mode in members:
            info = tarfile.TarInfo(name.replace(OUTER, str(outer)))
            info.type, info.linkname, info.mode = kind, target.replace(OUTER, str(outer)), mode
            info.uid, info.gid, info.mtime, info.size = 12, 34, 56, 3 if kind == tarfile.REGTYPE else 0
            info.pax_headers = {"SCHILY.xattr.user.note": "x"}
            tar.addfile(info, io.BytesIO(b"bad"))
    return io.BytesIO(out.getvalue())


def state(top: Path, root: Path) -> dict[str, tuple[object, ...]]:
    """All that is in ``top``, apart from what is in ``root``."""
    found = {}
    for path in (top, *top.rglob("*")):
        if not path.is_relative_to(root):
            info = path.lstat()
            attributes = os.listxattr(path, follow_symlinks=False)
            kept = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, attributes)
            if path.is_symlink():
                found[str(path)] = (*kept, path.readlink())
            elif path.is_file():
                found[str(path)] = (*kept, info.st_nlink, path.read_bytes())
            else:
                found[str(path)] = kept
    return found


def make_outer(outer: Path) -> None:
    for name in ("inner", "lower/a", "root"):
        (outer / name).mkdir(parents=True)
    (outer / "lower/b").symlink_to(outer)
    (outer / "lower/a/b").symlink_to("../../..")
    for name in ("kept", "inner/kept", "lower/kept"):
        (outer / name).write_text("kept")


@pytest.mark.parametrize("how", ["layer of its own", "layer in place", "archive"])
@settings(max_examples=150)
@given(members=MEMBERS)
def test_nothing_outside_is_touched(how: str, members: list[Member]):
    with tempfile.TemporaryDirectory() as made:
        outer = Path(made, "1/2/3/4")
        make_outer(outer)
        source, root = archive(outer, members), outer / "root"
        before = state(Path(made), root)
        with contextlib.suppress(BuildError):
            if how == "archive":
                unpack_archive(source, root)
            else:
                lower = Tree([outer / "lower"])
                unpack_layer(source, root, overlay=how == "layer of its own", lower=lambda: lower)
        assert state(Path(made), root) == before
