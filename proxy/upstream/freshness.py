"""Decisions as values: when the cache may answer for a tag, when for an upstream that fails, and whom.

Nothing here knows the time or asks anybody: what was noted and when comes in, what to do goes out.
"""

from __future__ import annotations

from enum import Enum, auto

from cache.oci.errors import InvalidReply, RateLimited, RegistryError
from proxy.config import Freshness


class Tag(Enum):
    """What to do with what we know of a tag."""

    FRESH = auto()
    """Answer from the cache."""
    REVALIDATE = auto()
    """Answer from the cache, and ask the upstream meanwhile (stale-while-revalidate)."""
    ASK = auto()
    """Ask the upstream what the tag points to now."""


class Standing(Enum):
    """What the upstream said of who asks."""

    LET_IN = auto()
    """It let them read the repository a short time ago."""
    WAS_LET_IN = auto()
    """It did so long ago that it must be asked again, unless it cannot be."""
    UNKNOWN = auto()
    """It never did, or too long ago to count for anything."""


class Failure(Enum):
    """What to do when the upstream did not answer with success."""

    SERVE_STALE = auto()
    """Answer with what we held: the upstream is ill, not of another opinion."""
    RELAY = auto()
    """Say what the upstream said."""


def judge_tag(checked_at: float | None, now: float, ttl_s: float, revalidate_s: float, readable: bool) -> Tag:
    """Whether a tag last checked at ``checked_at`` (None = never) may be answered from the cache.

    ``readable`` says whether who asks is known to be let in by the upstream. A clock that went backwards makes nothing
    fresh.
    """
    if checked_at is None or not readable or now < checked_at:
        return Tag.ASK
    past_s = now - checked_at - ttl_s
    if past_s < 0:
        return Tag.FRESH
    return Tag.REVALIDATE if past_s < revalidate_s else Tag.ASK


def judge_standing(granted_at: float | None, now: float, freshness: Freshness) -> Standing:
    """What a permission of ``granted_at`` (None = there was none) is worth.

    Past its time it counts for as long as content may be stale, since it is needed for nothing else.
    """
    if granted_at is None:
        return Standing.UNKNOWN
    past_s = now - granted_at - freshness.access_ttl_s
    if past_s < 0:
        return Standing.LET_IN
    return Standing.WAS_LET_IN if past_s < freshness.max_stale_s else Standing.UNKNOWN


def judge_failure(error: RegistryError, standing: Standing, past_s: float, max_stale_s: float) -> Failure:
    """Whether a failed upstream is answered for with what we hold.

    ``past_s`` is for how long that has not been fresh: 0 for what never changes.
    Only failures that say nothing about the content or about who asks count (no answer, 429, 5xx, nonsense); a 401, 403
    or 404 is an answer and is relayed. Somebody of whom the upstream never said that he may read gets nothing.
    """
    ill = error.temporary or isinstance(error, InvalidReply)
    if not ill or past_s >= max_stale_s or standing is Standing.UNKNOWN:
        return Failure.RELAY
    return Failure.SERVE_STALE


class Ailment(Enum):
    """What is the matter with an upstream that is answered for; the value is said of it."""

    RATE_LIMITED = "is rate limited"
    UNREACHABLE = "is unreachable"
    FAILING = "answers with errors"
    CONFUSED = "answers with nonsense"


def diagnose(error: RegistryError) -> Ailment:
    """What the failure of an upstream tells of it."""
    match error:
        case RateLimited():
            return Ailment.RATE_LIMITED
        case InvalidReply():
            return Ailment.CONFUSED
    return Ailment.UNREACHABLE if error.status is None else Ailment.FAILING
