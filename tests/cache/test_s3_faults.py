"""What the store in a bucket promises when the server fails, or answers as S3 does at its worst.

The faults that any request may meet are in ``test_s3_fault_table``.
"""

import asyncio
import os

import pytest

from cache.errors import BlobNotFound, StoreFull, StoreUnavailable
from cache.oci.digest import Digest
from tests.cache.s3_use import MIB, NAME, put, read
from tests.s3_servers import ACCESS_KEY, SECRET_KEY

LARGE_BYTES = 17 * MIB  # three parts


async def test_a_connection_that_breaks_is_taken_up_where_it_broke(fake, fake_store):
    data = os.urandom(3 * MIB)
    digest = await put(fake_store, data)
    fake.requests.clear()
    fake.faults.cut_bodies = 3
    assert await read(fake_store, digest) == data
    assert len(fake.requests) == 4
    fake.faults.cut_bodies = 1
    assert await read(fake_store, digest, 100, 2 * MIB) == data[100 : 2 * MIB]


async def test_a_connection_that_breaks_again_and_again(fake, fake_store):
    digest = await put(fake_store, os.urandom(3 * MIB))
    fake.faults.cut_bodies, fake.faults.cut_share = 1000, 0
    with pytest.raises(StoreUnavailable, match=f"read {digest}"):
        await read(fake_store, digest)


async def test_a_blob_that_goes_while_it_is_read(fake, fake_store):
    digest = await put(fake_store, os.urandom(3 * MIB))
    async with fake_store.open(digest) as chunks:
        fake.objects.clear()
        fake.faults.cut_bodies = 1
        await anext(chunks)
    fake.faults.cut_bodies = 0
    with pytest.raises(BlobNotFound):
        await read(fake_store, digest)


async def test_a_server_that_ignores_ranges(fake, fake_store):
    digest = await put(fake_store, b"content")
    fake.faults.ignored = frozenset({"Range"})
    with pytest.raises(StoreUnavailable, match="takes no notice of ranges"):
        await read(fake_store, digest, 2, 4)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", StoreUnavailable),
        (404, "NoSuchUniverse", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (507, "InsufficientStorage", StoreFull),
        (400, "QuotaExceeded", StoreFull),
        (500, "InternalError", StoreUnavailable),
    ],
)
async def test_errors_name_the_store_and_no_secret(fake, fake_store, status, code, kind):
    for start in (lambda: fake_store.put(NAME, b"x"), lambda: put(fake_store, b"x"), lambda: fake_store.get(NAME)):
        fake.faults.errors = [(status, code)] * 20
        with pytest.raises(StoreUnavailable, match="store s3://crossdock/some/prefix failed to") as caught:
            await start()
        assert SECRET_KEY not in str(caught.value)
    assert type(caught.value) is kind
    assert f"{status} {code}" in str(caught.value)


async def test_conflicting_writes_of_a_blob_are_tried_again(fake, fake_store):
    """Amazon answers 409 when two conditional writes of one key meet."""
    fake.faults.errors = [(409, "ConditionalRequestConflict"), (404, "NoSuchKey"), (404, "NoSuchKey")]
    assert await read(fake_store, await put(fake_store, b"content")) == b"content"


# Large blobs


@pytest.fixture(scope="module")
def large():
    return os.urandom(LARGE_BYTES)


@pytest.mark.parametrize("known", [True, False])
async def test_a_complete_that_fails_with_200_is_made_again(fake, fake_store, large, known):
    """S3 begins its answer before it knows the outcome, so a failure may come with status 200."""
    fake.faults.on = "POST .*uploadId"
    fake.faults.errors = [(200, "InternalError"), (200, "SlowDown")]
    digest = await put(fake_store, large, expected=Digest.of(large) if known else None)
    assert await read(fake_store, digest) == large
    assert fake.kinds.count("POST?uploadId") == 3


async def test_a_complete_that_never_succeeds_leaves_nothing(fake, fake_store, large):
    fake.faults.on = "POST .*uploadId"
    fake.faults.errors = [(200, "InternalError")] * 100
    with pytest.raises(StoreUnavailable, match="500 InternalError"):
        await put(fake_store, large)
    assert (fake.objects, fake.uploads) == ({}, {})


async def test_a_complete_whose_answer_was_lost_and_whose_upload_is_forgotten_is_done(fake, fake_store, large):
    """Not every server remembers a completed upload as S3 does."""
    fake.faults.on = "POST .*uploadId"
    fake.faults.lost_answers = 1
    fake.faults.ignored = frozenset({"remembering"})
    assert await read(fake_store, await put(fake_store, large)) == large


@pytest.mark.parametrize("status", [409, 412])
async def test_a_complete_that_meets_another_is_done(fake, fake_store, large, status):
    digest = Digest.of(large)
    async with fake_store.writer(digest) as writer:
        await writer.write(large)
        await put(fake_store, large, expected=digest)
        fake.faults.on, fake.faults.errors = "POST .*uploadId", [(status, "ConditionalRequestConflict")]
        assert await writer.commit(digest) == LARGE_BYTES
    assert fake.uploads == {}


async def test_a_complete_that_meets_another_which_fails_is_a_failure(fake, fake_store, large):
    fake.faults.on, fake.faults.errors = "POST .*uploadId", [(409, "ConditionalRequestConflict")]
    with pytest.raises(StoreUnavailable, match="try again"):
        await put(fake_store, large)
    assert (fake.objects, fake.uploads) == ({}, {})


async def test_an_upload_that_a_rule_has_aborted_meanwhile_is_a_failure(fake, fake_store, large):
    digest = Digest.of(large)
    async with fake_store.writer(digest) as writer:
        await writer.write(large)
        while not any(len(upload.parts) == 2 for upload in fake.uploads.values()):
            await asyncio.sleep(0.01)
        fake.uploads.clear()
        with pytest.raises(StoreUnavailable):
            await writer.commit(digest)
    assert fake.objects == {}


# Bytes that change on the way


async def test_wrong_bytes_of_a_small_blob_are_refused_and_sent_again(fake, fake_store):
    fake.faults.on, fake.faults.damaged_bodies = "PUT", 2
    digest = await put(fake_store, b"content")
    assert await read(fake_store, digest) == b"content"
    assert fake.kinds.count("PUT") == 3


async def test_wrong_bytes_of_a_part_are_refused_and_sent_again(fake, fake_store, large):
    fake.faults.on, fake.faults.damaged_bodies = "PUT .*partNumber", 2
    assert await read(fake_store, await put(fake_store, large)) == large
    assert fake.kinds.count("PUT?partNumber&uploadId") == 3 + 2


async def test_wrong_bytes_again_and_again_leave_nothing(fake, fake_store):
    fake.faults.on, fake.faults.damaged_bodies = "PUT", 100
    with pytest.raises(StoreUnavailable, match="BadDigest"):
        await put(fake_store, b"content")
    assert fake.objects == {}


async def test_something_of_another_size_under_a_digest_is_a_failure(fake, fake_store):
    digest = await put(fake_store, b"content")
    (place,) = fake.objects
    fake.objects[place] = b"damaged"[:3]
    with pytest.raises(StoreUnavailable, match="expected 7 bytes there, found 3"):
        await put(fake_store, b"content", digest)


# Retries


async def test_retries_end_when_most_requests_fail(fake, fake_store):
    """A server in trouble gets one request for one, once the budget of retries is spent."""
    fake.faults.errors = [(500, "InternalError")] * 10_000
    for _ in range(60):
        with pytest.raises(StoreUnavailable):
            await fake_store.stat(Digest.of(b"x"))
    fake.requests.clear()
    with pytest.raises(StoreUnavailable):
        await fake_store.stat(Digest.of(b"x"))
    assert len(fake.requests) == 1


# Credentials


async def test_credentials_that_have_expired_are_looked_for_anew(fake, fake_store, monkeypatch):
    digest = await put(fake_store, b"content")
    fake.faults.expired_keys = frozenset({ACCESS_KEY})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert await fake_store.stat(digest) == 7
    assert await put(fake_store, os.urandom(LARGE_BYTES))


async def test_a_server_that_redirects_every_request_is_refused(fake, fake_store):
    """As one at the endpoint of another region does; without the region's name, boto3 asks for it for ever."""
    fake.faults.errors = [(301, "PermanentRedirect")] * 1000
    with pytest.raises(StoreUnavailable, match="the server answered 301"):
        await fake_store.check()
    with pytest.raises(StoreUnavailable, match="failed to list records: the server answered 301 PermanentRedirect"):
        [name async for name in fake_store.names("repositories/")]
    assert fake.faults.errors, "as many requests were made as there were faults"
