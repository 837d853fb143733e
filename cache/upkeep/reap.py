"""Removing what nobody will come back for: what dead writers left behind, and damaged blobs nobody has looked at."""

from __future__ import annotations

from dataclasses import dataclass

from cache import paths, record_names
from cache.disk.blob_files import LEFTOVER_AGE_S
from cache.errors import DamagedRecord
from cache.oci import codec
from cache.oci.errors import InvalidManifest
from cache.store import Scrubbable, Store, Sweepable, Unfinished
from cache.upkeep.scrub import Damage

ASIDE_S = 30 * 86400.0
"""How long a damaged blob is kept for inspection."""


@dataclass(frozen=True, slots=True)
class Reaped:
    """What was removed: unfinished blobs, and blobs that were put aside."""

    unfinished: Unfinished
    put_aside: int = 0


async def reap(store: Store, now: float) -> Reaped:
    """Removes what nobody has written to for a day, and what was put aside long before ``now`` (unix seconds).

    Raises StoreUnavailable.
    """
    unfinished = await store.sweep(LEFTOVER_AGE_S) if isinstance(store, Sweepable) else Unfinished()
    put_aside = 0
    if isinstance(store, Scrubbable):
        async for name in store.names(paths.DAMAGED):
            digest = record_names.damaged_digest(name)
            if digest is None or now - await _found_at(store, name) < ASIDE_S:
                continue
            await store.remove_aside(digest)
            await store.remove(name)
            put_aside += 1
    return Reaped(unfinished, put_aside)


async def _found_at(store: Store, name: str) -> float:
    """When a blob was put aside; for ever ago when its record cannot be understood."""
    try:
        record = await store.get(name)
        return codec.decode(record.value, Damage, "record").found_at if record is not None else 0.0
    except (DamagedRecord, InvalidManifest):
        return 0.0
