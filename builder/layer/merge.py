"""Several layers as one that changes the same: what is left of them when all are put on each other (pure).

What they do to the layers below is known by names only: a file of the result takes its content from one member of one
of the layers.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from builder.errors import BuildError
from builder.layer.changes import Change, Entry, Opaque, Whiteout
from builder.layer.links import follow, join, sort_key

Member = tuple[int, int]
"""The number of a layer, lowest first, and that of a member in its tar."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A name, and the member that says what it is; names of one file have the same."""

    entry: Entry
    layer: int
    member: Member


@dataclass(frozen=True, slots=True)
class Merge:
    """What one layer is made of.

    ``changes`` are whiteouts, directories, links and the like, parents first; ``files`` the regular files by the member
    that has the content: its first name, and hard links to that.
    """

    changes: Sequence[Change]
    files: Mapping[Member, Sequence[Entry]]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not self.changes and not self.files


class MergedLayers:
    """What some layers together show and hide; changes are added lowest layer first."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        self._hidden: set[str] = set()  # what lower layers have there, and below, is not seen
        self._opaque: set[str] = set()  # only what they have below is not
        self._parents: dict[str, str] = {}

    def add(self, change: Change, at: Member) -> None:
        """Puts one more change on those before. Raises BuildError for a hard link to nothing."""
        layer, _ = at
        match change:
            case Entry():
                self._put(self._locate(change.path), change, at)
            case Whiteout():
                path = self._locate(change.path)
                self._remove(path, layer)
                self._hidden.add(path)
            case Opaque():
                directory = self._resolve(change.path)
                self._remove_below(directory, layer)
                self._opaque.add(directory)

    def _locate(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        return join(self._resolve(parent), name)

    def _resolve(self, directory: str) -> str:
        if directory not in self._parents:
            self._parents[directory] = follow(directory, self._link_at)
        return self._parents[directory]

    def _link_at(self, path: str) -> str | None:
        node = self._nodes.get(path)
        return node.entry.link if node is not None and stat.S_ISLNK(node.entry.mode) else None

    def _put(self, path: str, entry: Entry, at: Member) -> None:
        layer, member = at[0], at
        if entry.hardlink:
            target = self._nodes.get(self._locate(entry.link))
            if target is None:
                raise BuildError(f"{entry.path!r} is a hard link to {entry.link!r}, which is not in its layer")
            entry, member = target.entry, target.member
        if not entry.is_directory:
            self._remove(path, layer + 1)
            self._hidden.add(path)
        if stat.S_ISLNK(entry.mode) or self._link_at(path) is not None:
            self._parents.clear()
        self._nodes[path] = _Node(entry, layer, member)
        self._name(path)

    def _name(self, path: str) -> None:
        """Notes the name in its directory, and that in its own, which layers need not list."""
        while path:
            parent, _, name = path.rpartition("/")
            if name in self._names[parent]:
                return
            self._names[parent].add(name)
            path = parent

    def _remove(self, path: str, layer: int) -> None:
        """Removes what layers below ``layer`` have at ``path`` and below it."""
        self._remove_below(path, layer)
        node = self._nodes.get(path)
        if node is not None and node.layer < layer:
            if stat.S_ISLNK(node.entry.mode):
                self._parents.clear()
            del self._nodes[path]
        parent, _, name = path.rpartition("/")
        if path and not self._is_there(path):
            self._names[parent].discard(name)

    def _remove_below(self, path: str, layer: int) -> None:
        for name in tuple(self._names.get(path, ())):
            self._remove(join(path, name), layer)

    def _is_there(self, path: str) -> bool:
        return path in self._nodes or self._is_directory(path)

    def _is_directory(self, path: str) -> bool:
        node = self._nodes.get(path)
        return node.entry.is_directory if node is not None else bool(self._names.get(path))

    def _is_file(self, path: str) -> bool:
        return path in self._nodes and not self._is_directory(path)

    # The result

    def asks_for_lower(self) -> bool:
        """Whether the result depends on what the layers below have: a name was removed, or is a directory again."""
        return bool(self._opaque) or any(path not in self._nodes or self._is_directory(path) for path in self._hidden)

    def over(self, lower: MergedLayers) -> Merge:
        """What the one layer holds, on top of ``lower``."""
        changes: list[Change] = [
            replace(node.entry, path=path) for path, node in self._nodes.items() if not node.entry.is_file
        ]
        changes += map(Whiteout, self._whiteouts(lower))
        names: defaultdict[Member, list[str]] = defaultdict(list)
        for path in sorted((path for path, node in self._nodes.items() if node.entry.is_file), key=sort_key):
            names[self._nodes[path].member].append(path)
        files = {member: linked(self._nodes[paths[0]].entry, paths) for member, paths in names.items()}
        return Merge(sorted(changes, key=lambda change: sort_key(change.path)), files)

    def _whiteouts(self, lower: MergedLayers) -> set[str]:
        found: set[str] = set()
        todo = list(self._hidden)
        todo += [join(path, name) for path in self._opaque for name in lower._names.get(path, ())]
        while todo:
            path = todo.pop()
            if not lower._is_there(path):
                continue
            if not self._is_there(path):
                found.add(path)
            elif self._is_directory(path) and lower._is_directory(path):
                todo += [join(path, name) for name in lower._names[path]]
        return {path for path in found if not any(above in found or self._is_file(above) for above in _above(path))}


def linked(file: Entry, paths: Sequence[str]) -> list[Entry]:
    """The file under its first name, and under the others as hard links to that."""
    first = replace(file, path=paths[0])
    return [first, *(replace(first, path=path, hardlink=True, link=first.path) for path in paths[1:])]


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
