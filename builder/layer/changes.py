"""What a layer does to a tree of files: entries that appear or change, and what goes.

Paths are relative to the root, without a leading or trailing slash, with names that are not UTF-8 as surrogate escapes.
The root itself is the empty path.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A file, directory, link or node as it shall be after the layer.

    ``mode`` is a whole ``st_mode``, type and permissions. ``link`` is a symlink's target text, or, where ``hardlink``
    is set, the path of an entry of the same layer that this one is another name of. ``content`` is the file on this
    machine that holds a regular file's bytes (None when there are none).
    """

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    link: str = ""
    hardlink: bool = False
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    content: str | None = None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """True for a regular file that is not just another name of one."""
        return stat.S_ISREG(self.mode) and not self.hardlink


class Whiteout(msgspec.Struct, frozen=True):
    """The path of a lower layer, and all that is below it, is gone (image-spec, "Whiteouts")."""

    path: str


class Opaque(msgspec.Struct, frozen=True):
    """All that lower layers have below this directory is gone (image-spec, "Opaque Whiteout")."""

    path: str


Change = Entry | Whiteout | Opaque
