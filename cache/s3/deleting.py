"""Deleting many objects with one request (S3's DeleteObjects), and one by one where a server has no such thing.

The request carries Content-MD5: older servers want it and know no newer checksum, and all others take it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import partial
from html import escape

import structlog

from cache.errors import StoreUnavailable
from cache.s3.answers import S3Answer
from cache.s3.bucket import S3Bucket
from cache.s3.wire import Bytes
from cache.together import together

AT_ONCE = 1000
"""S3 takes no more in one request."""
PARALLEL = 32

log = structlog.get_logger()


class BulkDelete:
    """Deletes objects of a bucket, whatever they are now."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket
        self._is_known = True

    async def delete(self, operation: str, names: Sequence[str]) -> None:
        """Deletes the objects of these stored names; those that are not there are gone. Raises StoreUnavailable."""
        for start in range(0, len(names), AT_ONCE):
            piece = names[start : start + AT_ONCE]
            if not await self._delete_together(operation, piece):
                await together((partial(self._delete_one, operation, name) for name in piece), PARALLEL)

    async def _delete_one(self, operation: str, name: str) -> None:
        await self._bucket.request(operation, "DELETE", name)

    async def _delete_together(self, operation: str, names: Sequence[str]) -> bool:
        """Whether all are gone. What the server refuses for good, or does not do, is tried one by one."""
        if not self._is_known or len(names) == 1:
            return False
        keys = "".join(f"<Object><Key>{escape(self._bucket.location.key(name))}</Key></Object>" for name in names)
        content = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode("ascii")
        headers = {"Content-MD5": md5, "Content-Type": "application/xml"}
        try:
            reply = await self._bucket.post(operation, "delete=", headers, Bytes(content))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, S3Answer) or error.__cause__.temporary:
                raise
            self._is_known = False
            log.info("s3_bulk_delete_refused", store=self._bucket.location.url, reason=str(error.__cause__))
            return False
        return b"DeleteResult" in reply.content and b"<Error>" not in reply.content
