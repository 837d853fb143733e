"""Reading one file's status into an Entry, and the two orderings that every list of changes keeps."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from builder.layer.changes import Change, Entry, Whiteout

OPAQUE_XATTR = "user.overlay.opaque"
OWNER_XATTR = "user.crossdock.owner"
"""``uid:gid``: who a file belongs to in its image, where the builder has no id but 0."""
_OVERLAY_PREFIX = "user.overlay."
_NO_XATTRS = {errno.ENOTSUP, errno.ENODATA}


@dataclass(frozen=True, slots=True)
class Seen:
    """A file on disk at its place in the tree; ``changed`` is False for a directory that only leads to changes."""

    path: str
    status: os.stat_result
    on_disk: str
    changed: bool = True


def is_whiteout(status: os.stat_result) -> bool:
    """True for overlayfs' mark of a deleted name: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(on_disk: str) -> bool:
    """True for a directory that overlayfs does not merge with those below."""
    try:
        return os.getxattr(on_disk, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return False
        raise


def keeps_xattr(name: str) -> bool:
    """True for an attribute that belongs to the image: capabilities and users' own.

    Labels of the machine's security modules, access lists, overlayfs' notes and our own do not.
    """
    if name == OWNER_XATTR or name.startswith(_OVERLAY_PREFIX):
        return False
    return name == "security.capability" or name.startswith("user.")


def read_xattrs(on_disk: str) -> dict[str, bytes]:
    """The extended attributes of a file that a layer keeps, by name."""
    try:
        names = os.listxattr(on_disk, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    return {name: os.getxattr(on_disk, name, follow_symlinks=False) for name in sorted(names) if keeps_xattr(name)}


@functools.cache
def has_one_id() -> bool:
    """True in a user namespace with but one user: owners are then kept as notes, since every file is of that user.

    Elsewhere notes count for nothing, or a step that is not root could make its files root's.
    """
    with open("/proc/self/uid_map") as file:
        return [line.split()[2] for line in file] == ["1"]


def _owner(status: os.stat_result, on_disk: str) -> tuple[int, int]:
    if has_one_id():
        try:
            uid, _, gid = os.getxattr(on_disk, OWNER_XATTR, follow_symlinks=False).partition(b":")
            return int(uid), int(gid)
        except (OSError, ValueError):  # none, or one that a step has scribbled over
            pass
    return status.st_uid, status.st_gid


def read_entry(path: str, status: os.stat_result, on_disk: str, owner: tuple[int, int] | None = None) -> Entry:
    """The file ``on_disk`` with this status as an entry at ``path``; ``owner`` None is its own. Raises OSError."""
    mode = status.st_mode
    regular = stat.S_ISREG(mode)
    device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    uid, gid = owner if owner is not None else _owner(status, on_disk)
    return Entry(
        path=path,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=status.st_mtime_ns,
        size_bytes=status.st_size if regular else 0,
        link=os.readlink(on_disk) if stat.S_ISLNK(mode) else "",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else (0, 0),
        xattrs=read_xattrs(on_disk),
        content=on_disk if regular else None,
    )


def with_parents(found: Iterable[Seen | Whiteout]) -> Iterator[Seen | Whiteout]:
    """``found`` (parents first) without the unchanged directories below which nothing has changed."""
    withheld: list[Seen] = []
    for item in found:
        while withheld and not item.path.startswith(withheld[-1].path + "/"):
            withheld.pop()
        if isinstance(item, Seen) and not item.changed:
            withheld.append(item)
            continue
        yield from withheld
        withheld.clear()
        yield item


def read_changes(found: Iterable[Seen | Whiteout], owner: tuple[int, int] | None = None) -> list[Change]:
    """What was found as changes: files with several names become one file and hard links to it; no sockets.

    All belong to ``owner``; None keeps each file's own.
    """
    first_names: dict[tuple[int, int], str] = {}
    changes: list[Change] = []
    for item in found:
        if isinstance(item, Whiteout):
            changes.append(item)
        elif not stat.S_ISSOCK(item.status.st_mode):
            entry = read_entry(item.path, item.status, item.on_disk, owner)
            changes.append(_linked(entry, item.status, first_names))
    return changes


def _linked(entry: Entry, status: os.stat_result, first_names: dict[tuple[int, int], str]) -> Entry:
    if status.st_nlink < 2 or entry.is_directory:
        return entry
    first = first_names.setdefault((status.st_dev, status.st_ino), entry.path)
    if first == entry.path or not entry.is_file:
        return entry
    return replace(entry, hardlink=True, link=first)
