"""Uses as records: one for each flush of a replica or end of a build, and their sum as gc keeps it."""

from __future__ import annotations

import secrets

import msgspec

from cache import paths
from cache.errors import DamagedRecord
from cache.store import Records


class Used(msgspec.Struct, frozen=True, array_like=True):
    """A name's uses: when it was first seen and last used, how often, and for a manifest when a retention took its tag.

    Times are in unix seconds, 0 = never.
    """

    first_at: float
    last_at: float
    hits: int
    untagged_at: float = 0.0


class Flushed(msgspec.Struct, frozen=True):
    """What one flush writes: how often each record's name was used until ``at``, in unix seconds."""

    at: float
    uses: dict[str, int]


async def write_uses(store: Records, uses: dict[str, int], at: float) -> None:
    """Writes down uses by records' names; nothing is written when there are none. Raises StoreUnavailable."""
    if uses:
        await store.put(paths.usage(secrets.token_hex(16)), msgspec.msgpack.encode(Flushed(at, uses)))


def read_uses(name: str, value: bytes) -> Flushed:
    """What a flush has written. Raises DamagedRecord."""
    try:
        return msgspec.msgpack.decode(value, type=Flushed)
    except msgspec.DecodeError as error:
        raise DamagedRecord(name, str(error)) from error
