"""Decisions as values: when the cache may answer for a tag, and when for an upstream that fails."""

from __future__ import annotations

from enum import Enum, auto

from cache.oci.errors import RegistryError


class Tag(Enum):
    """What to do with what we know of a tag."""

    FRESH = auto()
    """Answer from the cache."""
    ASK = auto()
    """Ask the upstream what the tag points to now."""


class Failure(Enum):
    """What to do when the upstream did not answer with success."""

    SERVE_STALE = auto()
    """Answer with what we held: the upstream is ill, not of another opinion."""
    RELAY = auto()
    """Say what the upstream said."""


def judge_tag(checked_at: float | None, now: float, ttl_s: float, readable: bool) -> Tag:
    """Whether a tag last checked at ``checked_at`` (None = never) may be answered from the cache.

    ``readable`` says whether who asks is known to be let in by the upstream. A clock that went backwards makes nothing
    fresh.
    """
    if checked_at is None or not readable:
        return Tag.ASK
    return Tag.FRESH if 0 <= now - checked_at < ttl_s else Tag.ASK


def judge_failure(error: RegistryError, held: bool, was_readable: bool) -> Failure:
    """Whether a failed upstream is answered for from the cache.

    Only failures that say nothing about the content or about who asks count (no answer, 429, 5xx); a 401, 403 or 404
    is an answer and is relayed. Somebody of whom the upstream never said that he may read gets nothing.
    """
    return Failure.SERVE_STALE if error.temporary and held and was_readable else Failure.RELAY
