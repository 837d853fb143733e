"""Finding out what an S3 server can do, by trying it on objects of our own under ``v1/incoming/``."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

from cache import paths
from cache.errors import StoreUnavailable
from cache.s3.answers import BytesRefused, ConditionFailed, KeyMissing, Refused, S3Answer, UploadMissing
from cache.s3.bucket import Reply, S3Bucket
from cache.s3.capabilities import AMAZON, Capabilities, Matching
from cache.s3.wire import NOTHING, Body, Bytes, checksum

_OPERATION = "be written and read"
_NO_ETAG = '"0123456789abcdef0123456789abcdef"'
_REFUSED = (ConditionFailed, KeyMissing)
_UNDONE = (*_REFUSED, UploadMissing, Refused)
_UNSUPPORTED = frozenset({400, 501})


class Probe:
    """One look at what the server behind a bucket can do. It leaves nothing behind."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket
        self._name = paths.temporary(secrets.token_hex(16))

    async def run(self) -> Capabilities:
        """The server's abilities. Raises StoreUnavailable when it cannot be used at all, or not safely."""
        try:
            takes_checksums = await self._takes_checksums()
            await self._require_ranges()
            etag = await self._require_creation()
            matching = await self._require_matching(etag)
            found = replace(AMAZON, matching=matching, takes_checksums=takes_checksums)
            return replace(
                found,
                refuses_wrong_bytes=await self._refuses_wrong_bytes(takes_checksums),
                conditional_complete=await self._conditional_complete(),
                conditional_delete=await self._conditional_delete(found),
            )
        finally:
            await self._remove()

    async def _takes_checksums(self) -> bool:
        body = Bytes(b"first")
        try:
            await self._put(body, {"x-amz-checksum-sha256": checksum(body.sha256)}, (Refused,))
        except Refused as error:
            if error.status not in _UNSUPPORTED:
                raise self._bucket.failure(_OPERATION, str(error)) from error
            await self._put(body, {}, ())
            return False
        return True

    async def _require_ranges(self) -> None:
        reply = await self._bucket.request(_OPERATION, "GET", self._name, headers={"Range": "bytes=1-2"})
        if reply.status != 206 or reply.content != b"ir":
            raise self._unsafe("answer ranges", "Range on reads")

    async def _require_creation(self) -> str:
        if await self._accepts(b"second", {"If-None-Match": "*"}) is not None:
            raise self._unsafe("change records safely", "If-None-Match on writes")
        return (await self._put(Bytes(b"third"), {}, ())).etag

    async def _require_matching(self, etag: str) -> Matching:
        if await self._accepts(b"fourth", {"If-Match": _NO_ETAG}) is None:
            for matching in (Matching.QUOTED, Matching.BARE):
                shown = replace(AMAZON, matching=matching).etag(etag)
                if await self._accepts(b"fifth", {"If-Match": shown}) is not None:
                    return matching
        raise self._unsafe("change records safely", "If-Match on writes")

    async def _refuses_wrong_bytes(self, takes_checksums: bool) -> bool:
        """Sends bytes of the same length as the ones whose digest is announced, as if they had changed on the way."""
        headers = {"x-amz-checksum-sha256": checksum(_Changed.sha256)} if takes_checksums else {}
        try:
            await self._put(_Changed(), headers, (BytesRefused, Refused))
        except (BytesRefused, Refused) as error:
            if not 400 <= error.status < 500:
                raise self._bucket.failure(_OPERATION, str(error)) from error
            return True
        return False

    async def _conditional_complete(self) -> bool:
        """Uploads one part to a key that is there."""
        key = self._bucket.location.key(self._name)
        upload = await self._bucket.call(_OPERATION, "create_multipart_upload", Key=key)
        named = {"Key": key, "UploadId": upload["UploadId"]}
        query = f"partNumber=1&uploadId={upload['UploadId']}"
        try:
            etag = await self._bucket.send_part(_OPERATION, self._name, query, {}, Bytes(b"part"))
            parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
            await self._bucket.call(
                _OPERATION, "complete_multipart_upload", _UNDONE, MultipartUpload=parts, IfNoneMatch="*", **named
            )
        except _UNDONE as error:
            with contextlib.suppress(*_UNDONE):  # gone with the Complete, on some servers
                await self._bucket.call(_OPERATION, "abort_multipart_upload", _UNDONE, **named)
            return isinstance(error, ConditionFailed)
        return False

    async def _conditional_delete(self, found: Capabilities) -> bool:
        headers = {"If-Match": found.etag(_NO_ETAG)}
        try:
            await self._bucket.request(_OPERATION, "DELETE", self._name, headers=headers, expect=_UNDONE)
        except _UNDONE as error:
            return isinstance(error, ConditionFailed)
        return False

    async def _accepts(self, content: bytes, condition: dict[str, str]) -> str | None:
        """The new ETag when the server takes a conditional write of new content, None when it refuses."""
        try:
            return (await self._put(Bytes(content), condition, _REFUSED)).etag
        except _REFUSED:
            there = await self._bucket.request(_OPERATION, "GET", self._name)
            return there.etag if there.content == content else None  # taken, but the answer was lost

    async def _put(self, body: Body, headers: dict[str, str], expect: tuple[type[S3Answer], ...]) -> Reply:
        return await self._bucket.request(_OPERATION, "PUT", self._name, headers=headers, body=body, expect=expect)

    async def _remove(self) -> None:
        await self._bucket.request(_OPERATION, "DELETE", self._name, body=NOTHING, expect=(KeyMissing,))

    def _unsafe(self, what: str, header: str) -> StoreUnavailable:
        return self._bucket.failure(what, f"the server does not honour {header}, as Amazon S3 does")


class _Changed:
    """A body that is not what its digest says."""

    size_bytes = 5
    sha256 = hashlib.sha256(b"right").digest()

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """Other bytes."""
        yield b"wrong"
