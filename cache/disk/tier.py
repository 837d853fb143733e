"""Blobs of a slower store on the local disk: a bounded directory that can be lost at any time.

The index is in memory and rebuilt from the tree at start. A file gets its name only when it is whole and synced, so
whatever is killed leaves no blob that is not what its name says. One process uses the directory at a time; a second one
goes without. A disk that is full or fails costs the caching for a while, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from cache import paths
from cache.disk import durable
from cache.disk.blob_files import BlobFiles
from cache.disk.eviction import Index, Marks
from cache.disk.filesystem import FilesystemStore
from cache.errors import StoreFull, StoreUnavailable
from cache.oci.digest import Digest

PAUSE_S = 60.0
"""How long nothing is taken in after the disk has failed."""

_THREADS = 4
_USES_KEPT = 1000
P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()


class DiskTier:
    """The directory ``root``, with at most ``size_bytes`` of blobs in it."""

    def __init__(self, root: Path, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._root = root.absolute()
        self._files = BlobFiles(self._root)
        self._store = FilesystemStore(self._root)
        self._index: Index[Digest] = Index(Marks.below(size_bytes))
        self._lock = threading.Lock()
        self._uses: dict[Digest, float] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="disk-tier")
        self._owner: int | None = None
        self._scan: asyncio.Task[None] | None = None
        self._paused_until = 0.0
        self._ready = False

    def start(self) -> None:
        """Begins to look through the tree, in the background; until that is done nothing is taken in."""
        if self._scan is None:
            self._scan = asyncio.create_task(self._take_over(), name="disk tier")

    async def started(self) -> None:
        """Returns when the tree has been looked through."""
        if self._scan is not None:
            await asyncio.wait([self._scan])

    async def close(self) -> None:
        """Keeps what was used when, and gives the directory back."""
        if self._scan is not None:
            self._scan.cancel()
            await asyncio.gather(self._scan, return_exceptions=True)
        await self._keep_uses()
        await asyncio.to_thread(self._threads.shutdown)
        await self._store.close()
        if self._owner is not None:
            os.close(self._owner)

    # Reading

    def size_of(self, digest: Digest) -> int | None:
        """The blob's size when it is held here; None also as long as the tree has not been looked through."""
        with self._lock:
            return self._index.size_bytes(digest)

    def local_path(self, digest: Digest) -> Path | None:
        """The file that holds the blob, which counts as used just now; None when there is none. Blocks."""
        with self._lock:
            if self._index.use(digest) is None:
                return None
            self._uses[digest] = time.time()
        path = self._files.path(digest)
        if path.exists():
            return path
        self.forget(digest)  # somebody has removed it
        return None

    def held(self) -> list[Digest]:
        """What is held here."""
        with self._lock:
            return self._index.keys()

    def open(self, digest: Digest, start: int, stop: int | None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """As a store's ``open``."""
        return self._store.open(digest, start, stop)

    @contextmanager
    def pinned(self, digest: Digest) -> Iterator[None]:
        """Keeps the blob while it is read."""
        with self._lock:
            self._index.use(digest)
            self._index.pin(digest)
            self._uses[digest] = time.time()
        try:
            yield
        finally:
            with self._lock:
                self._index.unpin(digest)

    # Taking in

    def admits(self, size_bytes: int) -> bool:
        """True when a blob of this size may be taken in now: one that would fill most of the tier may not."""
        return self._ready and 0 < size_bytes <= self.size_bytes // 2 and time.monotonic() >= self._paused_until

    async def reserve(self, size_bytes: int) -> bool:
        """Makes room, and says whether there is some now."""
        with self._lock:
            going = self._index.reserve(size_bytes)
        if going:
            await self.run(self._remove_files, going)
        return going is not None

    def release(self, size_bytes: int) -> None:
        """Gives back room that was reserved."""
        with self._lock:
            self._index.release(size_bytes)

    async def incoming(self) -> Path:
        """A new, empty file, to be written and given to ``adopt`` or removed. Raises StoreUnavailable."""
        return await self.run(self._store.incoming)

    async def adopt(self, path: Path, digest: Digest, size_bytes: int) -> None:
        """Makes a file the blob; its digest was verified and its room reserved. Raises StoreUnavailable."""
        await self.run(self._store.adopt, path, digest, size_bytes)
        with self._lock:
            self._index.add(digest, size_bytes)
            self._uses[digest] = time.time()
        if len(self._uses) >= _USES_KEPT:
            await self._keep_uses()

    async def _keep_uses(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # without them the order of the next start is a little worse
            await self.run(self._write_uses)

    async def remove(self, digest: Digest) -> None:
        """Removes the blob if it is held here. Raises StoreUnavailable."""
        self.forget(digest)
        await self._store.delete(digest)

    def forget(self, digest: Digest) -> None:
        """Forgets a blob whose file has gone."""
        with self._lock:
            self._index.remove(digest)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does file work on one of the tier's threads. Raises StoreUnavailable for its ``OSError``.

        After that nothing is taken in for a while, and a disk that is full gets some of its room back.
        """

        def translated() -> T:
            try:
                return work(*args, **kwargs)
            except OSError as error:
                raise durable.store_failure(self._store.url, "hold a blob", error) from error

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, translated)
        except StoreUnavailable as error:
            self._paused_until = time.monotonic() + PAUSE_S
            log.warning("disk_cache_failed", error=str(error), pause_s=PAUSE_S)
            if isinstance(error, StoreFull):
                self._threads.submit(self._remove_files, self._shrink())
            raise

    def _shrink(self) -> list[Digest]:
        """The blobs that have to go so that a tenth of the room is free again; they are forgotten."""
        with self._lock:
            return self._index.shrink(self._index.held_bytes // 10)

    async def _take_over(self) -> None:
        try:
            if not await self.run(self._own):
                log.warning("disk_cache_in_use", directory=str(self._root), advice="give every proxy its own directory")
                return
            found = await self.run(self._look_through)
        except StoreUnavailable as error:
            log.warning("disk_cache_failed", error=str(error))
            return
        with self._lock:
            going = self._index.found(found)
        await self.run(self._remove_files, going)
        self._ready = True
        log.info("disk_cache_ready", directory=str(self._root), blobs=len(found), bytes=self._index.held_bytes)

    def _own(self) -> bool:
        """Locks the directory; False when another process has it."""
        path = self._root / paths.lock("tier")
        durable.make_directory(path.parent)
        self._owner = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.FILE_MODE)
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _look_through(self) -> list[tuple[Digest, int]]:
        """All blobs and their sizes, least recently used first. What a dead process has left half done goes."""
        self._files.sweep(0.0)
        found: list[tuple[float, Digest, int]] = []
        for directory in self._files.directories():
            with os.scandir(directory) as entries:
                for entry in entries:
                    digest = paths.blob_digest(Path(entry.path).relative_to(self._root).as_posix())
                    if digest is not None:
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, digest, status.st_size))
        return [(digest, size_bytes) for _, digest, size_bytes in sorted(found, key=lambda item: item[0])]

    def _remove_files(self, digests: list[Digest]) -> None:
        for digest in digests:
            with self._lock:
                self._uses.pop(digest, None)
            self._files.delete(digest)
        if digests:
            log.info("disk_cache_evicted", blobs=len(digests))

    def _write_uses(self) -> None:
        """Notes in the files when they were used last; a blob's time means nothing else."""
        with self._lock:
            uses, self._uses = self._uses, {}
        for digest, used_at in uses.items():
            try:
                os.utime(self._files.path(digest), (used_at, used_at))
            except FileNotFoundError:
                continue
