"""The builder's own directory: its local store, and one work directory for each running build.

<state_dir>/
├── store/            the local cache of layers (a cache.filesystem store)
└── work/<random>/    one build; held by a lock while the build lives, removed by it, or by the next build
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builder.errors import BuildError


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
        _remove_abandoned(parent)
        work = Path(tempfile.mkdtemp(dir=parent))
        return work, _hold(work)
    finally:
        os.close(parent_lock)


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
