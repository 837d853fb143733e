"""How an upload goes on after each kind of failure."""

from __future__ import annotations

import pytest

from cache.oci.errors import Denied, NotFound, RateLimited, RegistryError, Unreachable
from cache.oci.sending import CHUNK_BYTES, LEAST_CHUNK_BYTES, Sent, Step, Way, next_step

URL = "https://up.test/v2/a/blobs/uploads/1"
STREAM, CHUNKS = Way(), Way(CHUNK_BYTES)


def status(number: int) -> RegistryError:
    return RegistryError("PATCH", URL, number)


@pytest.mark.parametrize(
    ("error", "sent", "step"),
    [
        (Unreachable("PATCH", URL), Sent(), Step.PAUSE),
        (status(503), Sent(), Step.PAUSE),
        (RateLimited("PATCH", URL), Sent(closing=True), Step.PAUSE),
        (status(503), Sent(opened=False), Step.ANEW),
        (status(403), Sent(opened=False), Step.GIVE_UP),
        (Denied("PATCH", URL, 401), Sent(), Step.AGAIN),
        (Denied("PATCH", URL, 401), Sent(refused=True), Step.GIVE_UP),
        (Denied("POST", URL, 401), Sent(opened=False), Step.GIVE_UP),
        (Denied("PATCH", URL, 403), Sent(), Step.GIVE_UP),
        (NotFound("PATCH", URL, 404), Sent(), Step.ANEW),
        (NotFound("POST", URL, 404), Sent(opened=False), Step.GIVE_UP),
        (status(400), Sent(closing=True), Step.GIVE_UP),
        (status(400), Sent(closing=True, resumed=True), Step.ANEW),
        (status(400), Sent(), Step.GIVE_UP),
        (status(411), Sent(closing=True), Step.GIVE_UP),
        (status(413), Sent(CHUNKS, taken=True), Step.GIVE_UP),
        (status(413), Sent(Way(LEAST_CHUNK_BYTES)), Step.GIVE_UP),
        (status(411), Sent(CHUNKS), Step.GIVE_UP),
    ],
)
def test_what_to_do_next(error: RegistryError, sent: Sent, step: Step):
    assert next_step(error, sent) == (step, sent.way)


@pytest.mark.parametrize(
    ("number", "way", "least_bytes", "chunk_bytes"),
    [
        (411, STREAM, 0, CHUNK_BYTES),
        (413, STREAM, 0, CHUNK_BYTES),
        (416, STREAM, 9 << 20, 9 << 20),
        (413, CHUNKS, 0, CHUNK_BYTES // 4),
        (416, CHUNKS, 0, CHUNK_BYTES // 4),
    ],
)
def test_another_way_where_this_one_is_refused(number: int, way: Way, least_bytes: int, chunk_bytes: int):
    assert next_step(status(number), Sent(way), least_bytes) == (Step.OTHERWISE, Way(chunk_bytes))


def test_chunks_are_never_smaller_than_the_registry_wants_them():
    assert next_step(status(413), Sent(CHUNKS), CHUNK_BYTES) == (Step.GIVE_UP, CHUNKS)
