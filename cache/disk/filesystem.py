"""The store in a directory. Several processes may use one directory at a time.

File work runs on threads of the store's own, so that it neither blocks the event loop nor waits for the name look-ups
that share the loop's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from cache import paths, ranges
from cache.disk import durable
from cache.disk.blob_files import BlobFiles, IncomingBlob, OpenBlob
from cache.disk.quarantine_files import QuarantineFiles
from cache.disk.record_files import RecordFiles
from cache.errors import DamagedRecord
from cache.oci.digest import Digest
from cache.store import CHUNK_BYTES, Absent, Aside, BlobWriter, Record, StoredBlob, Unfinished

LIST_PIECE = 1000
DELETE_PIECE = 100
"""Whoever is cancelled deletes no more than so many things after that: a thread cannot be stopped."""
_THREADS = 16
P = ParamSpec("P")
T = TypeVar("T")


class FilesystemStore:
    """A store in the directory ``root``, made at the first write.

    Also LocalPaths, IncomingFiles, Enumerable, Sweepable, Scrubbable, BulkReads and BulkDeletes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._blobs = BlobFiles(self._root)
        self._quarantine = QuarantineFiles(self._root)
        self._records = RecordFiles(self._root)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="filesystem-store")

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    def exists(self) -> bool:
        """Whether anything was ever written to it. Blocks."""
        return (self._root / paths.VERSION).is_dir()

    async def check(self) -> None:
        await self._run("be written", self._probe)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    # Blobs

    async def stat(self, digest: Digest) -> int | None:
        return await self._run(f"look for {digest}", self._blobs.size_bytes, digest)

    @asynccontextmanager
    async def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        ranges.check_bounds(start, stop)
        operation = f"read {digest}"
        blob = await self._run(operation, self._blobs.open, digest)
        chunks = self._chunks(blob, operation, ranges.clip(start, stop, blob.size_bytes))
        try:
            yield chunks
        finally:
            await chunks.aclose()
            await self._run(operation, blob.close)

    async def _chunks(self, blob: OpenBlob, operation: str, positions: range) -> AsyncGenerator[bytes, None]:
        start = positions.start
        while start < positions.stop:
            chunk = await self._run(operation, blob.read, start, min(CHUNK_BYTES, positions.stop - start))
            start += len(chunk)
            yield chunk

    @asynccontextmanager
    async def writer(self, expected: Digest | None = None) -> AsyncGenerator[BlobWriter, None]:
        blob = IncomingBlob(self._blobs, expected)
        try:
            yield _Writer(self._run, blob)
        finally:
            await self._run("remove an unfinished blob", blob.discard)

    async def delete(self, digest: Digest) -> None:
        await self._run(f"delete {digest}", self._blobs.delete, digest)

    async def read_all(self, digests: Sequence[Digest], limit_bytes: int) -> Sequence[bytes | None]:
        """The first ``limit_bytes`` of each blob, None for one that is not there."""
        return await self._run("read blobs", self._blobs.read_all, digests, limit_bytes)

    async def delete_all(self, digests: Sequence[Digest]) -> None:
        """Removes the blobs."""
        for start in range(0, len(digests), DELETE_PIECE):
            await self._run("delete blobs", self._blobs.delete_all, digests[start : start + DELETE_PIECE])

    async def blobs(self, under: str = "", after: Digest | None = None) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in order: those that begin so, and come after that one."""
        for directory in await self._run("list blobs", self._blobs.directories, under, after):
            for digest, size_bytes in await self._run("list blobs", self._blobs.in_directory, directory):
                if str(digest).startswith(under) and (after is None or digest > after):
                    yield digest, size_bytes

    @asynccontextmanager
    async def open_stored(self, digest: Digest) -> AsyncGenerator[StoredBlob, None]:
        """All of the blob, and which bytes those are. Raises BlobNotFound."""
        operation = f"read {digest}"
        blob = await self._run(operation, self._blobs.open, digest)
        chunks = self._chunks(blob, operation, range(blob.size_bytes))
        try:
            yield StoredBlob(blob.version, chunks)
        finally:
            await chunks.aclose()
            await self._run(operation, blob.close)

    async def put_aside(self, digest: Digest, version: str) -> Aside:
        """Moves the blob into the quarantine if it still is that version."""
        return await self._run(f"put {digest} aside", self._quarantine.take, digest, version)

    async def remove_aside(self, digest: Digest) -> None:
        """Removes the blob from the quarantine."""
        await self._run(f"remove what was put aside of {digest}", self._quarantine.remove, digest)

    async def unfinished(self) -> Unfinished:
        """What is on its way in now, or was left behind."""
        return await self._run("look for unfinished blobs", self._blobs.unfinished)

    async def sweep(self, older_than_s: float) -> Unfinished:
        """Removes what nobody has written to for ``older_than_s`` seconds and nobody has committed."""
        return await self._run("remove what dead writers have left", self._blobs.sweep, older_than_s)

    # Records

    async def get(self, name: str) -> Record | None:
        return await self._run(f"read record {name}", self._records.get, name)

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        return await self._run(f"write record {name}", self._records.put, name, value, expected)

    async def remove(self, name: str, expected: str | None = None) -> None:
        await self._run(f"remove record {name}", self._records.remove, name, expected)

    async def get_all(self, names: Sequence[str]) -> Sequence[Record | DamagedRecord | None]:
        """For each name the record, None when there is none, or what is wrong with it."""
        return await self._run("read records", self._records.get_all, names)

    async def remove_all(self, names: Sequence[str]) -> None:
        """Removes the records, whatever they are now."""
        for start in range(0, len(names), DELETE_PIECE):
            await self._run("remove records", self._records.remove_all, names[start : start + DELETE_PIECE])

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix``, in no order."""
        found = self._records.under(paths.check_record_prefix(prefix))
        while piece := await self._run("list records", lambda: list(itertools.islice(found, LIST_PIECE))):
            for name in piece:
                yield name

    # For callers that are on a thread already: these block.

    def local_path(self, digest: Digest) -> Path | None:
        """The file that holds the blob, or None when it is not there. Never to be written to."""
        with self._translated(f"look for {digest}"):
            return self._blobs.path(digest) if self._blobs.size_bytes(digest) is not None else None

    def incoming(self) -> Path:
        """A new, empty file for a blob on its way in: to be written, then given to ``adopt`` or removed."""
        with self._translated("be written"):
            return self._blobs.incoming()

    def adopt(self, path: Path, digest: Digest, size_bytes: int) -> None:
        """Moves a finished file of ``incoming`` into place as the blob ``digest``, synced to the disk.

        The digest is taken on trust and not computed again: the caller has hashed every byte as it was written.
        Raises SizeMismatch when the file does not have the size that was hashed.
        """
        with self._translated(f"store {digest}"):
            self._blobs.adopt(path, digest, size_bytes)

    @contextmanager
    def _translated(self, operation: str) -> Iterator[None]:
        """Turns an ``OSError`` of the block into the store's own error."""
        try:
            yield
        except OSError as error:
            raise durable.store_failure(self.url, operation, error) from error

    async def _run(self, operation: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does blocking work on one of the store's threads; ``operation`` is what an error says that it was."""

        def translated_work() -> T:
            with self._translated(operation):
                return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._threads, translated_work)

    def _probe(self) -> None:
        path = self._blobs.incoming()
        try:
            path.write_bytes(b"probe")
        finally:
            path.unlink(missing_ok=True)


class _Run(Protocol):
    """``FilesystemStore._run``."""

    async def __call__(self, operation: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


class _Writer:
    """Collects whole chunks; hashing and writing them happens on a thread."""

    def __init__(self, run: _Run, blob: IncomingBlob) -> None:
        self._run = run
        self._blob = blob
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    async def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= CHUNK_BYTES:
            await self._run("write a blob", self._blob.write, self._take())

    async def commit(self, digest: Digest) -> int:
        return await self._run(f"store {digest}", self._blob.commit, self._take(), digest)

    def _take(self) -> bytes:
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending = []
        self._pending_bytes = 0
        return data
