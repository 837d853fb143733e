"""What a store can do: verified content by digest, and small records under compare-and-swap.

Only the contracts live here. A store holds two namespaces that never mix:

- **blobs**: immutable bytes under their digest. Nothing is visible before its digest has been verified.
- **records**: small mutable values under a name of ours (``cache.paths``), changed only by compare-and-swap.

Every method raises ``StoreUnavailable`` when the store itself fails (``StoreFull`` when it is full); that is never
reported as absence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

from cache.errors import DamagedRecord
from cache.oci.digest import Digest

CHUNK_BYTES = 1 << 20
"""The size of the pieces in which blobs are read and written."""


class BlobWriter(Protocol):
    """A blob on its way in. Invisible until ``commit``; gone when its context ends without one."""

    async def write(self, data: bytes) -> None:
        """Appends ``data``."""

    async def commit(self, digest: Digest) -> int:
        """Makes the blob visible under ``digest`` and returns its size in bytes.

        Raises DigestMismatch when the bytes written have another digest; nothing is stored then. Committing content
        that is already there is not an error. Nothing may be written after a commit.
        """


class BlobStore(Protocol):
    """Verified content under its digest."""

    async def stat(self, digest: Digest) -> int | None:
        """The blob's size in bytes, or None when it is not there."""

    def open(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes ``start`` to ``stop`` (exclusive; None = to the end) in chunks.

        A range that goes past the end gives what there is, perhaps nothing. Raises BlobNotFound on entering, and
        ValueError for a negative bound.
        """

    def writer(self, expected: Digest | None = None) -> AbstractAsyncContextManager[BlobWriter]:
        """A new blob.

        Whoever knows beforehand which digest will be committed says so in ``expected``: it saves some stores a copy
        or a second reading. The commit must name the same one then (ValueError).
        """

    async def delete(self, digest: Digest) -> None:
        """Removes the blob; nothing happens when it is not there."""


class Absent(Enum):
    """The version of a record that does not exist."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Record:
    """A record's value and the version that a compare-and-swap must name."""

    value: bytes
    version: str


class Records(Protocol):
    """Small mutable values; names are relative paths made by ``cache.paths``."""

    async def get(self, name: str) -> Record | None:
        """The record, or None when there is none. Raises DamagedRecord."""

    async def put(self, name: str, value: bytes, expected: str | Absent | None = None) -> str:
        """Writes the record and returns its new version.

        ``expected`` is the version that the record must have now, ABSENT when there must be none, and None to write
        whatever is there. Raises RecordConflict when it has another.
        """

    async def remove(self, name: str, expected: str | None = None) -> None:
        """Removes the record; nothing happens when it is not there. Raises RecordConflict as ``put``."""

    def names(self, prefix: str) -> AsyncIterator[str]:
        """The names of all records under ``prefix`` (a path that ends in ``/``), in no order.

        Not for a request's path: this lists.
        """


class Store(BlobStore, Records, Protocol):
    """Both namespaces of one store."""

    @property
    def url(self) -> str:
        """Where the store is, as a person would write it; never with credentials."""

    async def check(self) -> None:
        """Returns when the store can be read and written now. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Gives back connections and threads."""


@runtime_checkable
class LocalPaths(Protocol):
    """A store whose blobs are files, so that a server can send them without reading them."""

    def local_path(self, digest: Digest) -> Path | None:
        """The file that holds the blob, never to be written to; None when there is none: ``open`` may have it."""


@runtime_checkable
class IncomingFiles(Protocol):
    """A store whose blobs are files: who hashes what he writes can write a blob where it will stay. These block."""

    def incoming(self) -> Path:
        """A new, empty file for a blob on its way in: to be written, then given to ``adopt`` or removed.

        Files that were left behind are removed by the store itself, some day.
        """

    def adopt(self, path: Path, digest: Digest, size_bytes: int) -> None:
        """Moves a finished file of ``incoming`` into place as the blob ``digest``, synced to the disk.

        The digest is taken on trust: the caller has hashed every byte as it was written. Nothing may be written to the
        file any more. Raises SizeMismatch when the file does not have the size that was hashed.
        """


@runtime_checkable
class Enumerable(Protocol):
    """A store that can list its blobs (for maintenance, never on a request's path)."""

    def blobs(self, under: str = "", after: Digest | None = None) -> AsyncIterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in the order of their digests.

        Only those whose digest begins with ``under`` (``sha256:ab``), and that come after ``after``.
        """


@runtime_checkable
class BulkReads(Protocol):
    """A store that reads many small things faster together. What ``cache.bulk`` asks of it."""

    async def get_all(self, names: Sequence[str]) -> Sequence[Record | DamagedRecord | None]:
        """For each name the record, None when there is none, or what is wrong with it."""

    async def read_all(self, digests: Sequence[Digest], limit_bytes: int) -> Sequence[bytes | None]:
        """The first ``limit_bytes`` of each blob, None for one that is not there."""


@runtime_checkable
class BulkDeletes(Protocol):
    """A store that removes many things in fewer requests. What ``cache.bulk`` asks of it."""

    async def delete_all(self, digests: Sequence[Digest]) -> None:
        """Removes the blobs; nothing happens for those that are not there."""

    async def remove_all(self, names: Sequence[str]) -> None:
        """Removes the records, whatever they are now; nothing happens for those that are not there."""


@runtime_checkable
class Presigned(Protocol):
    """A store that can let others fetch a blob from where it lies."""

    async def presigned_url(self, digest: Digest, expires_s: int) -> str | None:
        """A URL with which anybody can GET the blob for ``expires_s`` seconds at the most; None when there can be none.

        It is as secret as the blob, is for GET alone (with or without a Range), and says nothing of whether the blob is
        there.
        """


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Multipart uploads that were not completed, and files or objects on their way in."""

    uploads: int = 0
    files: int = 0
    files_bytes: int = 0


@runtime_checkable
class Sweepable(Protocol):
    """A store in which writers that die leave something behind. For maintenance: this lists."""

    async def unfinished(self) -> Unfinished:
        """What is on its way in now, or was left behind."""

    async def sweep(self, older_than_s: float) -> Unfinished:
        """Removes what nobody has written to for ``older_than_s`` seconds and nobody has committed; returns that."""


@runtime_checkable
class AbortRule(Protocol):
    """A store whose server can abort unfinished uploads by itself."""

    async def abort_rule(self) -> timedelta | None:
        """After how long it does; None when no rule says so. Raises StoreUnavailable when that cannot be found out."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as it lies in a store. ``version`` tells these bytes from others that come under the same name."""

    version: str
    chunks: AsyncIterator[bytes]


class Aside(Enum):
    """What became of a blob that was to be put aside."""

    KEPT = "kept"
    """It is in the quarantine, for whoever wants to look at it."""
    DELETED = "deleted"
    """It is gone: the server could not copy it."""
    CHANGED = "changed"
    """Nothing was done: it went, or other bytes came in its place."""


@runtime_checkable
class Scrubbable(Enumerable, Protocol):
    """A store whose blobs can be read where they lie, past any copy of them, and put aside when they are damaged."""

    def open_stored(self, digest: Digest) -> AbstractAsyncContextManager[StoredBlob]:
        """All of the blob. Raises BlobNotFound."""

    async def put_aside(self, digest: Digest, version: str) -> Aside:
        """Moves the blob into the quarantine, so that nobody reads it any more, if it still is that version."""

    async def remove_aside(self, digest: Digest) -> None:
        """Removes the blob from the quarantine; nothing happens when it is not there."""


@runtime_checkable
class Believing(Protocol):
    """A store that believes for a while that a blob is there, because it was there when it last looked."""

    def doubt(self, digest: Digest | None) -> None:
        """Sees to it that it looks again for a blob, None = for each."""


@runtime_checkable
class Copying(Protocol):
    """A store that holds copies of another one's blobs, nearer by. A copy can be lost at any time."""

    def copies(self) -> list[Digest]:
        """What it has a copy of now."""

    def open_copy(self, digest: Digest) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """All of a copy. Raises BlobNotFound, StoreUnavailable."""

    async def drop_copy(self, digest: Digest) -> None:
        """Removes a copy."""
