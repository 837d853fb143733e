"""Blobs on their way into a bucket.

A blob smaller than a part is one conditional PUT with its SHA-256, so that S3 itself refuses other bytes. A larger one
is a multipart upload to the blob's own key, with a few parts under way at once, and completed only when the whole has
proved to have the digest.

When the digest is not known beforehand there is no key to upload to. Then the parts wait in a temporary file on the
local disk until it is, and go up in parallel. The other way, an upload to a temporary key and a copy inside the bucket,
costs a request for every part of the copy, its time before the client gets its answer, and the whole upload even when
the bucket has the blob already; here that costs one request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

from cache import paths
from cache.errors import CacheError, StoreUnavailable
from cache.oci.digest import Digest
from cache.s3.answers import ConditionFailed, UploadMissing
from cache.s3.bucket import S3Bucket
from cache.s3.part_intake import READ_BYTES, Data, Intake, Part
from cache.s3.reading import object_size_bytes
from cache.s3.wire import Body, checksum
from cache.store import CHUNK_BYTES

CONTENT_TYPE = "application/octet-stream"
PARTS_IN_FLIGHT = 3
"""Of one writer, beside the one that fills."""

PUT_ATTEMPTS = 3
LOOKS = 3
LOOK_PAUSE_S = 0.1
DISCARD_WAIT_S = 10.0

P = ParamSpec("P")
T = TypeVar("T")


class Run(Protocol):
    """Does blocking work on a thread."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


class _PartBody:
    """A part as the body of a request."""

    def __init__(self, run: Run, part: Part) -> None:
        self._run = run
        self._part = part
        self.size_bytes = part.size_bytes
        self.sha256 = part.sha256

    async def chunks(self) -> AsyncIterator[Data]:
        """Its bytes, from memory or from the file."""
        if (held := self._part.in_memory) is not None:
            for chunk in held:
                view = memoryview(chunk)
                for start in range(0, len(view), READ_BYTES):
                    yield view[start : start + READ_BYTES]
            return
        for start in range(0, self.size_bytes, READ_BYTES):
            yield await self._run(self._part.read, start, READ_BYTES)


class Multipart:
    """A multipart upload of a blob."""

    def __init__(self, bucket: S3Bucket, digest: Digest) -> None:
        self._bucket = bucket
        self._operation = f"store {digest}"
        self._name = paths.blob(digest)
        self._key = bucket.location.key(self._name)
        self._checks = bucket.capabilities.takes_checksums
        self._id = ""
        self._parts: dict[int, dict[str, Any]] = {}

    async def begin(self) -> None:
        """Opens the upload."""
        checks: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if self._checks else {}
        reply = await self._bucket.call(
            self._operation, "create_multipart_upload", Key=self._key, ContentType=CONTENT_TYPE, **checks
        )
        self._id = reply["UploadId"]

    async def send(self, number: int, body: Body) -> None:
        """Uploads a part; several may be under way at once."""
        sums = {"ChecksumSHA256": checksum(body.sha256)} if self._checks else {}
        headers = {"x-amz-checksum-sha256": sums["ChecksumSHA256"]} if self._checks else {}
        query = f"partNumber={number}&uploadId={quote(self._id, safe='')}"
        etag = await self._bucket.send_part(self._operation, self._name, query, headers, body)
        self._parts[number] = {"PartNumber": number, "ETag": etag, **sums}

    async def complete(self, size_bytes: int) -> None:
        """Makes the object visible, unless it is there already. Raises StoreUnavailable."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if self._bucket.capabilities.conditional_complete else {}
        parts = {"Parts": [self._parts[number] for number in sorted(self._parts)]}
        try:
            await self._bucket.call(
                self._operation,
                "complete_multipart_upload",
                (ConditionFailed, UploadMissing),
                Key=self._key,
                UploadId=self._id,
                MultipartUpload=parts,
                **condition,
            )
            self._id = ""
        except (ConditionFailed, UploadMissing, StoreUnavailable) as error:
            # Somebody else stored it; or an earlier attempt of this very call did, and its answer was lost.
            if not await stored(self._bucket, self._operation, self._name, size_bytes, error):
                if isinstance(error, StoreUnavailable):
                    raise
                raise self._bucket.failure(self._operation, "another write came between, try again") from error

    async def abort(self) -> None:
        """Removes the parts, as far as the server lets us: the rest is for the sweep and the bucket's own rules."""
        if self._id:
            with contextlib.suppress(CacheError, UploadMissing):
                await self._bucket.call(
                    self._operation, "abort_multipart_upload", (UploadMissing,), Key=self._key, UploadId=self._id
                )
            self._id = ""


async def stored(bucket: S3Bucket, operation: str, name: str, size_bytes: int, error: Exception) -> bool:
    """True when the object is there after a write that failed with ``error``. When that met another write, which may be
    going on this very moment, it is looked for a few times.

    Raises StoreUnavailable, also when something of another size is there.
    """
    looks = 1 if isinstance(error, StoreUnavailable) else LOOKS
    for look in range(looks):
        found_bytes = await object_size_bytes(bucket, operation, name)
        if found_bytes == size_bytes:
            return True
        if found_bytes is not None:
            raise bucket.failure(operation, f"expected {size_bytes} bytes there, found {found_bytes}: remove it")
        if look < looks - 1:
            await asyncio.sleep(LOOK_PAUSE_S)
    return False


class S3Writer:
    """A blob on its way in. Hashing and the temporary file are a thread's, the bytes on the wire the event loop's."""

    def __init__(self, bucket: S3Bucket, run: Run, intake: Intake, expected: Digest | None) -> None:
        self._bucket = bucket
        self._run = run
        self._intake = intake
        self._expected = expected
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._upload: Multipart | None = None
        self._sent = 0
        self._in_flight: deque[asyncio.Task[None]] = deque()

    async def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= CHUNK_BYTES:
            await self._take_in()

    async def commit(self, digest: Digest) -> int:
        await self._take_in()
        parts = await self._run(self._intake.finish, digest)
        size_bytes = self._intake.size_bytes
        if not self._sent and len(parts) == 1:
            await self._put_whole(digest, parts[0])
        elif self._sent or not await self._is_there(digest):
            for part in parts[self._sent :]:
                await self._send(digest, part)
            await self._wait(0)
            if self._upload is not None:
                await self._upload.complete(size_bytes)
        return size_bytes

    async def _is_there(self, digest: Digest) -> bool:
        """True when somebody has stored the very same content already."""
        found_bytes = await object_size_bytes(self._bucket, f"store {digest}", paths.blob(digest))
        return found_bytes == self._intake.size_bytes

    async def discard(self) -> None:
        """Ends the writing; removes what was not committed."""
        if self._in_flight:
            # An abort does not reach parts that are still on their way: they would lie there for ever.
            await asyncio.wait(self._in_flight, timeout=DISCARD_WAIT_S)
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        if self._upload is not None:
            await self._upload.abort()
        await self._run(self._intake.discard)

    async def _take_in(self) -> None:
        data, self._pending, self._pending_bytes = self._pending, [], 0
        filled = await self._run(self._intake.add, data)
        if self._expected is not None:
            for part in filled:
                await self._send(self._expected, part)

    async def _send(self, digest: Digest, part: Part) -> None:
        if self._upload is None:
            self._upload = Multipart(self._bucket, digest)
            await self._upload.begin()
        await self._wait(PARTS_IN_FLIGHT - 1)
        self._sent = part.number
        self._in_flight.append(asyncio.create_task(self._send_one(self._upload, part)))

    async def _send_one(self, upload: Multipart, part: Part) -> None:
        await upload.send(part.number, _PartBody(self._run, part))
        part.release()

    async def _wait(self, most: int) -> None:
        """Returns when at most so many parts are under way; raises what a part has raised."""
        while len(self._in_flight) > most:
            await asyncio.wait([self._in_flight[0]])
            self._in_flight.popleft().result()

    async def _put_whole(self, digest: Digest, part: Part) -> None:
        operation, name = f"store {digest}", paths.blob(digest)
        headers = {"If-None-Match": "*", "Content-Type": CONTENT_TYPE}
        if self._bucket.capabilities.takes_checksums:
            headers["x-amz-checksum-sha256"] = checksum(part.sha256)
        body = _PartBody(self._run, part)
        for _ in range(PUT_ATTEMPTS):
            try:
                await self._bucket.request(
                    operation, "PUT", name, headers=headers, body=body, expect=(ConditionFailed,)
                )
                return
            except (ConditionFailed, StoreUnavailable) as error:
                # There already; or an earlier attempt of this very write had put it there, and its answer was lost.
                if await stored(self._bucket, operation, name, part.size_bytes, error):
                    return
                if isinstance(error, StoreUnavailable):
                    raise
        raise self._bucket.failure(operation, "other writes came between, try again")
