"""The store in memory: for tests, and for ``memory:``. It is gone with the process."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from cache import paths, ranges
from cache.errors import BlobNotFound, DigestMismatch, RecordConflict
from cache.oci.digest import Digest
from cache.store import ABSENT, CHUNK_BYTES, Absent, BlobWriter, Record
from cache.verify import check_expected


class MemoryStore:
    """A store in this process. Also Enumerable."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._records: dict[str, Record] = {}
        self._versions = itertools.count(1)

    @property
    def url(self) -> str:
        return "memory:"

    async def check(self) -> None:
        """Returns: there is nothing that could fail."""

    async def close(self) -> None:
        """Keeps the content, so that a closed store can still be looked at."""

    async def stat(self, digest: Digest) -> int | None:
        blob = self._blobs.get(digest)
        return None if blob is None else len(blob)

    @asynccontextmanager
    async def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        blob = self._blobs.get(digest)
        if blob is None:
            raise BlobNotFound(digest)
        chunks = _chunks(blob, ranges.clip(start, stop, len(blob)))
        try:
            yield chunks
        finally:
            await chunks.aclose()

    @asynccontextmanager
    async def writer(self, expected: Digest | None = None) -> AsyncGenerator[BlobWriter, None]:
        writer = _Writer(self._blobs, expected)
        try:
            yield writer
        finally:
            writer.end()

    async def delete(self, digest: Digest) -> None:
        self._blobs.pop(digest, None)

    async def blobs(self, under: str = "", after: Digest | None = None) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in order: those that begin so, and come after that one."""
        for digest, blob in sorted(self._blobs.items()):
            if str(digest).startswith(under) and (after is None or digest > after):
                yield digest, len(blob)

    async def get(self, name: str) -> Record | None:
        return self._records.get(paths.check_record_name(name))

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        found = self._records.get(paths.check_record_name(name))
        if expected is not None and expected != (ABSENT if found is None else found.version):
            raise RecordConflict(name)
        record = Record(bytes(value), str(next(self._versions)))
        self._records[name] = record
        return record.version

    async def remove(self, name: str, expected: str | None = None) -> None:
        found = self._records.get(paths.check_record_name(name))
        if found is not None and expected not in (None, found.version):
            raise RecordConflict(name)
        self._records.pop(name, None)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix``, in no order."""
        paths.check_record_prefix(prefix)
        for name in [name for name in self._records if name.startswith(prefix)]:
            yield name


async def _chunks(blob: bytes, positions: range) -> AsyncGenerator[bytes, None]:
    for start in range(positions.start, positions.stop, CHUNK_BYTES):
        yield blob[start : min(start + CHUNK_BYTES, positions.stop)]


class _Writer:
    def __init__(self, blobs: dict[Digest, bytes], expected: Digest | None) -> None:
        self._expected = expected
        self._blobs = blobs
        self._content = bytearray()
        self._ended = False

    async def write(self, data: bytes) -> None:
        self._refuse_when_ended()
        self._content += data

    async def commit(self, digest: Digest) -> int:
        self._refuse_when_ended()
        check_expected(self._expected, digest)
        actual = Digest.of(self._content, digest.algorithm)
        if actual != digest:
            raise DigestMismatch(digest, actual, len(self._content))
        self._blobs[digest] = bytes(self._content)
        self.end()
        return len(self._blobs[digest])

    def end(self) -> None:
        self._ended = True
        self._content = bytearray()

    def _refuse_when_ended(self) -> None:
        if self._ended:
            raise RuntimeError("the blob's writer has ended: nothing more can be written")
