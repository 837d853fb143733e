"""The directories of ``RUN --mount=type=cache``: they outlive builds, and never get into a layer.

<state_dir>/cache-mounts/<key>/
├── 0.lock, 0/     held shared or alone while a step has it mounted
└── 1.lock, 1/     … a further one, for a step that wants it for itself while another has it (sharing=private)
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.dockerfile.mounts import Sharing
from cache.keys import CacheKey

_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class CacheDirectories:
    """All of one state directory, shared by every build that uses it."""

    state_dir: Path

    @asynccontextmanager
    async def hold(self, key: CacheKey, sharing: Sharing, make: Callable[[Path], None]) -> AsyncIterator[Path]:
        """The directory with this key, made by ``make`` (given an empty one) where there is none yet.

        Waits while another step holds it and ``sharing`` does not let both. Raises OSError.
        """
        parent = self.state_dir / "cache-mounts" / key.hex
        parent.mkdir(parents=True, exist_ok=True)
        number, lock = await self._lock(parent, sharing)
        try:
            directory = parent / str(number)
            if not directory.exists():
                await asyncio.to_thread(_make_whole, directory, make)
            yield directory
        finally:
            os.close(lock)

    async def _lock(self, parent: Path, sharing: Sharing) -> tuple[int, int]:
        """The number of a directory and the descriptor that holds its lock."""
        kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
        number = 0
        while True:
            lock = os.open(parent / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            except BaseException:
                os.close(lock)
                raise
            else:
                return number, lock
            if sharing == "private":
                number += 1
            else:
                await asyncio.sleep(_RETRY_S)


def _make_whole(directory: Path, make: Callable[[Path], None]) -> None:
    """Makes a directory that nobody sees half-made; two at once make it once."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
    try:
        made = new / "made"
        made.mkdir(mode=0o755)
        make(made)
        if not directory.exists():
            made.rename(directory)
    except FileExistsError:
        return
    finally:
        shutil.rmtree(new, ignore_errors=True)
