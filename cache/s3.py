"""The store in an S3 bucket, through boto3.

The server must honour conditional writes (``If-None-Match``, ``If-Match``): records are changed by them. ``check``
makes sure of that. boto3 blocks, so its calls run on threads of the store's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, Protocol, TypeVar

from cache import paths, ranges
from cache.errors import BlobNotFound
from cache.oci.digest import Digest
from cache.s3_client import MAX_CONNECTIONS, KeyMissing, S3Client, S3Location
from cache.s3_reading import S3OpenBlob, object_size_bytes
from cache.s3_records import S3Records
from cache.s3_writing import S3IncomingBlob
from cache.store import CHUNK_BYTES, Absent, BlobWriter, Record

PART_BYTES = 16 << 20
"""Blobs from this size on are uploaded in parts of this size."""

PARTS_IN_FLIGHT = 2
P = ParamSpec("P")
T = TypeVar("T")


class S3Store:
    """A store in a bucket. Credentials come from where the AWS tools look for them. Also Enumerable.

    A writer holds at most three parts of ``PART_BYTES``: one that fills and two under way.
    """

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._client = S3Client(location)
        self._records = S3Records(self._client)
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="s3-store")

    @property
    def url(self) -> str:
        return self._location.url

    async def check(self) -> None:
        await self._run(self._records.check)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def stat(self, digest: Digest) -> int | None:
        return await self._run(object_size_bytes, self._client, f"look for {digest}", paths.blob(digest))

    @asynccontextmanager
    async def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        ranges.check_bounds(start, stop)
        operation = f"read {digest}"
        try:
            blob = await self._run(S3OpenBlob, self._client, operation, paths.blob(digest), start, stop)
        except KeyMissing as error:
            raise BlobNotFound(digest) from error
        chunks = self._chunks(blob)
        try:
            yield chunks
        finally:
            await chunks.aclose()
            await self._run(blob.close)

    async def _chunks(self, blob: S3OpenBlob) -> AsyncGenerator[bytes, None]:
        while chunk := await self._run(blob.read, CHUNK_BYTES):
            yield chunk

    @asynccontextmanager
    async def writer(self, expected: Digest | None = None) -> AsyncGenerator[BlobWriter, None]:
        writer = _Writer(self._run, S3IncomingBlob(self._client, expected))
        try:
            yield writer
        finally:
            await writer.discard()

    async def delete(self, digest: Digest) -> None:
        await self._run(self._client.remove, f"delete {digest}", paths.blob(digest))

    async def blobs(self) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in no order."""
        async for name, size_bytes in self._list("list blobs", paths.BLOBS):
            digest = paths.blob_digest(name)
            if digest is not None:
                yield digest, size_bytes

    async def get(self, name: str) -> Record | None:
        return await self._run(self._records.get, name)

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        return await self._run(self._records.put, name, value, expected)

    async def remove(self, name: str, expected: str | None = None) -> None:
        await self._run(self._records.remove, name, expected)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix``, in no order."""
        stored_prefix = paths.record(paths.check_record_prefix(prefix))
        async for name, _ in self._list("list records", stored_prefix):
            yield name.removeprefix(paths.RECORDS)

    async def _list(self, operation: str, prefix: str) -> AsyncIterator[tuple[str, int]]:
        token = ""
        while True:
            objects, token = await self._run(self._client.list_page, operation, prefix, token)
            for found in objects:
                yield self._location.name(found["Key"]), int(found["Size"])
            if not token:
                return

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does blocking work on one of the store's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


class _Run(Protocol):
    """``S3Store._run``."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


class _Writer:
    """Collects parts, and keeps a few of them under way."""

    def __init__(self, run: _Run, blob: S3IncomingBlob) -> None:
        self._run = run
        self._blob = blob
        self._part = bytearray()
        self._sent = 0
        self._in_flight: deque[asyncio.Task[None]] = deque()

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            room_bytes = PART_BYTES - len(self._part)
            self._part += rest[:room_bytes]
            rest = rest[room_bytes:]
            if len(self._part) == PART_BYTES:
                await self._send()

    async def commit(self, digest: Digest) -> int:
        if not self._sent:
            return await self._run(self._blob.put_whole, self._part, digest)
        if self._part:
            await self._send()
        await self._wait(0)
        return await self._run(self._blob.finish, digest)

    async def discard(self) -> None:
        """Ends the writing; removes what was not committed."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        for task in self._in_flight:
            if not task.cancelled():
                task.exception()  # marks it as seen: the writer has failed of another reason already
        await self._run(self._blob.discard)

    async def _send(self) -> None:
        part, self._part = self._part, bytearray()
        self._sent += 1
        multipart = await self._run(self._blob.begin_part, part)
        await self._wait(PARTS_IN_FLIGHT - 1)
        self._in_flight.append(asyncio.create_task(self._run(multipart.send, self._sent, part)))

    async def _wait(self, most: int) -> None:
        """Returns when at most so many parts are under way; raises what a part has raised."""
        while len(self._in_flight) > most:
            # Not awaited itself: cancelling the writer must not leave a thread behind that still sends.
            await asyncio.wait([self._in_flight[0]])
            self._in_flight.popleft().result()
