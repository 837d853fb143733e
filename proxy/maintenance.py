"""The store kept in order while the proxy runs: what was left behind goes, and what has rotted is found.

One replica does a round for all (``cache.upkeep.rounds``); a damaged copy on a replica's own disk only it can find.
Whatever goes wrong is logged and counted, and never ends the proxy.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import structlog

from cache import paths
from cache.errors import CacheError
from cache.leases import Leases, Other, remove_abandoned
from cache.store import Copying, Scrubbable, Store
from cache.upkeep import rounds
from cache.upkeep.collect import Collection, collect
from cache.upkeep.pace import Pace
from cache.upkeep.reap import Reaped, reap
from cache.upkeep.scrub import ScrubStore, check_copies
from cache.upkeep.scrub_turns import PASS_S, Refetch, Scrub, ScrubTurn
from proxy.observe.metrics import Metrics
from proxy.reload import Configuration

GC_LEASE_S = 60.0
T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LastRound:
    """What the latest round of this replica has done; None = that failed, or is not done here."""

    ended_at: float
    reaped: Reaped | None
    scrubbed: ScrubTurn | None


class Maintenance:
    """What is done for the store in the background. ``now`` gives unix seconds."""

    def __init__(
        self,
        store: Store,
        configuration: Configuration,
        metrics: Metrics,
        refetch: Refetch,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._configuration = configuration
        self._metrics = metrics
        self._refetch = refetch
        self._now = now
        self._leases = Leases(store, secrets.token_hex(8))
        self._tasks: list[asyncio.Task[None]] = []
        self.last: LastRound | None = None
        """None before this replica's first round."""

    @property
    def is_on(self) -> bool:
        """Whether rounds are done at all."""
        return self._configuration.current.maintenance_interval_s > 0

    def start(self) -> None:
        """Begins."""
        self._tasks = [
            asyncio.create_task(self._rounds(), name="maintenance"),
            asyncio.create_task(self._copies(), name="maintenance of copies"),
        ]

    async def close(self) -> None:
        """Stops; a round that is cut short is gone on with in the next one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _rounds(self) -> None:
        share = 0.1  # of the interval: the first soon after the start, and not by all replicas at once
        while True:
            await asyncio.sleep(self._pause_s() * share * random.uniform(0.9, 1.1))  # noqa: S311 - spreads replicas
            share = 1.0
            if self.is_on:
                await self._do("round", self.round)

    def _pause_s(self) -> float:
        interval_s = self._configuration.current.maintenance_interval_s
        return interval_s if interval_s > 0 else 60.0  # a reload may turn it on

    async def round(self) -> bool:
        """Does the round that is due; False when another replica does. Raises StoreUnavailable."""
        interval_s = self._configuration.current.maintenance_interval_s
        if not await rounds.claim(self._store, self._now(), interval_s):
            return False
        until = time.monotonic() + interval_s / 2
        reaped = await self._do("reap", self._reap)
        if self._configuration.current.retentions:
            await self._do("collect", self._collect)
        scrubbed = await self._do("scrub", lambda: self._scrub(until))
        self.last = LastRound(self._now(), reaped, scrubbed)
        await self._do("leases", self._remove_leases)  # last: it waits for those to be renewed that are alive
        return True

    async def _do(self, task: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """What the work returns; None when it failed, which is logged and counted."""
        try:
            result = await work()
        except CacheError as error:
            log.warning("maintenance_failed", task=task, error=str(error))
        except Exception:  # a fault of ours: the next round must come all the same
            log.exception("maintenance_broke", task=task)
        else:
            self._metrics.maintained(task, "done")
            return result
        self._metrics.maintained(task, "failed")
        return None

    async def _reap(self) -> Reaped:
        reaped = await reap(self._store, self._now())
        left = reaped.unfinished
        removed = {"upload": left.uploads, "file": left.files, "put_aside": reaped.put_aside}
        self._metrics.reaped(**removed)
        if any(removed.values()):
            log.info("store_reaped", **removed, bytes=left.files_bytes)
        return reaped

    async def _remove_leases(self) -> None:
        removed = await remove_abandoned(self._store)
        self._metrics.reaped(lease=removed)
        if removed:
            log.info("leases_removed", count=removed)

    async def _collect(self) -> None:
        config = self._configuration.current
        how = Collection(
            config.retentions, config.gc_grace_s, requests_per_second=config.gc_requests_per_second or None
        )
        lease = await self._leases.take(paths.GC_LEASE, GC_LEASE_S)
        if isinstance(lease, Other):
            return  # it may take longer than the pause between two rounds
        async with self._leases.kept(lease, GC_LEASE_S):
            report = await collect(self._store, how, self._now)
        if not report.waiting:
            log.info("store_collected", freed=report.freed, bytes=report.freed_bytes, condemned=report.condemned)

    async def _scrub(self, until: float) -> ScrubTurn | None:
        pace = self._pace()
        if pace is None or not isinstance(self._store, Scrubbable):
            return None
        scrub = Scrub(cast(ScrubStore, self._store), pace, self._refetch, self._now)
        turn = await scrub.turn(lambda: time.monotonic() >= until)
        self._metrics.scrubbed(turn.read_bytes, turn.damaged)
        if turn.blobs:
            log.info("store_scrubbed", blobs=turn.blobs, bytes=turn.read_bytes, damaged=turn.damaged, ended=turn.ended)
        return turn

    def _pace(self) -> Pace | None:
        rate = self._configuration.current.scrub_bytes_per_second
        return Pace(rate) if rate > 0 else None

    async def _copies(self) -> None:
        """Reads the copies on this replica's own disk, as often as a pass through the store is made."""
        while isinstance(self._store, Copying):
            await asyncio.sleep(self._pause_s() * random.uniform(0.5, 1.0))  # noqa: S311 - spreads replicas
            pace, copying = self._pace(), self._store
            if self.is_on and pace is not None:
                dropped = await self._do("copies", lambda: check_copies(copying, pace))  # noqa: B023 - awaited at once
                self._metrics.scrubbed(0, dropped or 0)
                await asyncio.sleep(PASS_S)
