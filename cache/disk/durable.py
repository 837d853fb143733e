"""File operations that survive a power cut: what has returned is on the disk, under its name.

All of them block; callers on an event loop cross by a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from cache.errors import StoreFull, StoreUnavailable

FILE_MODE = 0o644
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def store_failure(store: str, operation: str, error: OSError) -> StoreUnavailable:
    """The store's error for an ``OSError``; StoreFull when there is no space or quota left."""
    kind = StoreFull if error.errno in _FULL else StoreUnavailable
    reason = error.strerror or type(error).__name__
    return kind(store, operation, f"{reason}: {error.filename}" if error.filename else reason)


def sync_directory(directory: Path) -> None:
    """Writes the names in ``directory`` to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Makes ``directory`` and its parents; those that were missing are on the disk afterwards."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
    sync_directory(directory.parent)


def new_file(directory: Path) -> Path:
    """A new, empty file in ``directory`` (which is made), writable by its owner alone."""
    make_directory(directory)
    path = directory / secrets.token_hex(16)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    return path


def publish(temporary: Path, final: Path) -> None:
    """Moves a file, whose content the caller has already synced, to its name at once, replacing what is there."""
    make_directory(final.parent)
    os.replace(temporary, final)
    sync_directory(final.parent)


def replace_content(temporary: Path, final: Path, content: bytes) -> None:
    """Gives ``final`` the content, by way of ``temporary``: readers see the old file or the new one, never a part."""
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
