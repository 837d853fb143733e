"""Records in a bucket, under compare-and-swap by conditional writes.

A record's version is its object's ETag. The stored form holds a random version beside the value, so equal values never
have equal ETags, and a writer whose answer was lost can tell its own write from another's.

An empty object is no record. Where DELETE takes no conditions, a record that is removed under compare-and-swap becomes
one: its content is swapped for nothing.
"""

from __future__ import annotations

import secrets

from cache import paths, record_format
from cache.errors import RecordConflict
from cache.s3.answers import ConditionFailed, KeyMissing
from cache.s3.bucket import S3Bucket
from cache.s3.wire import Bytes, checksum
from cache.store import Absent, Record

_LOST = (ConditionFailed, KeyMissing)


class S3Records:
    """The records of a bucket."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket

    async def get(self, name: str) -> Record | None:
        """The record, or None when there is none."""
        found = await self._fetch(name)
        if found is None or not found[0]:
            return None
        return Record(record_format.decode(name, found[0]).value, found[1])

    async def put(self, name: str, value: bytes, expected: str | Absent | None) -> str:
        """Writes the record and returns its new version. Raises RecordConflict."""
        content = record_format.encode(secrets.token_hex(record_format.VERSION_BYTES), value)
        try:
            return await self._store(name, content, expected)
        except _LOST as error:
            found = await self._fetch(name)
            if found is not None and found[0] == content:
                return found[1]  # the write of an earlier attempt, whose answer was lost
            if found is None or found[0] or not isinstance(expected, Absent):
                raise RecordConflict(name) from error
            return await self._put_over_nothing(name, content, found[1])

    async def remove(self, name: str, expected: str | None) -> None:
        """Removes the record if it is there. Raises RecordConflict."""
        if expected is not None and not self._bucket.capabilities.conditional_delete:
            await self._empty(name, expected)
            return
        headers = {} if expected is None else {"If-Match": self._bucket.capabilities.etag(expected)}
        try:
            await self._bucket.request(f"remove record {name}", "DELETE", _stored(name), headers=headers, expect=_LOST)
        except KeyMissing:
            return
        except ConditionFailed as error:
            if await self.get(name) is not None:
                raise RecordConflict(name) from error

    async def _put_over_nothing(self, name: str, content: bytes, etag: str) -> str:
        """Writes where an emptied record was."""
        try:
            return await self._store(name, content, etag)
        except _LOST as error:
            found = await self._fetch(name)
            if found is not None and found[0] == content:
                return found[1]
            raise RecordConflict(name) from error

    async def _empty(self, name: str, expected: str) -> None:
        try:
            await self._store(name, b"", expected)
        except _LOST as error:
            if await self.get(name) is not None:
                raise RecordConflict(name) from error

    async def _fetch(self, name: str) -> tuple[bytes, str] | None:
        """The stored form and the ETag."""
        try:
            reply = await self._bucket.request(f"read record {name}", "GET", _stored(name), expect=(KeyMissing,))
        except KeyMissing:
            return None
        return reply.content, reply.etag

    async def _store(self, name: str, content: bytes, expected: str | Absent | None) -> str:
        body = Bytes(content)
        headers = {"If-None-Match": "*"} if isinstance(expected, Absent) else {}
        if isinstance(expected, str):
            headers["If-Match"] = self._bucket.capabilities.etag(expected)
        if self._bucket.capabilities.takes_checksums:
            headers["x-amz-checksum-sha256"] = checksum(body.sha256)
        expect = _LOST if expected is not None else ()
        operation = f"write record {name}"
        reply = await self._bucket.request(operation, "PUT", _stored(name), headers=headers, body=body, expect=expect)
        return reply.etag


def _stored(name: str) -> str:
    return paths.record(paths.check_record_name(name))
