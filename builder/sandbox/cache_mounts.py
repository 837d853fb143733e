"""The directories of ``RUN --mount=type=cache``: they outlive builds, and never get into a layer.

<state_dir>/cache-mounts/<key>-<number>/
├── files/            what steps see
└── size              how many bytes that takes on the disk, where nobody has used it since

Its lock is held shared or alone while a step has it mounted. A number above 0 is for a step that wants one for itself
while another step has the first (sharing=private). The directory's own time is that of the last use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.dockerfile.mounts import Sharing
from builder.kept import Kept, is_going, lock, most_bytes, remove, surplus
from cache.keys import CacheKey

_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class CacheDirectories:
    """All below ``directory``, shared by every build that uses it."""

    directory: Path
    max_bytes: int

    @classmethod
    def below(cls, state_dir: Path) -> CacheDirectories:
        """Those of a state directory, which exists."""
        return cls(state_dir / "cache-mounts", most_bytes(state_dir))

    @asynccontextmanager
    async def hold(self, key: CacheKey, sharing: Sharing, make: Callable[[Path], None]) -> AsyncIterator[Path]:
        """The directory with this key, made by ``make`` (given an empty one) where there is none yet.

        Waits while another step holds it and ``sharing`` does not let both. Raises OSError.
        """
        path, held = await self._lock(key, sharing)
        try:
            (path / "size").unlink(missing_ok=True)
            os.utime(path)
            files = path / "files"
            if not files.exists():
                await asyncio.to_thread(_make_whole, files, make)
            yield files
        finally:
            os.close(held)

    async def _lock(self, key: CacheKey, sharing: Sharing) -> tuple[Path, int]:
        """A directory and the descriptor that holds its lock."""
        kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
        number = 0
        while True:
            path = self.directory / f"{key.hex}-{number}"
            with contextlib.suppress(FileExistsError):  # pathlib's exist_ok fails where it is being removed
                path.mkdir(parents=True)
            held = lock(path, kind)
            if held is not None:
                return path, held
            if sharing == "private":
                number += 1
            else:
                await asyncio.sleep(_RETRY_S)

    def trim(self) -> None:
        """Removes what is too much, of what no step uses. Blocks; raises OSError."""
        if self.directory.is_dir():
            for path in surplus(self._kept(), self.max_bytes, time.time_ns()):
                remove(path)

    def _kept(self) -> Iterator[Kept]:
        for path in list(self.directory.iterdir()):
            if is_going(path):
                remove(path)
                continue
            with contextlib.suppress(FileNotFoundError):
                size_bytes = _noted_bytes(path)
                if size_bytes is not None:
                    yield Kept(path, size_bytes, os.stat(path).st_mtime_ns)


def _noted_bytes(path: Path) -> int | None:
    """What a cache takes, measured where that was not done since its last use; None while a step uses it."""
    with contextlib.suppress(OSError, ValueError):
        return int((path / "size").read_text())
    held = lock(path, fcntl.LOCK_EX)
    if held is None:
        return None
    try:
        used = os.stat(path)
        size_bytes = _disk_bytes(path)
        with contextlib.suppress(OSError):  # the disk is full
            (path / "size").write_text(str(size_bytes))
        os.utime(path, ns=(used.st_atime_ns, used.st_mtime_ns))
        return size_bytes
    finally:
        os.close(held)


def _disk_bytes(directory: Path) -> int:
    files = (os.path.join(above, name) for above, _, names in os.walk(directory) for name in names)
    return sum(os.lstat(file).st_blocks * 512 for file in files)


def _make_whole(directory: Path, make: Callable[[Path], None]) -> None:
    """Makes a directory that nobody sees half-made; two at once make it once."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
    try:
        made = new / "made"
        made.mkdir(mode=0o755)
        make(made)
        if not directory.exists():
            made.rename(directory)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another was first
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
