"""What a RUN has mounted, as values: numbers and paths of this machine, with nothing left to look up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileMount:
    """A file with this content, on no disk where mounts can be had; a secret, or a script."""

    target: str
    content: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0

    def __repr__(self) -> str:
        return f"FileMount({self.target!r}, {len(self.content)} bytes)"


@dataclass(frozen=True, slots=True)
class TreeMount:
    """What is at ``source`` in a stack of directories, top first. What a command changes there is thrown away."""

    target: str
    directories: tuple[Path, ...]
    source: str
    is_directory: bool
    writable: bool = False


@dataclass(frozen=True, slots=True)
class LiveMount:
    """A file or directory as it is: what a command changes there stays."""

    target: str
    path: Path
    writable: bool = True


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """An empty directory in memory; no limit for a size of 0."""

    target: str
    size_bytes: int = 0


RunMount = FileMount | TreeMount | LiveMount | TmpfsMount
