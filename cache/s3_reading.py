"""Objects coming out of a bucket. Everything here blocks."""

from __future__ import annotations

import threading
from typing import Any

from cache.errors import StoreUnavailable
from cache.s3_client import KeyMissing, RangeEmpty, S3Client

_READ_ATTEMPTS = 4


def object_size_bytes(client: S3Client, operation: str, name: str) -> int | None:
    """The size of what is stored under a name, or None when there is nothing."""
    try:
        return int(client.call(operation, "head_object", name, (KeyMissing,))["ContentLength"])
    except KeyMissing:
        # The answer to a HEAD has no body, and so does not tell a missing key from a missing bucket.
        return _size_of_missing(client, operation, name)


def _size_of_missing(client: S3Client, operation: str, name: str) -> int | None:
    try:
        reply = client.call(operation, "get_object", name, (KeyMissing, RangeEmpty), Range="bytes=0-0")
    except KeyMissing:
        return None
    except RangeEmpty:
        return 0
    reply["Body"].close()
    return int(reply["ContentRange"].rpartition("/")[2])


class S3OpenBlob:
    """An object being read, in one ranged GET; a broken connection is followed by another from where it broke.

    Opening one raises KeyMissing. The lock keeps a cancelled reader's ``close`` away from a thread that still reads.
    """

    def __init__(self, client: S3Client, operation: str, name: str, start: int, stop: int | None) -> None:
        self._client = client
        self._operation = operation
        self._name = name
        self._position = start
        self._stop = stop
        self._body: Any = None
        self._lock = threading.Lock()
        self._begin()

    def read(self, size_bytes: int) -> bytes:
        """The next bytes, at most so many; none at the end."""
        with self._lock:
            attempt = 1
            while True:
                try:
                    return self._read(size_bytes)
                except StoreUnavailable:
                    if attempt == _READ_ATTEMPTS:
                        raise
                attempt += 1
                self._begin_again()

    def close(self) -> None:
        """Gives up the connection."""
        with self._lock:
            self._drop()

    def _read(self, size_bytes: int) -> bytes:
        if self._body is None:
            return b""
        data = self._client.read(self._operation, self._body, size_bytes)
        self._position += len(data)
        return data

    def _begin(self) -> None:
        if self._stop is not None and self._position >= self._stop:
            if object_size_bytes(self._client, self._operation, self._name) is None:
                raise KeyMissing
            return
        last = "" if self._stop is None else self._stop - 1
        ranged = {"Range": f"bytes={self._position}-{last}"} if self._position or last != "" else {}
        try:
            reply = self._client.call(self._operation, "get_object", self._name, (KeyMissing, RangeEmpty), **ranged)
        except RangeEmpty:
            return
        self._body = reply["Body"]
        if ranged and "ContentRange" not in reply:
            self._drop()
            raise self._client.failure(self._operation, "the server takes no notice of ranges")

    def _begin_again(self) -> None:
        self._drop()
        try:
            self._begin()
        except KeyMissing as error:
            raise self._client.failure(self._operation, "it went while it was read") from error

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None
