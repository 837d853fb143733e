"""A large mapping kept in 256 records, so that a change writes only those that it touches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Generic, TypeVar

import msgspec
import structlog

from cache.errors import DamagedRecord
from cache.store import Store
from cache.together import together

PARALLEL = 16
V = TypeVar("V")
log = structlog.get_logger()


class Shards(Generic[V]):
    """A mapping of texts to values of ``kind`` under the records' ``prefix``. What cannot be read is begun anew.

    Values are held packed, as most of a large mapping is never looked at.
    """

    def __init__(self, store: Store, prefix: str, kind: type[V]) -> None:
        self._store = store
        self._prefix = prefix
        self._kind = kind
        self._values: dict[str, bytes] = {}
        self._changed: set[str] = set()

    async def load(self) -> None:
        """Reads everything. Raises StoreUnavailable."""
        names = [name async for name in self._store.names(self._prefix)]
        for found in await together((partial(self._read, name) for name in names), PARALLEL):
            self._values.update(found)

    async def _read(self, name: str) -> dict[str, bytes]:
        try:
            record = await self._store.get(name)
            return {} if record is None else msgspec.msgpack.decode(record.value, type=dict[str, bytes])
        except (DamagedRecord, msgspec.DecodeError) as error:
            log.warning("record_begun_anew", record=name, reason=str(error))
            return {}

    def get(self, key: str) -> V | None:
        """The value, or None when there is none."""
        packed = self._values.get(key)
        return None if packed is None else msgspec.msgpack.decode(packed, type=self._kind)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def set(self, key: str, value: V) -> None:
        """Sets a value."""
        self._values[key] = msgspec.msgpack.encode(value)
        self._changed.add(_shard(key))

    def remove(self, key: str) -> None:
        """Forgets a key that is there."""
        del self._values[key]
        self._changed.add(_shard(key))

    async def save(self) -> None:
        """Writes what has changed. Raises StoreUnavailable."""
        content: dict[str, dict[str, bytes]] = {shard: {} for shard in self._changed}
        for key, packed in self._values.items() if self._changed else ():
            if (shard := _shard(key)) in content:
                content[shard][key] = packed
        await together((partial(self._write, shard, found) for shard, found in content.items()), PARALLEL)
        self._changed.clear()

    async def _write(self, shard: str, content: dict[str, bytes]) -> None:
        if content:
            await self._store.put(self._prefix + shard, msgspec.msgpack.encode(content))
        else:
            await self._store.remove(self._prefix + shard)


def _shard(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=1).hexdigest()
