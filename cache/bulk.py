"""Many small operations of one kind, in as few requests as the store can do them. For maintenance.

Nothing here names a version: what must only be removed as it was read goes through ``Store.remove``, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cache.errors import BlobNotFound, DamagedRecord
from cache.oci.digest import Digest
from cache.store import BulkDeletes, BulkReads, Record, Store
from cache.together import together

PARALLEL = 32


async def get_all(store: Store, names: Sequence[str]) -> Sequence[Record | DamagedRecord | None]:
    """For each name the record, None when there is none, or what is wrong with it."""
    if isinstance(store, BulkReads):
        return await store.get_all(names)
    return await together((partial(_get, store, name) for name in names), PARALLEL)


async def _get(store: Store, name: str) -> Record | DamagedRecord | None:
    try:
        return await store.get(name)
    except DamagedRecord as error:
        return error


async def read_all(store: Store, digests: Sequence[Digest], limit_bytes: int) -> Sequence[bytes | None]:
    """The first ``limit_bytes`` of each blob, None for one that is not there."""
    if isinstance(store, BulkReads):
        return await store.read_all(digests, limit_bytes)
    return await together((partial(_read, store, digest, limit_bytes) for digest in digests), PARALLEL)


async def _read(store: Store, digest: Digest, limit_bytes: int) -> bytes | None:
    try:
        async with store.open(digest, 0, limit_bytes) as chunks:
            return b"".join([chunk async for chunk in chunks])
    except BlobNotFound:
        return None


async def delete_all(store: Store, digests: Sequence[Digest]) -> None:
    """Removes the blobs; nothing happens for those that are not there."""
    if isinstance(store, BulkDeletes):
        await store.delete_all(digests)
    else:
        await together((partial(store.delete, digest) for digest in digests), PARALLEL)


async def remove_all(store: Store, names: Sequence[str]) -> None:
    """Removes the records, whatever they are now; nothing happens for those that are not there."""
    if isinstance(store, BulkDeletes):
        await store.remove_all(names)
    else:
        await together((partial(store.remove, name) for name in names), PARALLEL)
