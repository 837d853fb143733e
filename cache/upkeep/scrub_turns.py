"""One pass through all blobs after the other, in turns: how far it has come is a record, whoever goes on with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from cache import paths
from cache.errors import DamagedRecord
from cache.oci import codec
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.upkeep.pace import Pace
from cache.upkeep.scrub import Checked, Health, ScrubStore, check_all, put_aside, refill_from_copy

PASS_S = 7 * 86400.0
"""A pass begins so long after the one before it began, or later."""
SAVE_S = 60.0
CURSOR = f"{paths.MAINTENANCE}scrub"

Refetch = Callable[[Digest], Awaitable[bool]]
"""Fetches a blob from where it came from; False when nobody knows where that was."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a pass has come: ``after`` is the last blob that was read. Times are unix seconds."""

    begun_at: float
    after: Digest | None = None
    ended: bool = False


@dataclass(slots=True)
class ScrubTurn:
    """What one turn has done. ``refilled`` of the ``damaged`` blobs are there again, or on their way."""

    blobs: int = 0
    read_bytes: int = 0
    damaged: int = 0
    refilled: int = 0
    failed: int = 0
    ended: bool = False


async def nowhere(_: Digest) -> bool:
    """Where blobs are refetched from that came from nowhere."""
    return False


class Scrub:
    """The passes through a store. ``refetch`` is asked for what has no copy nearer by."""

    def __init__(
        self, store: ScrubStore, pace: Pace, refetch: Refetch = nowhere, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._pace = pace
        self._refetch = refetch
        self._now = now

    async def turn(self, until: Callable[[], bool]) -> ScrubTurn:
        """Goes on with the pass until ``until`` says so, or it has come to its end; begins one when it is time to.

        Raises StoreUnavailable; what was read in the last minute is then read again in the next turn.
        """
        turn = ScrubTurn()
        cursor = await self._cursor()
        if cursor.ended:
            turn.ended = True
            return turn
        save_at = self._now() + SAVE_S
        async with contextlib.aclosing(check_all(self._store, self._digests(cursor.after), self._pace)) as found:
            async for checked in found:
                await self._take(checked, turn)
                cursor = replace(cursor, after=checked.digest)
                if until():
                    await self._save(cursor)
                    return turn
                if self._now() >= save_at:
                    await self._save(cursor)
                    save_at = self._now() + SAVE_S
        turn.ended = True
        await self._save(replace(cursor, ended=True))
        return turn

    async def _digests(self, after: Digest | None) -> AsyncIterator[Digest]:
        async for digest, _ in self._store.blobs(after=after):
            yield digest

    async def _take(self, checked: Checked, turn: ScrubTurn) -> None:
        turn.blobs += 1
        turn.read_bytes += checked.size_bytes
        turn.failed += checked.health is Health.FAILED
        if checked.health is not Health.DAMAGED:
            return
        if await put_aside(self._store, checked, self._pace, self._now()) is None:
            return
        turn.damaged += 1
        turn.refilled += await refill_from_copy(self._store, checked.digest) or await self._refetch(checked.digest)

    async def _cursor(self) -> Cursor:
        """Where to go on; the beginning, when the last pass began long enough ago."""
        cursor = None
        with contextlib.suppress(DamagedRecord, InvalidManifest):
            record = await self._store.get(CURSOR)
            cursor = codec.decode(record.value, Cursor, "cursor") if record is not None else None
        if cursor is None or (cursor.ended and self._now() - cursor.begun_at >= PASS_S):
            return Cursor(self._now())
        return cursor

    async def _save(self, cursor: Cursor) -> None:
        await self._store.put(CURSOR, codec.encode(cursor))
