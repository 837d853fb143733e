"""Takes away what had to be made in a step's root for the time of the step, and puts back what was moved aside.

The command had the root to itself meanwhile, so nothing here follows a symlink: where the way to a stub has become
something else, the stub went with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stub:
    """A path (as in builder.layer.changes) that was made for a step.

    ``aside`` names what was in its place, now in the scratch directory ("" for nothing). The two times are the
    parent's mtime before and after. ``whole``: it goes with all that is in it, or back to the path ``returns_to`` of
    this machine, where it came from.
    """

    path: str
    aside: str
    parent_before_ns: int
    parent_after_ns: int
    whole: bool = False
    returns_to: str = ""


def remove(base: Path, scratch: Path, made: Sequence[Stub]) -> frozenset[str]:
    """Removes the stubs below ``base``, the last made first; returns the paths that have no place in a layer.

    That leaves out directories that the command has put something in, ``/dev`` excepted. A parent that nothing else
    has changed gets its old mtime back.
    """
    return frozenset(stub.path for stub in reversed(made) if _remove_one(base, scratch, stub))


def _remove_one(base: Path, scratch: Path, stub: Stub) -> bool:
    parent, name = os.path.split(stub.path)
    try:
        with _directory(base, parent) as parent_fd:
            changed_ns = os.fstat(parent_fd).st_mtime_ns
            if stub.returns_to:
                with contextlib.suppress(FileNotFoundError):  # the command has removed it
                    os.rename(name, stub.returns_to, src_dir_fd=parent_fd)
            whole = stub.whole or bool(stub.aside) or f"{stub.path}/".startswith("dev/")
            gone = _unlink(name, parent_fd, whole=whole)
            if stub.aside:
                os.rename(scratch / stub.aside, name, dst_dir_fd=parent_fd)
            untouched = changed_ns == stub.parent_after_ns
            time_ns = stub.parent_before_ns if untouched else changed_ns
            os.utime(parent_fd, ns=(time_ns, time_ns))
    except (FileNotFoundError, NotADirectoryError):
        return True
    return gone


def _unlink(name: str, parent_fd: int, *, whole: bool) -> bool:
    """False for a directory that stays, because there is something in it."""
    try:
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True
    if not is_directory:
        os.unlink(name, dir_fd=parent_fd)
    elif whole:
        shutil.rmtree(name, dir_fd=parent_fd)
    else:
        try:
            os.rmdir(name, dir_fd=parent_fd)
        except OSError:  # ENOTEMPTY or EEXIST, as the file system likes it
            return False
    return True


@contextlib.contextmanager
def _directory(base: Path, relative: str) -> Iterator[int]:
    """A descriptor of a directory below ``base`` (any component may be gone, or a symlink: then NotADirectoryError)."""
    fd = os.open(base, os.O_DIRECTORY)
    try:
        for name in filter(None, relative.split("/")):
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)
