"""A stage's file system as it is read: a stack of directories, top first, seen as one tree (overlayfs' rules)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path


class Tree:
    """A merged, read-only view of directories in overlayfs format, top first; one plain directory is the common case.

    Paths are relative, without a leading slash; the root is the empty path. A tree remembers which directories it has
    found: make a new one after a step has changed them.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        raise NotImplementedError

    def lstat(self, path: str) -> os.stat_result | None:
        """The status of what is at ``path``, or None; symlinks are not followed, at no component."""
        raise NotImplementedError

    def readlink(self, path: str) -> str:
        """The text of the symlink at ``path``. Raises OSError."""
        raise NotImplementedError

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, in the order of their bytes. Raises OSError when it is none."""
        raise NotImplementedError

    def real_path(self, path: str) -> Path:
        """The file on this machine that is seen at ``path``. Raises FileNotFoundError."""
        raise NotImplementedError

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes of ``path`` that a layer keeps."""
        raise NotImplementedError

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """``path`` with all symlinks followed inside the tree; what does not exist is kept. Raises OSError (ELOOP)."""
        raise NotImplementedError

    def walk(self, path: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """All that is below ``path`` (without itself): parents first, siblings in the order of their bytes."""
        raise NotImplementedError
