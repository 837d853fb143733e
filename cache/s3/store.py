"""The store in an S3 bucket.

Objects go over aiohttp (``s3_wire``), so that no thread carries their bytes; boto3 finds endpoint and credentials and
does what is rare (``s3_session``). No request of a client makes a listing. What the server can do is found out by
``check``, which refuses one that does not honour conditional writes: records are changed by them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from cache import paths, ranges
from cache.disk import durable
from cache.errors import BlobNotFound, StoreUnavailable
from cache.oci.digest import Digest
from cache.s3 import quarantine as s3_quarantine
from cache.s3 import sweep as s3_sweep
from cache.s3.answers import KeyMissing
from cache.s3.bucket import S3Bucket
from cache.s3.capabilities import Capabilities
from cache.s3.deleting import BulkDelete
from cache.s3.location import S3Location
from cache.s3.part_intake import Intake, MemoryBudget
from cache.s3.probe import Probe
from cache.s3.reading import S3OpenBlob, object_size_bytes
from cache.s3.records import S3Records
from cache.s3.wire import Bytes
from cache.s3.writing import S3Writer
from cache.store import Absent, Aside, BlobWriter, Record, StoredBlob, Unfinished

UPLOAD_MEMORY_BYTES = 64 << 20
"""What may wait in memory to be uploaded, of all writers together; more waits in temporary files."""

_THREADS = 8
P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()


class S3Store:
    """A store in a bucket. Credentials come from where the AWS tools look for them.

    Also Enumerable, Presigned, Sweepable, Scrubbable and BulkDeletes. ``spool_dir`` is where bytes wait that memory has
    no room for; None = the temporary directory.
    """

    def __init__(self, location: S3Location, spool_dir: Path | None = None) -> None:
        self._location = location
        self._bucket = S3Bucket(location)
        self._records = S3Records(self._bucket)
        self._deletes = BulkDelete(self._bucket)
        self._spool_dir = spool_dir
        self._memory = MemoryBudget(UPLOAD_MEMORY_BYTES)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-store")
        self._probed: Capabilities | None = None

    @property
    def url(self) -> str:
        return self._location.url

    async def check(self) -> None:
        """Returns when the bucket can be written and read. The first time it also finds out what the server can do, and
        logs that. Raises StoreUnavailable, also for a server that cannot be used safely."""
        if self._probed is None:
            self._probed = self._bucket.capabilities = await Probe(self._bucket).run()
            await self._tell(self._probed)
        await self._bucket.request("be written", "PUT", paths.PROBE, body=Bytes(b"probe"))
        await self._bucket.request("be read", "GET", paths.PROBE)

    @property
    def capabilities(self) -> Capabilities | None:
        """What the server can do; None before the first ``check``."""
        return self._probed

    async def close(self) -> None:
        await self._bucket.close()
        await asyncio.to_thread(self._threads.shutdown)

    # Blobs

    async def stat(self, digest: Digest) -> int | None:
        return await object_size_bytes(self._bucket, f"look for {digest}", paths.blob(digest))

    @asynccontextmanager
    async def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        ranges.check_bounds(start, stop)
        async with self._opened(digest, start, stop) as (_, chunks):
            yield chunks

    @asynccontextmanager
    async def open_stored(self, digest: Digest) -> AsyncGenerator[StoredBlob, None]:
        """All of the blob, and which bytes those are. Raises BlobNotFound."""
        async with self._opened(digest, 0, None) as (blob, chunks):
            yield StoredBlob(blob.etag, chunks)

    @asynccontextmanager
    async def _opened(
        self, digest: Digest, start: int, stop: int | None
    ) -> AsyncGenerator[tuple[S3OpenBlob, AsyncIterator[bytes]], None]:
        blob = S3OpenBlob(self._bucket, f"read {digest}", paths.blob(digest), start, stop)
        try:
            await blob.begin()
        except KeyMissing as error:
            raise BlobNotFound(digest) from error
        chunks = blob.chunks()
        try:
            yield blob, chunks
        finally:
            await chunks.aclose()
            blob.close()

    @asynccontextmanager
    async def writer(self, expected: Digest | None = None) -> AsyncGenerator[BlobWriter, None]:
        intake = Intake(expected, self._memory, self._spool_dir)
        writer = S3Writer(self._bucket, self._run, intake, expected)
        try:
            yield writer
        finally:
            await writer.discard()

    async def delete(self, digest: Digest) -> None:
        await self._bucket.request(f"delete {digest}", "DELETE", paths.blob(digest))

    async def blobs(self, under: str = "", after: Digest | None = None) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in order: those that begin so, and come after that one."""
        past = paths.blob(after) if after is not None else ""
        async for name, found in s3_sweep.objects(self._bucket, "list blobs", paths.blobs_under(under), past):
            digest = paths.blob_digest(name)
            if digest is not None:
                yield digest, int(found["Size"])

    async def presigned_url(self, digest: Digest, expires_s: int) -> str | None:
        """A URL with which anybody can GET the blob for ``expires_s`` seconds, or until the credentials end."""
        return await self._bucket.presign(f"sign a URL for {digest}", paths.blob(digest), expires_s)

    # Records

    async def get(self, name: str) -> Record | None:
        return await self._records.get(name)

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        return await self._records.put(name, value, expected)

    async def remove(self, name: str, expected: str | None = None) -> None:
        await self._records.remove(name, expected)

    async def delete_all(self, digests: Sequence[Digest]) -> None:
        """Removes the blobs, up to a thousand with one request."""
        await self._deletes.delete("delete blobs", [paths.blob(digest) for digest in digests])

    async def remove_all(self, names: Sequence[str]) -> None:
        """Removes the records, whatever they are now, up to a thousand with one request."""
        await self._deletes.delete("remove records", [paths.record(paths.check_record_name(name)) for name in names])

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix``, in no order."""
        stored_prefix = paths.record(paths.check_record_prefix(prefix))
        async for name, found in s3_sweep.objects(self._bucket, "list records", stored_prefix):
            if found["Size"]:  # an empty object is what is left of a record
                yield name.removeprefix(paths.RECORDS)

    # Maintenance

    async def put_aside(self, digest: Digest, version: str) -> Aside:
        """Moves the blob into the quarantine if it still is that version."""
        return await s3_quarantine.put_aside(self._bucket, digest, version)

    async def remove_aside(self, digest: Digest) -> None:
        """Removes the blob from the quarantine."""
        operation = f"remove what was put aside of {digest}"
        await self._bucket.request(operation, "DELETE", paths.quarantined(digest), expect=())

    async def unfinished(self) -> Unfinished:
        """What is on its way in now, or was left behind."""
        return await s3_sweep.unfinished(self._bucket)

    async def sweep(self, older_than_s: float) -> Unfinished:
        """Removes what nobody has written to for ``older_than_s`` seconds and nobody has committed."""
        return await s3_sweep.sweep(self._bucket, datetime.fromtimestamp(time.time() - older_than_s, UTC))

    async def abort_rule(self) -> timedelta | None:
        """After how long the bucket itself aborts unfinished uploads; None when no rule does.

        Raises StoreUnavailable when the rules cannot be read: not every server has them, not every account may.
        """
        return await s3_sweep.abort_rule(self._bucket)

    async def _tell(self, found: Capabilities) -> None:
        log.info("s3_probed", store=self.url, lacks=list(found.missing()))
        try:
            rule = await self.abort_rule()
        except StoreUnavailable as error:
            log.info("s3_abort_rule_unknown", store=self.url, error=str(error))
            return
        if rule is None:
            log.warning("s3_abort_rule_missing", store=self.url, advice="AbortIncompleteMultipartUpload after 1 day")

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does blocking work on one of the store's threads."""

        def translated() -> T:
            try:
                return work(*args, **kwargs)
            except OSError as error:
                raise durable.store_failure(self.url, "keep a blob on its way in", error) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, translated)
