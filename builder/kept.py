"""Directories that outlive builds or are left by them: locked while a build uses them, removed when they are too much.

A lock is flock(2) on the directory itself. It ends with its process, so that a killed build holds nothing; and what is
locked is never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

MAX_BYTES = 20 * 10**9
MAX_IDLE_NS = 60 * 86_400 * 10**9
"""Two months: what BuildKit's default policy gives to anything that it keeps."""
_GONE = ".gone-"


class Kept(msgspec.Struct, frozen=True):
    """A directory that is kept for later builds; ``used_at_ns`` is the Unix time of its last use."""

    path: Path
    size_bytes: int
    used_at_ns: int


def surplus(kept: Iterable[Kept], max_bytes: int, now_ns: int) -> list[Path]:
    """What has to go: what nobody has used for `MAX_IDLE_NS`, and the least recently used beyond ``max_bytes``."""
    going: list[Path] = []
    held_bytes = 0
    for found in sorted(kept, key=lambda found: found.used_at_ns, reverse=True):
        held_bytes += found.size_bytes
        if held_bytes > max_bytes or found.used_at_ns < now_ns - MAX_IDLE_NS:
            going.append(found.path)
    return going


def most_bytes(directory: Path) -> int:
    """How much one kind of kept directories may hold: a tenth of the disk at most, and `MAX_BYTES`."""
    return min(MAX_BYTES, shutil.disk_usage(directory).total // 10)


def hold(path: Path, kind: int) -> int:
    """A descriptor that holds the directory's lock (``fcntl.LOCK_…``) until it is closed. Raises OSError.

    Waits for whoever has it, or with ``LOCK_NB`` raises BlockingIOError.
    """
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, kind)
    except OSError:
        os.close(held)
        raise
    return held


def lock(path: Path, kind: int) -> int | None:
    """A descriptor that holds the lock of the directory at ``path``; None when none is there, or somebody has it.

    Raises OSError for what time does not mend.
    """
    try:
        held = hold(path, kind | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(held), os.stat(path)):
            return held
    os.close(held)  # it was moved away, to be removed
    return None


def is_going(path: Path) -> bool:
    """True for what somebody had begun to remove."""
    return path.name.startswith(_GONE)


def remove(path: Path) -> None:
    """Removes a directory that no build uses, as far as possible: a later build goes on, and none fails for it."""
    with contextlib.suppress(OSError):
        held = lock(path, fcntl.LOCK_EX)
        if held is None:
            return
        try:
            gone = path.with_name(_GONE + secrets.token_hex(8))
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(held)
