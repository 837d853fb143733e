"""Records in a bucket, under compare-and-swap by conditional writes. Everything here blocks.

A record's version is its object's ETag. The stored form holds a random version beside the value, so equal values never
have equal ETags, and a writer whose answer was lost can tell its own write from another's.
"""

from __future__ import annotations

import secrets
from typing import Any

from cache import paths, record_format
from cache.errors import RecordConflict
from cache.s3_client import ConditionFailed, KeyMissing, S3Client
from cache.s3_writing import checksum
from cache.store import Absent, Record


class S3Records:
    """The records of a bucket."""

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._conditions_hold = False

    def get(self, name: str) -> Record | None:
        """The record, or None when there is none."""
        found = self._fetch(name)
        return None if found is None else Record(record_format.decode(name, found[0]).value, found[1])

    def put(self, name: str, value: bytes, expected: str | Absent | None) -> str:
        """Writes the record and returns its new version. Raises RecordConflict."""
        content = record_format.encode(secrets.token_hex(record_format.VERSION_BYTES), value)
        condition = {} if expected is None else _condition(expected)
        stored_name = paths.record(paths.check_record_name(name))
        try:
            return self._store(f"write record {name}", stored_name, content, condition)
        except (ConditionFailed, KeyMissing) as error:
            found = self._fetch(name)
            if found is not None and found[0] == content:
                return found[1]  # the write of an earlier attempt, whose answer was lost
            raise RecordConflict(name) from error

    def remove(self, name: str, expected: str | None) -> None:
        """Removes the record if it is there. Raises RecordConflict."""
        stored_name = paths.record(paths.check_record_name(name))
        condition = {} if expected is None else _condition(expected)
        try:
            self._client.call(
                f"remove record {name}", "delete_object", stored_name, (KeyMissing, ConditionFailed), **condition
            )
        except KeyMissing:
            return
        except ConditionFailed as error:
            if self._fetch(name) is not None:
                raise RecordConflict(name) from error

    def check(self) -> None:
        """Returns when the bucket can be written and read and honours conditions. Raises StoreUnavailable."""
        operation = "be written and read"
        self._store(operation, paths.PROBE, b"probe", {})
        reply = self._client.call(operation, "get_object", paths.PROBE)
        self._client.read(operation, reply["Body"], 1 << 10)
        if not self._conditions_hold:
            self._check_conditions()
            self._conditions_hold = True

    def _check_conditions(self) -> None:
        name = paths.temporary(secrets.token_hex(16))
        try:
            self._store("be written", name, b"first", {})
            if self._accepts(name, b"second", {"IfNoneMatch": "*"}):
                raise self._unconditional("If-None-Match")
            etag = self._store("be written", name, b"third", {})
            if self._accepts(name, b"fourth", {"IfMatch": '"0123456789abcdef0123456789abcdef"'}):
                raise self._unconditional("If-Match")
            if not self._accepts(name, b"fifth", {"IfMatch": etag}):
                raise self._unconditional("If-Match")
        finally:
            self._client.remove("be written", name)

    def _accepts(self, name: str, content: bytes, condition: dict[str, str]) -> bool:
        try:
            self._store("be written", name, content, condition)
        except (ConditionFailed, KeyMissing):
            return False
        return True

    def _unconditional(self, header: str) -> Exception:
        return self._client.failure(
            "change records safely", f"the server does not honour {header} on writes, as Amazon S3 does"
        )

    def _fetch(self, name: str) -> tuple[bytes, str] | None:
        """The stored form and the ETag."""
        operation = f"read record {name}"
        try:
            stored_name = paths.record(paths.check_record_name(name))
            reply = self._client.call(operation, "get_object", stored_name, (KeyMissing,))
        except KeyMissing:
            return None
        return self._client.read(operation, reply["Body"], reply["ContentLength"]), reply["ETag"]

    def _store(self, operation: str, stored_name: str, content: bytes, condition: dict[str, Any]) -> str:
        expect = (ConditionFailed, KeyMissing) if condition else ()
        reply = self._client.call(
            operation, "put_object", stored_name, expect, Body=content, ChecksumSHA256=checksum(content), **condition
        )
        etag: str = reply["ETag"]
        return etag


def _condition(expected: str | Absent) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if isinstance(expected, Absent) else {"IfMatch": expected}
