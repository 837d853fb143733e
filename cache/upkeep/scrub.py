"""Reading blobs to see whether they are what their names say, and putting aside those that are not.

A blob is damaged when its bytes have another digest (which finds a wrong length too) or when the disk itself cannot
read them. A store that does not answer says nothing about its blobs: that is a failure, and nothing is touched.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import structlog

from cache import paths
from cache.errors import BlobNotFound, CacheError, DigestMismatch, StoreUnavailable
from cache.oci import codec
from cache.oci.digest import Digest
from cache.store import Aside, Copying, Scrubbable, Store
from cache.upkeep.pace import Pace
from cache.verify import Verifier

FAILURES = 3
"""So many blobs in a row that cannot be read are a store that fails."""
_UNREADABLE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
log = structlog.get_logger()


class ScrubStore(Store, Scrubbable, Protocol):
    """What can be scrubbed."""


class Health(Enum):
    """How a blob is."""

    GOOD = "good"
    DAMAGED = "damaged"
    GONE = "gone"
    FAILED = "failed"
    """The store did not give it: nothing is known."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A blob that was read: how many bytes that were, which ones, and what is wrong with them."""

    digest: Digest
    health: Health
    size_bytes: int = 0
    version: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Damage:
    """The record of a blob that was put aside: what was wrong, when that was found (unix seconds), and what became of
    it. ``aside`` is a value of ``Aside``."""

    digest: Digest
    size_bytes: int
    problem: str
    found_at: float
    aside: str


async def check(store: Scrubbable, digest: Digest, pace: Pace) -> Checked:
    """Reads a blob where it lies."""
    verifier = Verifier(digest)
    version = ""
    try:
        async with store.open_stored(digest) as stored:
            version = stored.version
            async for chunk in stored.chunks:
                verifier.update(chunk)
                await pace.spend(len(chunk))
        verifier.finish()
    except BlobNotFound:
        return Checked(digest, Health.GONE)
    except (DigestMismatch, StoreUnavailable) as error:
        health = Health.DAMAGED if _blames_blob(error) and version else Health.FAILED
        return Checked(digest, health, verifier.seen_bytes, version, str(error))
    return Checked(digest, Health.GOOD, verifier.seen_bytes, version)


def _blames_blob(error: CacheError) -> bool:
    cause = error.__cause__
    return isinstance(error, DigestMismatch) or (isinstance(cause, OSError) and cause.errno in _UNREADABLE)


async def check_all(store: Scrubbable, digests: AsyncIterator[Digest], pace: Pace) -> AsyncGenerator[Checked, None]:
    """Reads one blob after the other. Raises StoreUnavailable when several in a row cannot be read."""
    failures = 0
    async for digest in digests:
        checked = await check(store, digest, pace)
        failures = failures + 1 if checked.health is Health.FAILED else 0
        if failures == FAILURES:
            raise StoreUnavailable("of blobs", "be read", f"{failures} in a row failed, the last: {checked.problem}")
        yield checked


async def put_aside(store: ScrubStore, checked: Checked, pace: Pace, now: float) -> Damage | None:
    """Puts a damaged blob aside, once it has been read again and is damaged still; None when it is not any more.

    A record says what was wrong. Raises StoreUnavailable.
    """
    again = await check(store, checked.digest, pace)
    if again.health is not Health.DAMAGED:
        return None
    name = paths.damaged(again.digest)
    damage = Damage(again.digest, again.size_bytes, again.problem, now, Aside.KEPT.value)
    await store.put(name, codec.encode(damage))  # first: what lies in the quarantine must never be without it
    aside = await store.put_aside(again.digest, again.version)
    if aside is Aside.CHANGED:
        await store.remove(name)
        return None
    if aside is not Aside.KEPT:
        damage = replace(damage, aside=aside.value)
        await store.put(name, codec.encode(damage))
    log.error("blob_damaged", digest=str(damage.digest), problem=damage.problem, aside=damage.aside)
    return damage


async def refill_from_copy(store: ScrubStore, digest: Digest) -> bool:
    """Gives the store a blob back of which a copy lies nearer by; False when there is none that is good."""
    if not isinstance(store, Copying):
        return False
    try:
        async with store.open_copy(digest) as chunks, store.writer(digest) as writer:
            async for chunk in chunks:
                await writer.write(chunk)
            await writer.commit(digest)
    except BlobNotFound:
        return False
    except CacheError as error:
        log.warning("damaged_blob_not_refilled", digest=str(digest), error=str(error))
        return False
    return True


async def check_copies(store: Copying, pace: Pace) -> int:
    """Reads all copies that a store holds, drops those that are damaged, and returns how many these were."""
    dropped = 0
    for digest in store.copies():
        verifier = Verifier(digest)
        try:
            async with store.open_copy(digest) as chunks:
                async for chunk in chunks:
                    verifier.update(chunk)
                    await pace.spend(len(chunk))
            verifier.finish()
        except BlobNotFound:
            continue  # evicted meanwhile
        except (DigestMismatch, StoreUnavailable) as error:
            if _blames_blob(error):
                log.error("copy_damaged", digest=str(digest), error=str(error))
                await store.drop_copy(digest)
                dropped += 1
    return dropped
