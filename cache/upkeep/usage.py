"""What is used, counted in memory and written down in batches: one small record for each flush, never one for a hit.

What counts is the use of a name: a tag, a manifest by its digest, a key of the builder's local cache. Blobs do not
count: whoever reads one has read a manifest before, and a base's layer that everybody reads would keep every image
over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from cache import paths
from cache.errors import CacheError
from cache.oci.digest import Digest
from cache.store import Store
from cache.upkeep.uses import write_uses

FLUSH_S = 300.0
MAX_NAMES = 100_000
"""So many names are remembered between two flushes; more are left out, and the flush begins at half as many."""

log = structlog.get_logger()
_Key = tuple[str, str, str | Digest]


class Usage:
    """Counts uses for a store. ``note`` is for every request: it writes nothing and waits for nothing."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._uses: dict[_Key, int] = {}
        self._filling = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None

    def note(self, namespace: str, repository: str, reference: str | Digest) -> None:
        """Counts a use of a tag, or of a manifest by its digest."""
        key = (namespace, repository, reference)
        uses = self._uses
        if key in uses:
            uses[key] += 1
        elif len(uses) < MAX_NAMES:
            uses[key] = 1
            if len(uses) * 2 == MAX_NAMES:
                self._filling.set()

    def __len__(self) -> int:
        """How many names have been used since the last flush."""
        return len(self._uses)

    async def flush(self) -> None:
        """Writes down what has been counted. Raises StoreUnavailable; it is counted on then."""
        taken, self._uses = self._uses, {}
        self._filling.clear()
        try:
            await write_uses(self._store, {_name(*key): hits for key, hits in taken.items()}, self._now())
        except BaseException:
            for key, hits in taken.items():
                self._uses[key] = self._uses.get(key, 0) + hits
            raise

    def start(self) -> None:
        """Flushes from now on, every FLUSH_S seconds and earlier when many names are used."""
        self._flushing = asyncio.create_task(self._keep_flushing(), name="write uses")

    async def close(self) -> None:
        """Flushes a last time."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self._flush_or_tell()

    async def _keep_flushing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._filling.wait()
            await self._flush_or_tell()

    async def _flush_or_tell(self) -> None:
        try:
            await self.flush()
        except CacheError as error:
            log.warning("usage_not_written", names=len(self), error=str(error))


def _name(namespace: str, repository: str, reference: str | Digest) -> str:
    if isinstance(reference, Digest):
        return paths.member(namespace, repository, reference)
    return paths.tag(namespace, repository, reference)
