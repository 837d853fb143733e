"""Which members a tar that is a build context may have (pure).

A layer's names are resolved inside its root, wherever they point; a context is written by people and their tools, and
one that names something outside itself is broken or an attack. Both deserve to be told.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from builder.errors import BuildError
from builder.layer.changes import Entry
from builder.layer.links import clean


def context_path(name: str) -> str:
    """The path that a member's name, or a hard link's target, stands for. Raises BuildError for one outside."""
    if not name:
        raise BuildError("a member of the archive has no name")
    if "\0" in name:
        raise BuildError(f"{name!r} in the archive has a zero byte in its name")
    if name.startswith("/"):
        raise BuildError(f"{name!r} in the archive is an absolute path: it would leave the context")
    if ".." in name.split("/"):
        raise BuildError(f"{name!r} in the archive has .. in its path: it could leave the context")
    return clean(name)


@dataclass(slots=True)
class ContextMembers:
    """Judges one member after the other; remembers which are symlinks, as none may lead others away."""

    _links: set[str] = field(default_factory=set)

    def change(self, entry: Entry) -> Entry:
        """The member, if it may be in a context. Raises BuildError."""
        if not entry.path and not entry.is_directory:
            raise BuildError("the archive would replace the root by a file")
        if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
            raise BuildError(f"{entry.path!r} in the archive is a device: a context has none")
        self._check_above(entry.path, entry.path)
        if entry.hardlink:
            self._check_above(entry.path, entry.link)
            if entry.link in self._links:
                self._links.add(entry.path)  # another name of the same link
                return entry
        if stat.S_ISLNK(entry.mode):
            self._links.add(entry.path)
        else:
            self._links.discard(entry.path)
        return entry

    def _check_above(self, name: str, path: str) -> None:
        """Raises BuildError where something above ``path`` is a symlink."""
        at = path.find("/")
        while self._links and at >= 0:
            if path[:at] in self._links:
                raise BuildError(f"{name!r} in the archive goes through the symlink {path[:at]!r}")
            at = path.find("/", at + 1)
