"""Objects coming out of a bucket."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from cache.s3.answers import KeyMissing, RangeEmpty, ServerFailed
from cache.s3.bucket import S3Bucket
from cache.s3.wire import S3Reply

_RESUMES = 4
"""How often a read is taken up again without a byte in between."""


async def object_size_bytes(bucket: S3Bucket, operation: str, name: str) -> int | None:
    """The size of what is stored under a name, or None when there is nothing.

    A GET of one byte and no HEAD: it costs the same, and a HEAD's 404 has no body that tells a missing key from a
    missing bucket.
    """
    try:
        reply = await bucket.open(operation, name, {"Range": "bytes=0-0"}, (KeyMissing, RangeEmpty))
    except KeyMissing:
        return None
    except RangeEmpty:
        return 0
    try:
        total = reply.headers.get("Content-Range", "").rpartition("/")[2] or reply.headers.get("Content-Length", "")
        if reply.status == 206:
            await reply.whole()  # its one byte, so that the connection can be used again
    except ServerFailed:
        pass  # the size is known all the same
    finally:
        reply.close()
    if not total.isdecimal():
        raise bucket.failure(operation, "the server does not say how long the object is")
    return int(total)


class S3OpenBlob:
    """An object being read, in one ranged GET; a broken connection is followed by another from where it broke."""

    def __init__(self, bucket: S3Bucket, operation: str, name: str, start: int, stop: int | None) -> None:
        self._bucket = bucket
        self._operation = operation
        self._name = name
        self._position = start
        self._stop = stop
        self._reply: S3Reply | None = None
        self.etag = ""
        """Which bytes it reads; "" before the server has answered."""

    async def begin(self) -> None:
        """Asks for the bytes from the present position on. Raises KeyMissing."""
        if self._stop is not None and self._position >= self._stop:
            if await object_size_bytes(self._bucket, self._operation, self._name) is None:
                raise KeyMissing(404, "NoSuchKey")
            return
        last = "" if self._stop is None else self._stop - 1
        ranged = {"Range": f"bytes={self._position}-{last}"} if self._position or last != "" else {}
        try:
            self._reply = await self._bucket.open(self._operation, self._name, ranged, (KeyMissing, RangeEmpty))
        except RangeEmpty:
            return
        self.etag = self._reply.headers.get("ETag", "")
        if ranged and self._reply.status != 206:
            self.close()
            raise self._bucket.failure(self._operation, "the server takes no notice of ranges")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises StoreUnavailable."""
        resumes = 0
        while self._reply is not None:
            try:
                data = await self._reply.read()
            except ServerFailed as error:
                resumes += 1
                if resumes == _RESUMES:
                    raise self._bucket.failure(self._operation, str(error)) from error
                await self._begin_again()
                continue
            if not data:
                return
            resumes = 0
            self._position += len(data)
            yield data

    def close(self) -> None:
        """Gives up the connection."""
        if self._reply is not None:
            self._reply.close()
        self._reply = None

    async def _begin_again(self) -> None:
        self.close()
        try:
            await self.begin()
        except KeyMissing as error:
            raise self._bucket.failure(self._operation, "it went while it was read") from error
