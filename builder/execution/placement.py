"""COPY and ADD, second half: what putting sources into a stage changes (BuildKit's rules).

- Directories made on the way are 0755 and belong to ``chown`` or root; those that exist keep owner and mode.
- A directory named by a source gives only what it holds; directories inside it do bring their owner and mode.
- A file goes into a destination that is a directory; symlinks in the destination's path are followed in the stage.
- A file never replaces a directory nor a directory anything else, but an archive's entries replace what is in their
  way, be it a link to a directory where they have a directory.

Directories above what changes are listed too, as they are, so that a reader that unpacks the layer into a directory of
its own gives them the right owner and mode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from builder.errors import ContextError
from builder.execution.chmod import ModeChange
from builder.execution.copy_rules import destination_path, names_directory
from builder.layer.changes import Change, Entry
from builder.layer.entries import read_entry
from builder.layer.links import follow, join, sort_key
from builder.layer.rootfs import Tree

Kind = Literal["file", "directory", "archive", "unpacked"]


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to copy, with paths relative to where it will land.

    A ``file`` is one entry with an empty path; a ``directory`` what it holds, without itself; an ``archive`` a file
    that ADD unpacks; ``unpacked`` what an archive held. ``name`` is the last part of the path as it was found.
    """

    name: str
    kind: Kind
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where sources go and as whom; ``path`` as written, with its trailing slash.

    ``made_at_ns`` is the modification time of directories that have to be made on the way.
    """

    path: str
    workdir: str = "/"
    chown: tuple[int, int] | None = None
    chmod: ModeChange | None = None
    made_at_ns: int = 0


def place(sources: Sequence[Source], destination: Destination, tree: Tree) -> list[Change]:
    """What copying ``sources`` changes in ``tree``, parents first. Raises ContextError."""
    stage = _Stage(tree, destination)
    try:
        stage.check_several(sources)
        for source in sources:
            match source.kind:
                case "file":
                    stage.put_file(source)
                case "directory":
                    stage.put_directory(source)
                case "unpacked":
                    stage.put_unpacked(source)
                case "archive":
                    raise ValueError(f"the archive {source.name!r} is to be unpacked first")
        return stage.changes()
    except OSError as error:
        raise ContextError(f"cannot copy to {destination.path!r}: {error.filename!r}: {error.strerror}") from error


def make_directory(path: str, tree: Tree, owner: tuple[int, int], made_at_ns: int) -> list[Change]:
    """What making a directory, and those above it that are missing, changes: nothing when it is there (WORKDIR)."""
    return place([Source("", "directory", ())], Destination(path, chown=owner, made_at_ns=made_at_ns), tree)


class _Stage:
    """A stage's tree together with what has been placed in it so far."""

    def __init__(self, tree: Tree, destination: Destination) -> None:
        self._tree = tree
        self._destination = destination
        self._placed: dict[str, Entry] = {}

    def check_several(self, sources: Sequence[Source]) -> None:
        """Raises ContextError when several files would land on one name."""
        files = [source for source in sources if source.kind == "file"]
        if len(sources) < 2 or not files or names_directory(self._destination.path):
            return
        if not self._is_directory(self._target()):
            raise ContextError(
                f"several sources need a directory to go to: end the destination {self._destination.path!r} in a slash"
            )

    def put_file(self, source: Source) -> None:
        target = self._target()
        if names_directory(self._destination.path):
            self._make_directories(target)
        if self._is_directory(target):
            target = join(target, source.name)
        self._put_inside(target, self._owned(source.entries[0]))

    def put_directory(self, source: Source) -> None:
        target = self._target()
        self._make_directories(target)
        for entry in source.entries:
            moved = self._owned(entry)
            if entry.hardlink:
                moved = replace(moved, link=join(target, entry.link))
            self._put_inside(join(target, entry.path), moved)

    def put_unpacked(self, source: Source) -> None:
        target = self._target()
        self._make_directories(target)
        parents: dict[str, str] = {}  # symlinks of the stage on the way; the archive's own directories are none
        for entry in source.entries:
            parent, _, name = entry.path.rpartition("/")
            if parent not in parents:
                parents[parent] = self._resolve(join(target, parent))
                self._make_directories(parents[parent], (0, 0))
            path = join(parents[parent], name)
            link = entry.link
            if entry.hardlink:
                link_parent, _, link_name = entry.link.rpartition("/")
                link = join(parents.get(link_parent, self._resolve(join(target, link_parent))), link_name)
            self._replace(path, replace(self._chowned(entry), path=path, link=link))

    def changes(self) -> list[Change]:
        """All that was placed, with the directories above, parents first."""
        placed = {path: self._without_stale_link(entry) for path, entry in self._placed.items()}
        for path in list(placed):
            for above in _above(path):
                if above not in placed:
                    placed[above] = self._existing(above)
        return [placed[path] for path in sorted(placed, key=sort_key)]

    def _target(self) -> str:
        return self._resolve(destination_path(self._destination.path, self._destination.workdir))

    def _resolve(self, path: str, *, follow_last: bool = True) -> str:
        return follow(path, self._link_at, follow_last=follow_last)

    def _link_at(self, path: str) -> str | None:
        placed = self._placed.get(path)
        if placed is not None:
            return placed.link if stat.S_ISLNK(placed.mode) else None
        status = self._tree.lstat(path)
        return self._tree.readlink(path) if status is not None and stat.S_ISLNK(status.st_mode) else None

    def _mode(self, path: str) -> int | None:
        if not path:
            return stat.S_IFDIR
        placed = self._placed.get(path)
        if placed is not None:
            return placed.mode
        status = self._tree.lstat(path)
        return status.st_mode if status is not None else None

    def _is_directory(self, path: str) -> bool:
        mode = self._mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def _make_directories(self, path: str, owner: tuple[int, int] | None = None) -> None:
        """Makes ``path`` and what is missing above it, as ``owner`` or else as the destination says."""
        uid, gid = owner or self._destination.chown or (0, 0)
        for directory in [*_above(path), path] if path else []:
            mode = self._mode(directory)
            if mode is None:
                made_at_ns = self._destination.made_at_ns
                self._placed[directory] = Entry(directory, stat.S_IFDIR | 0o755, uid, gid, made_at_ns)
            elif not stat.S_ISDIR(mode):
                raise ContextError(
                    f"cannot copy to {self._destination.path!r}: /{directory} is there and is not a directory"
                )

    def _put_inside(self, path: str, entry: Entry) -> None:
        """Places an entry where nothing of another kind may be in its way."""
        self._make_directories(path.rpartition("/")[0])
        mode = self._mode(path)
        if mode is not None and entry.is_directory and not stat.S_ISDIR(mode):
            raise ContextError(f"cannot copy the directory {entry.path!r} to /{path}, which is not a directory")
        if mode is not None and stat.S_ISDIR(mode) and not entry.is_directory:
            raise ContextError(f"cannot copy a file to /{path}, which is a directory")
        self._placed[path] = replace(entry, path=path)

    def _replace(self, path: str, entry: Entry) -> None:
        """Places an archive's entry, whatever is there."""
        if not path:
            return  # the root keeps its owner and mode
        if not entry.is_directory and self._is_directory(path):
            inside = path + "/"
            self._placed = {kept: placed for kept, placed in self._placed.items() if not kept.startswith(inside)}
        self._placed[path] = entry

    def _chowned(self, entry: Entry) -> Entry:
        if self._destination.chown is None:
            return entry
        uid, gid = self._destination.chown
        return replace(entry, uid=uid, gid=gid)

    def _owned(self, entry: Entry) -> Entry:
        """The entry with the owner and mode that the instruction asks for."""
        owned = self._chowned(entry)
        if self._destination.chmod is None or stat.S_ISLNK(entry.mode):
            return owned
        return replace(owned, mode=self._destination.chmod.apply(entry.mode))

    def _without_stale_link(self, entry: Entry) -> Entry:
        """A hard link whose first name a later source has taken is a file of its own."""
        first = self._placed.get(entry.link) if entry.hardlink else None
        if not entry.hardlink or (first is not None and first.is_file and _same_file(first, entry)):
            return entry
        return replace(entry, hardlink=False, link="")

    def _existing(self, path: str) -> Entry:
        status = self._tree.lstat(path)
        if status is None:
            raise ValueError(f"the directory {path!r} was neither there nor made")
        return read_entry(path, status, os.fspath(self._tree.real_path(path)))


def _same_file(one: Entry, other: Entry) -> bool:
    return one.content is not None and other.content is not None and os.path.samefile(one.content, other.content)


def _above(path: str) -> Iterator[str]:
    """The directories above ``path``, outermost first, without the root."""
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)
