"""How an upload to a registry goes on after something went wrong: a pure decision.

A registry may break the connection, be busy, lose the session, or not take a blob the way that we offer it: some want
the length of every request (no stream of unknown length), some refuse a chunk above a size of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from cache.oci.errors import Denied, NotFound, RegistryError

CHUNK_BYTES = 4 << 20
"""The size of chunks where a stream is not taken: what the strictest of the known registries takes."""
LEAST_CHUNK_BYTES = 256 * 1024
_NOT_SO = frozenset({405, 411, 413, 416, 501})
"""Answers to a stream that may be meant for the way and not for the blob."""
_TOO_MUCH = frozenset({413, 416})


class Step(Enum):
    """What to do next."""

    GIVE_UP = "give up"
    """The registry's answer is final."""
    AGAIN = "again"
    """Go on at once, where the registry stands."""
    PAUSE = "pause"
    """Go on where the registry stands, after a pause, as often as the back-off schedule allows."""
    ANEW = "anew"
    """Begin a new session, after a pause."""
    OTHERWISE = "otherwise"
    """Begin a new session at once, and send in another way (``way``)."""


@dataclass(frozen=True, slots=True)
class Way:
    """How bytes are sent: ``chunk_bytes`` at a time, or in one stream (0)."""

    chunk_bytes: int = 0

    def smaller(self, least_bytes: int) -> Way | None:
        """The next way to try when this one was refused; None when there is none."""
        least = max(least_bytes, LEAST_CHUNK_BYTES)
        chunk_bytes = self.chunk_bytes // 4 if self.chunk_bytes else max(CHUNK_BYTES, least)
        return replace(self, chunk_bytes=chunk_bytes) if chunk_bytes >= least else None


@dataclass(frozen=True, slots=True)
class Sent:
    """Where an upload was when it failed.

    ``opened``: the session was there already. ``taken``: the registry has taken bytes in this way. ``closing``: all
    bytes were sent and it was asked to take the blob. ``resumed``: the session had been taken up in the middle.
    ``refused``: a 401 has come since the last progress.
    """

    way: Way = Way()
    opened: bool = True
    taken: bool = False
    closing: bool = False
    resumed: bool = False
    refused: bool = False


def next_step(error: RegistryError, sent: Sent, least_chunk_bytes: int = 0) -> tuple[Step, Way]:
    """What to do after ``error``, and how to send from now on."""
    if isinstance(error, Denied) and error.status == 401:
        # A token may end during a long upload; the one that is fetched then counts.
        return (Step.GIVE_UP if sent.refused or not sent.opened else Step.AGAIN), sent.way
    if error.temporary:
        return (Step.PAUSE if sent.opened else Step.ANEW), sent.way
    if not sent.opened:
        return Step.GIVE_UP, sent.way
    if isinstance(error, NotFound) or (sent.closing and sent.resumed and error.status == 400):
        return Step.ANEW, sent.way  # the session is lost, or what we took up was not what we thought
    if not sent.taken and not sent.closing and error.status in (_TOO_MUCH if sent.way.chunk_bytes else _NOT_SO):
        other = sent.way.smaller(least_chunk_bytes)
        if other is not None:
            return Step.OTHERWISE, other
    return Step.GIVE_UP, sent.way
