"""Trees of files for tests: making them, mounting them, and telling two apart."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from builder.layer.changes import Change
from builder.layer.rootfs import Tree
from builder.layer.tarlayer import write_layer
from builder.layer.unpack import unpack_layer

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def make(root: Path, files: dict[str, str | bytes | None]) -> Path:
    """Makes files below ``root``: text or bytes, ``None`` for a directory, ``-> target`` for a symlink."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        at = root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            at.mkdir(exist_ok=True)
        elif isinstance(content, str) and content.startswith("-> "):
            at.symlink_to(content.removeprefix("-> "))
        else:
            at.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def listing(tree: Tree | Path) -> dict[str, tuple[object, ...]]:
    """Everything that an image keeps of a tree, by path: type, mode, owner, time, content, links, attributes."""
    if isinstance(tree, Path):
        tree = Tree([tree])
    names: dict[tuple[int, int], list[str]] = {}
    found: dict[str, tuple[object, ...]] = {}
    for seen in tree.walk():
        path, status, on_disk = seen.path, seen.status, Path(seen.on_disk)
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(on_disk)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(on_disk.read_bytes()).hexdigest()
            names.setdefault((status.st_dev, status.st_ino), []).append(path)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            content = status.st_rdev
        seconds = status.st_mtime_ns // 10**9
        found[path] = (status.st_mode, status.st_uid, status.st_gid, seconds, content, tree.xattrs(path))
    links = {name: min(group) for group in names.values() for name in group}
    return {path: (*what, links.get(path)) for path, what in found.items()}


@contextmanager
def overlay(lower: Sequence[Path], scratch: Path) -> Iterator[tuple[Path, Path]]:
    """A real overlay mount as a RUN gets it: the mount point and its upper directory."""
    upper, work, merged = scratch / "upper", scratch / "work", scratch / "merged"
    for directory in (upper, work, merged):
        directory.mkdir(parents=True)
    # volatile: unmounting need not wait for the disk
    options = f"lowerdir={':'.join(map(str, lower))},upperdir={upper},workdir={work},userxattr,volatile"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged, upper
    finally:
        subprocess.run(["umount", merged], check=True)


def layer_of(changes: Sequence[Change]) -> bytes:
    """The changes as a gzip layer."""
    out = io.BytesIO()
    write_layer(changes, out)
    return out.getvalue()


def unpacked(layer: bytes, directory: Path, *, lower: Sequence[Path] = ()) -> Path:
    """The layer in an overlay directory of its own."""
    directory.mkdir(parents=True)
    unpack_layer(io.BytesIO(layer), directory, overlay=True, lower=lambda: Tree(lower))
    return directory
