"""A stage's file system as it is read: a stack of directories, top first, seen as one tree (overlayfs' rules)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from builder.layer.entries import Seen, is_opaque, is_whiteout, read_xattrs
from builder.layer.links import follow, join, sort_key


class Tree:
    """A merged, read-only view of directories in overlayfs format, top first; one plain directory is the common case.

    Paths are relative, without a leading slash; the root is the empty path. A tree remembers which directories it has
    found: make a new one after a step has changed them.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._stacks: dict[str, tuple[str, ...]] = {"": tuple(os.fspath(directory) for directory in directories)}

    def lstat(self, path: str) -> os.stat_result | None:
        """The status of what is at ``path``, or None; symlinks are not followed, at no component."""
        found = self._top(path)
        return found[1] if found else None

    def readlink(self, path: str) -> str:
        """The text of the symlink at ``path``. Raises OSError."""
        return os.readlink(self._file(path))

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, in the order of their bytes. Raises OSError when it is none."""
        return [entry.name for entry in self._scan(path)]

    def real_path(self, path: str) -> Path:
        """The file on this machine that is seen at ``path``. Raises FileNotFoundError."""
        return Path(self._file(path))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes of ``path`` that a layer keeps. Raises FileNotFoundError."""
        return read_xattrs(self._file(path))

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """``path`` with all symlinks followed inside the tree; what does not exist is kept. Raises OSError (ELOOP)."""
        return follow(path, self._link_at, follow_last=follow_last)

    def walk(self, path: str = "", descend: Callable[[str], bool] | None = None) -> Iterator[Seen]:
        """All that is below ``path`` (without itself): parents first, siblings in the order of their bytes.

        Where ``descend`` answers False for a directory, nothing below it is read.
        """
        todo = [(path, entry) for entry in reversed(self._scan(path))]
        while todo:
            parent, entry = todo.pop()
            found = join(parent, entry.name)
            yield Seen(found, entry.stat(follow_symlinks=False), entry.path)
            if entry.is_dir(follow_symlinks=False) and (descend is None or descend(found)):
                todo += [(found, below) for below in reversed(self._scan(found))]

    def _link_at(self, path: str) -> str | None:
        found = self._top(path)
        return os.readlink(found[0]) if found and stat.S_ISLNK(found[1].st_mode) else None

    def _file(self, path: str) -> str:
        found = self._top(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file in the tree", path)
        return found[0]

    def _top(self, path: str) -> tuple[str, os.stat_result] | None:
        """The topmost instance of ``path``, unless a whiteout hides it."""
        if not path:
            root = self._stacks[""]
            return (root[0], os.lstat(root[0])) if root else None
        parent, _, name = path.rpartition("/")
        for directory in self._stack(parent):
            on_disk = f"{directory}/{name}"
            status = _status(on_disk)
            if status is not None:
                return None if is_whiteout(status) else (on_disk, status)
        return None

    def _stack(self, path: str) -> tuple[str, ...]:
        """The directories that are merged at ``path``, top first; none when it is not a directory."""
        known = self._stacks.get(path)
        if known is None:
            parent, _, name = path.rpartition("/")
            known = self._stacks[path] = _merged(self._stack(parent), name)
        return known

    def _scan(self, path: str) -> list[os.DirEntry[str]]:
        stack = self._stack(path)
        if not stack and path:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory in the tree", path)
        seen: dict[str, os.DirEntry[str] | None] = {}
        for directory in stack:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name not in seen:
                        seen[entry.name] = None if _hides(entry) else entry
        return sorted((entry for entry in seen.values() if entry), key=lambda entry: sort_key(entry.name))


def _merged(parents: tuple[str, ...], name: str) -> tuple[str, ...]:
    found: list[str] = []
    for parent in parents:
        on_disk = f"{parent}/{name}"
        status = _status(on_disk)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            break
        found.append(on_disk)
        if parent != parents[-1] and is_opaque(on_disk):
            break
    return tuple(found)


def _status(on_disk: str) -> os.stat_result | None:
    try:
        return os.lstat(on_disk)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _hides(entry: os.DirEntry[str]) -> bool:
    """True for a whiteout; the kinds that a directory listing itself tells cost no status call."""
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink():
        return False
    return is_whiteout(entry.stat(follow_symlinks=False))
