"""Random commands on small trees, for properties: what a layer brings back must be what the commands left."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

from hypothesis import strategies as st

from builder.layer.rootfs import Tree
from builder.layer.unpack import unpack_layer
from tests.builder.trees import listing, overlay, unpacked

PATHS = ["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "b/a/a"]
START: dict[str, str | bytes | None] = {"a/a/a": "1", "a/a/b": "2", "a/b": "3", "b/a": None}
path = st.sampled_from(PATHS)
operation = st.one_of(
    st.tuples(st.just("write"), path, st.sampled_from(["", "x", "yy"])),
    st.tuples(st.just("mkdir"), path, st.none()),
    st.tuples(st.just("remove"), path, st.none()),
    st.tuples(st.just("renew"), path, st.none()),
    st.tuples(st.just("symlink"), path, path),
    st.tuples(st.just("link"), path, path),
    st.tuples(st.just("rename"), path, path),
    st.tuples(st.just("chmod"), path, st.sampled_from([0o700, 0o755, 0o4711])),
    st.tuples(st.just("chown"), path, st.integers(0, 3)),
    st.tuples(st.just("fifo"), path, st.none()),
)


def perform(root: Path, operations: list[tuple[str, str, object]]) -> None:
    """Does what can be done of the operations, and no more than the kernel allows; links are never followed out."""
    for kind, at, what in operations:
        on_disk = root / at
        try:
            if Tree([root]).resolve(at, follow_last=False) != at:
                continue
            _perform(kind, root, on_disk, what)
        except OSError:
            continue


def _perform(kind: str, root: Path, on_disk: Path, what: object) -> None:
    match kind:
        case "write":
            if on_disk.is_file() or not os.path.lexists(on_disk):  # a FIFO would wait for a reader
                on_disk.write_bytes(str(what).encode())
        case "mkdir":
            on_disk.mkdir()
        case "remove":
            shutil.rmtree(on_disk) if on_disk.is_dir() and not on_disk.is_symlink() else on_disk.unlink()
        case "renew" if on_disk.is_dir() and not on_disk.is_symlink():
            shutil.rmtree(on_disk)
            on_disk.mkdir()
        case "symlink":
            on_disk.symlink_to(str(what))
        case "link":
            os.link(root / str(what), on_disk, follow_symlinks=False)
        case "rename":
            os.rename(on_disk, root / str(what))
        case "chmod" if not on_disk.is_symlink():
            on_disk.chmod(int(str(what)))
        case "chown":
            os.lchown(on_disk, int(str(what)), 0)
        case "fifo":
            os.mkfifo(on_disk)


def copy(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def check_layer(base: Path, layer: bytes, expected: object, tmp_path: Path) -> None:
    """The layer on the base gives what is expected: as a directory of its own, as the kernel sees it, and in place."""
    directories = [unpacked(layer, tmp_path / "layer", lower=[base]), base]
    assert listing(Tree(directories)) == expected
    with overlay(directories, tmp_path / "again") as (merged, _):
        assert listing(merged) == expected
    in_place = copy(base, tmp_path / "in-place")
    unpack_layer(io.BytesIO(layer), in_place, overlay=False)
    assert listing(in_place) == expected
