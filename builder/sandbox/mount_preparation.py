"""Readies on disk what a RUN has mounted: what the sandbox program is told, after what this machine allows.

On overlayfs a stack of directories is mounted as it is, and changes to it fall into a directory of their own. Without
it, what may be changed is copied first; and where nothing can be mounted (chroot), everything is put into the root
itself for the time of the step: what is only read as a copy, a cache by moving it there and back.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from builder.errors import BuildError
from builder.execution.copy import Source, collect
from builder.layer.layerdir import LayerDirectory
from builder.layer.rootfs import Tree
from builder.planning.sources import Selection
from builder.sandbox.isolation import Rung
from builder.sandbox.run_mounts import FileMount, LiveMount, RunMount, TmpfsMount, TreeMount


@dataclass(slots=True)
class MountPreparation:
    """The mounts of one step; ``directory`` is made when it is needed, and removed by `clear`."""

    rung: Rung
    directory: Path
    _made: int = field(default=0)

    def prepare(self, mounts: Sequence[RunMount]) -> list[dict[str, Any]]:
        """What builder/sandbox/mounts.py reads, those nearer to the root first. Raises BuildError and OSError."""
        live = [mount.path for mount in mounts if isinstance(mount, LiveMount)]
        if self.rung is Rung.CHROOT and len(set(live)) < len(live):
            raise BuildError("a cache cannot be mounted twice in one step here, where steps run by plain chroot")
        return [self._prepared(mount) for mount in sorted(mounts, key=lambda mount: mount.target.count("/"))]

    def clear(self) -> None:
        """Removes all that was made, and all that commands have changed in it."""
        if self._made:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _new(self) -> Path:
        self._made += 1
        path = self.directory / str(self._made)
        path.mkdir(parents=True, mode=0o755)
        return path

    def _prepared(self, mount: RunMount) -> dict[str, Any]:
        match mount:
            case FileMount():
                owner = {"mode": mount.mode, "uid": mount.uid, "gid": mount.gid}
                return {"kind": "file", "target": mount.target, "content": mount.content, **owner}
            case TmpfsMount():
                if self.rung is not Rung.CHROOT:
                    return {"kind": "tmpfs", "target": mount.target, "size": mount.size_bytes}
                empty = self._new()
                empty.chmod(0o1777)
                return self._shown(mount.target, empty, writable=True)
            case LiveMount():
                return self._shown(mount.target, mount.path, writable=mount.writable, returns=True)
            case TreeMount():
                return self._tree(mount)

    def _tree(self, mount: TreeMount) -> dict[str, Any]:
        if self.rung is Rung.OVERLAY and (mount.writable or len(mount.directories) != 1):
            changes = {"upper": str(self._new()), "work": str(self._new())} if mount.writable else None
            # overlayfs wants two directories where nothing can be written
            lower = [str(directory) for directory in (*mount.directories, self._new(), self._new())]
            return {
                "kind": "overlay",
                "target": mount.target,
                "lower": lower,
                "source": mount.source,
                "point": str(self._new()),
                "writable": mount.writable,
                **(changes or {"upper": "", "work": ""}),
            }
        if mount.writable or self.rung is Rung.CHROOT:
            (source,) = collect(Tree(mount.directories), Selection(patterns=(mount.source,)))
            return self._shown(mount.target, put_source(source, self._new()), writable=mount.writable)
        return self._shown(mount.target, mount.directories[0] / mount.source, writable=False)

    def _shown(self, target: str, path: Path, *, writable: bool, returns: bool = False) -> dict[str, Any]:
        if self.rung is Rung.CHROOT:
            return {"kind": "move", "target": target, "path": str(path), "returns": returns}
        return {"kind": "bind", "target": target, "path": str(path), "writable": writable}


def put_source(source: Source, directory: Path, name: str = "source") -> Path:
    """Writes what was collected to ``name`` in a directory, and returns its path. Raises BuildError and OSError."""
    path = directory / name
    if source.kind == "directory":
        path.mkdir(mode=0o755)
        into = LayerDirectory(path)
        entries = source.entries
    else:
        into = LayerDirectory(directory)
        (entry,) = source.entries
        entries = (replace(entry, path=name),)
    for entry in entries:
        if entry.is_file and entry.content is not None:
            with open(entry.content, "rb") as content:
                into.apply(entry, content)
        else:
            into.apply(entry)
    into.finish()
    return path
