"""An image as a flat list of files, read from an OCI layout by other means than the builder's own.

What a runtime would see: the layers applied in order, whiteouts included.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True)
class File:
    """What is at a path; ``content`` is a digest, ``same_as`` the first of the names of a file with several."""

    kind: str
    mode: str
    uid: int
    gid: int
    link: str = ""
    content: str = ""
    same_as: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FlatImage:
    """An image's configuration, its files by path, and what each layer lists."""

    config: dict[str, Any]
    files: dict[str, File]
    layers: list[list[str]]


def read_layout(layout: Path) -> FlatImage:
    """The only image of an OCI layout; every blob's digest is checked."""
    index = json.loads((layout / "index.json").read_bytes())
    (described,) = index["manifests"]
    manifest = json.loads(_blob(layout, described["digest"]))
    config = json.loads(_blob(layout, manifest["config"]["digest"]))
    files: dict[str, File] = {}
    layers = []
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        tar = _blob(layout, layer["digest"])
        tar = gzip.decompress(tar) if layer["mediaType"].endswith("gzip") else tar
        assert f"sha256:{hashlib.sha256(tar).hexdigest()}" == diff_id
        layers.append(_apply(tar, files))
    return FlatImage(config, _with_first_names(files), layers)


def _with_first_names(files: dict[str, File]) -> dict[str, File]:
    """Names of one file say the first of those that are left, whichever was the first in its layer."""
    groups: dict[str, list[str]] = {}
    for path, file in files.items():
        groups.setdefault(file.same_as, []).append(path)
    firsts = {group: min(paths) if len(paths) > 1 else "" for group, paths in groups.items()}
    return {path: replace(file, same_as=file.same_as and firsts[file.same_as]) for path, file in files.items()}


def _blob(layout: Path, digest: str) -> bytes:
    data = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    return data


def _apply(tar: bytes, files: dict[str, File]) -> list[str]:
    below = dict(files)
    names = []
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            path = posixpath.normpath(member.name).lstrip("/")
            path = "" if path == "." else path
            names.append(path)
            parent, name = posixpath.split(path)
            if name == ".wh..wh..opq":
                _remove(files, below, parent, keep_parent=True)
            elif name.startswith(".wh."):
                _remove(files, below, posixpath.join(parent, name.removeprefix(".wh.")), keep_parent=False)
            else:
                _put(archive, member, path, files)
    return names


def _remove(files: dict[str, File], below: dict[str, File], path: str, *, keep_parent: bool) -> None:
    """Removes what lower layers have there; entries of the same layer stay."""
    for name in [n for n in below if n.startswith(f"{path}/") or (n == path and not keep_parent)]:
        if files.get(name) is below[name]:
            del files[name]


def _put(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, files: dict[str, File]) -> None:
    if member.islnk():
        target = posixpath.normpath(member.linkname).lstrip("/")
        original = files[target]
        first = original.same_as or target
        files[target] = _named(original, first)
        files[path] = _named(original, first)
        return
    old = files.get(path)
    if old is not None and old.kind == "directory" and not member.isdir():
        for name in [n for n in files if n.startswith(f"{path}/")]:
            del files[name]
    content = ""
    if member.isreg():
        data = archive.extractfile(member)
        content = hashlib.sha256(data.read() if data else b"").hexdigest()
    xattrs = {
        n.removeprefix("SCHILY.xattr."): v for n, v in member.pax_headers.items() if n.startswith("SCHILY.xattr.")
    }
    files[path] = File(
        kind=KINDS[member.type],
        mode=f"{member.mode & 0o7777:04o}",
        uid=member.uid,
        gid=member.gid,
        link=member.linkname if member.issym() else "",
        content=content,
        xattrs=tuple(sorted(xattrs.items())),
    )


def _named(file: File, first: str) -> File:
    return File(file.kind, file.mode, file.uid, file.gid, file.link, file.content, first, file.xattrs)


def differences(ours: FlatImage, theirs: FlatImage, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Each path at which two images differ, with what both have there."""
    paths = sorted({*ours.files, *theirs.files} - ignore)
    return [
        f"{path}: ours {ours.files.get(path)}, theirs {theirs.files.get(path)}"
        for path in paths
        if ours.files.get(path) != theirs.files.get(path)
    ]
