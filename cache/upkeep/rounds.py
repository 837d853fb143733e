"""Work that one of several replicas does at its time: whoever claims a round in the store first does it.

No lease is held meanwhile, and none has to be renewed: what a round does is safe beside another. A replica that dies in
a round leaves the next one to whoever comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cache import paths
from cache.errors import DamagedRecord, RecordConflict
from cache.oci import codec
from cache.oci.errors import InvalidManifest
from cache.store import ABSENT, Absent, Store

ROUND = f"{paths.MAINTENANCE}round"
EARLY = 0.8
"""From which part of the interval on the next round may begin: replicas' clocks and moments differ a little."""


@dataclass(frozen=True, slots=True)
class Round:
    """When the latest round began, in unix seconds."""

    begun_at: float


async def claim(store: Store, now: float, interval_s: float) -> bool:
    """Whether the caller is the one to do the round that is due now; False when another did, or does, so lately.

    Raises StoreUnavailable.
    """
    begun_at, version = await _latest(store)
    if 0 <= now - begun_at < EARLY * interval_s:
        return False
    try:
        await store.put(ROUND, codec.encode(Round(now)), version)
    except RecordConflict:
        return False
    return True


async def _latest(store: Store) -> tuple[float, str | Absent | None]:
    """When the latest round began, and what a compare-and-swap has to name; a damaged record is written over."""
    try:
        record = await store.get(ROUND)
        if record is None:
            return -math.inf, ABSENT
        return codec.decode(record.value, Round, "record").begun_at, record.version
    except (DamagedRecord, InvalidManifest):
        return -math.inf, None
