"""The builder's own directory: its local store, and one work directory for each running build.

<state_dir>/
├── store/            the local cache of layers (a cache.disk.filesystem store)
├── unpacked/         layers as directories, shared by builds (builder.layer.unpacked)
├── file-digests/    SHA-256 of the files of contexts, by their status (builder.contexts.file_digests)
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
from builder.kept import hold, remove

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
        work, held = _claim(parent)
    except OSError as error:
        raise BuildError(
            f"cannot write to the state directory {state_dir}: {error.strerror or error};"
            " choose another with --state-dir"
        ) from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(held)


def _claim(parent: Path) -> tuple[Path, int]:
    """A new directory under ``parent`` and its lock.

    The parent is locked meanwhile, so that no other build takes the new directory for an abandoned one.
    """
    parent.mkdir(parents=True, exist_ok=True)
    parent_held = hold(parent, fcntl.LOCK_EX)
    try:
        _spread_children(parent_held)
        for left in parent.iterdir():
            remove(left)  # but for those whose builds live
        work = Path(tempfile.mkdtemp(dir=parent))
        return work, hold(work, fcntl.LOCK_EX)
    finally:
        os.close(parent_held)


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
