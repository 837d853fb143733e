"""What a RUN changed: from the upper directory of its overlay, or by comparing two walks of its root.

Both give the same changes for the same command. A directory is listed where it has changed itself or something in it
has, so that whoever unpacks a layer into a directory of its own gives it the right owner and mode. Removals are always
single whiteouts, never opaque marks, which some readers do not know.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.layer.changes import Change, Whiteout
from builder.layer.entries import Seen, is_opaque, is_whiteout, read_changes, read_xattrs, with_parents
from builder.layer.links import join, sort_key
from builder.layer.rootfs import Tree

_COMPARE_BYTES = 1 << 20
_FINGERPRINT = struct.Struct("<IIIQQqqQ")
_NOTHING: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The status of everything in a tree: by directory, then by name."""

    directories: Mapping[str, Mapping[str, bytes]]

    def digest(self) -> bytes:
        """One value for all of it: the same for the same state, whatever the order it was read in."""
        hashed = hashlib.sha256()
        for directory in sorted(self.directories):
            names = self.directories[directory]
            for name in sorted(names):
                hashed.update(os.fsencode(f"{directory}/{name}\0") + names[name])
        return hashed.digest()

    def size_bytes(self) -> int:
        """What the files hold; one with several names counts several times."""
        return sum(_FINGERPRINT.unpack(status)[3] for names in self.directories.values() for status in names.values())


def overlay_changes(upper: Path, lower: Tree, ignore: frozenset[str] = frozenset()) -> list[Change]:
    """What the upper directory changes over ``lower``, parents first; nothing at or below a path in ``ignore``.

    A file that was only copied up, with the same metadata and content as below, is no change.
    """
    return read_changes(with_parents(_upper_items(os.fspath(upper), lower, ignore)))


def fingerprint(root: Path, ignore: frozenset[str] = frozenset()) -> Fingerprint:
    """The state of ``root`` now, to be compared by :func:`walk_changes`; reads no contents.

    A change of content shows in the change time, which no program can set back, or in the inode.
    """
    found: dict[str, dict[str, bytes]] = {}
    todo = [""]
    while todo:
        directory = todo.pop()
        names = found[directory] = {}
        for entry in _scan(os.fspath(root), directory, ignore):
            names[entry.name] = _packed(entry.stat(follow_symlinks=False))
            if entry.is_dir(follow_symlinks=False):
                todo.append(join(directory, entry.name))
    return Fingerprint(found)


def walk_changes(root: Path, before: Fingerprint, ignore: frozenset[str] = frozenset()) -> list[Change]:
    """What has changed below ``root`` since ``before``, parents first; nothing at or below a path in ``ignore``.

    Where a changed file has other names that are as they were (a directory with one of them was renamed), these count
    as changed too: hard links hold only inside a layer.
    """
    found = list(with_parents(_walk_items(os.fspath(root), before, ignore)))
    elsewhere = _named_elsewhere(found)
    if elsewhere:
        found = list(with_parents(_walk_items(os.fspath(root), before, ignore, elsewhere)))
    return read_changes(found)


def _named_elsewhere(found: Sequence[Seen | Whiteout]) -> frozenset[int]:
    """The inodes of files that have more names than were found."""
    files = [item.status for item in found if isinstance(item, Seen) and stat.S_ISREG(item.status.st_mode)]
    names = Counter(status.st_ino for status in files if status.st_nlink > 1)
    return frozenset(status.st_ino for status in files if 0 < names[status.st_ino] < status.st_nlink)


def _packed(status: os.stat_result) -> bytes:
    return _FINGERPRINT.pack(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_rdev,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


def _has_changed(then: bytes | None, status: os.stat_result, *, lenient: bool) -> bool:
    """Whether a status is another than the packed one.

    ``lenient`` is for directories that ignored paths were made in and removed from: that shows in their change time
    and size, and is no change.
    """
    if then is None or then == _packed(status):
        return then is None
    if not lenient or not stat.S_ISDIR(status.st_mode):
        return True
    mode, uid, gid, _, _, mtime_ns, _, inode = _FINGERPRINT.unpack(then)
    now = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino)
    return bool((mode, uid, gid, mtime_ns, inode) != now)


def _scan(root: str, directory: str, ignore: frozenset[str]) -> list[os.DirEntry[str]]:
    with os.scandir(f"{root}/{directory}") as entries:
        return [entry for entry in entries if join(directory, entry.name) not in ignore]


def _walk_items(
    root: str, before: Fingerprint, ignore: frozenset[str], inodes: frozenset[int] = frozenset()
) -> Iterator[Seen | Whiteout]:
    """All that is there or has gone; files with these ``inodes`` are taken for changed."""
    todo: list[Seen | Whiteout] = [*_walked(root, "", before, ignore)]
    while todo:
        item = todo.pop()
        if isinstance(item, Seen) and item.status.st_ino in inodes and stat.S_ISREG(item.status.st_mode):
            item = replace(item, changed=True)
        yield item
        if isinstance(item, Seen) and stat.S_ISDIR(item.status.st_mode):
            todo += _walked(root, item.path, before, ignore)


def _walked(root: str, directory: str, before: Fingerprint, ignore: frozenset[str]) -> list[Seen | Whiteout]:
    """One directory compared, last name first."""
    then = before.directories.get(directory, _NOTHING)
    around_ignored = {os.path.dirname(path) for path in ignore}
    found: list[Seen | Whiteout] = []
    names = set()
    for entry in _scan(root, directory, ignore):
        names.add(entry.name)
        status = entry.stat(follow_symlinks=False)
        path = join(directory, entry.name)
        changed = _has_changed(then.get(entry.name), status, lenient=path in around_ignored)
        found.append(Seen(path, status, entry.path, changed))
    gone = (join(directory, name) for name in then if name not in names)
    found += [Whiteout(path) for path in gone if path not in ignore]
    return sorted(found, key=lambda item: sort_key(item.path), reverse=True)


def _upper_items(upper: str, lower: Tree, ignore: frozenset[str]) -> Iterator[Seen | Whiteout]:
    todo = [(item, False) for item in _upper_names(upper, "", lower, ignore, False)]
    while todo:
        item, hidden = todo.pop()
        yield item
        if isinstance(item, Seen) and stat.S_ISDIR(item.status.st_mode):
            hidden = hidden or is_opaque(item.on_disk)
            todo += [(below, hidden) for below in _upper_names(upper, item.path, lower, ignore, hidden)]


def _upper_names(
    upper: str, directory: str, lower: Tree, ignore: frozenset[str], hidden: bool
) -> list[Seen | Whiteout]:
    """One upper directory, last name first; where it hides the lower one, with what is missing of that."""
    found: list[Seen | Whiteout] = []
    names = set()
    for entry in _scan(upper, directory, ignore):
        path = join(directory, entry.name)
        names.add(entry.name)
        status = entry.stat(follow_symlinks=False)
        if not is_whiteout(status):
            found.append(Seen(path, status, entry.path, _differs(path, status, entry.path, lower)))
        elif lower.lstat(path) is not None:
            found.append(Whiteout(path))
    if hidden and _is_directory(lower, directory):
        gone = (join(directory, name) for name in lower.listdir(directory) if name not in names)
        found += [Whiteout(path) for path in gone if path not in ignore]
    return sorted(found, key=lambda item: sort_key(item.path), reverse=True)


def _is_directory(lower: Tree, path: str) -> bool:
    status = lower.lstat(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _differs(path: str, status: os.stat_result, on_disk: str, lower: Tree) -> bool:
    """True unless the lower tree has the very same at ``path``, content included."""
    below = lower.lstat(path)
    if below is None or _lasting(status) != _lasting(below):
        return True
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        return True  # its names below may be others
    if read_xattrs(on_disk) != lower.xattrs(path):
        return True
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(on_disk) != lower.readlink(path)
    return stat.S_ISREG(status.st_mode) and not _same_content(on_disk, os.fspath(lower.real_path(path)))


def _lasting(status: os.stat_result) -> tuple[int, ...]:
    """What a copy of a file keeps; the number of names counts, as a copy-up breaks hard links."""
    directory = stat.S_ISDIR(status.st_mode)
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        0 if directory else status.st_size,
        0 if directory else status.st_nlink,
        status.st_rdev,
    )


def _same_content(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        while data := first.read(_COMPARE_BYTES):
            if data != second.read(_COMPARE_BYTES):
                return False
        return not second.read(1)
