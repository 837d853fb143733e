"""The builder's own directory: its local store, and one work directory for each running build.

<state_dir>/
├── store/            the local cache of layers (a cache.filesystem store)
├── unpacked/         layers as directories, shared by builds (builder.unpacked)
├── cache-mounts/     what RUN --mount=type=cache keeps (builder.sandbox.cache_mounts)
└── work/<random>/    one build; held by a lock while the build lives, removed by it, or by the next build
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builder.errors import BuildError

# linux/fs.h
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_TOP_DIRECTORY = 0x00020000


@contextlib.contextmanager
def work_directory(state_dir: Path) -> Iterator[Path]:
    """A new, empty directory for one build, gone afterwards; what killed builds left is removed first.

    Raises BuildError when the state directory cannot be written.
    """
    parent = state_dir / "work"
    try:
        work, lock = _claim(parent)
    except OSError as error:
        raise BuildError(
            f"cannot write to the state directory {state_dir}: {error.strerror or error};"
            " choose another with --state-dir"
        ) from error
    try:
        yield work
    finally:
        _remove(work)
        os.close(lock)


def _claim(parent: Path) -> tuple[Path, int]:
    """A new directory under ``parent`` and its lock.

    The parent is locked meanwhile, so that no other build takes the new directory for an abandoned one.
    """
    parent.mkdir(parents=True, exist_ok=True)
    parent_lock = _hold(parent)
    try:
        _spread_children(parent_lock)
        _remove_abandoned(parent)
        work = Path(tempfile.mkdtemp(dir=parent))
        return work, _hold(work)
    finally:
        os.close(parent_lock)


def _spread_children(directory: int) -> None:
    """Tells ext4 that the directories in this one have nothing to do with each other, as `chattr +T` does.

    ext4 does not reuse an inode for minutes after it was deleted, and looks through all of those again for every new
    file near them. A build deletes the tens of thousands of files that it unpacked; without this the next one, put into
    the same part of the disk, takes several times as long. Other file systems do not know the flag and do not need it.
    """
    flags = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(directory, _GET_FLAGS, flags)
        flags[0] |= _TOP_DIRECTORY
        fcntl.ioctl(directory, _SET_FLAGS, flags)


def _hold(directory: Path, flags: int = 0) -> int:
    """A descriptor that holds the directory's lock until it is closed, by us or by our death.

    Waits for whoever has it; with ``fcntl.LOCK_NB`` in ``flags`` it raises BlockingIOError instead.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.iterdir():
        try:
            lock = _hold(directory, fcntl.LOCK_NB)
        except OSError:
            continue  # its build lives
        _remove(directory)
        os.close(lock)


def _remove(directory: Path) -> None:
    """Removes the tree as far as possible: a leftover is removed by a later build, and fails none."""
    shutil.rmtree(directory, ignore_errors=True)
