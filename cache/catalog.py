"""What a store knows of repositories: where tags point, and which manifests and blobs a repository has.

Blobs are shared between repositories; that one may read them through a repository is a record of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cache import paths
from cache.errors import BlobNotFound, DamagedRecord, RecordConflict
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest
from cache.store import ABSENT, Absent, Store

T = TypeVar("T")
CONFLICT_TRIES = 100
CONFLICT_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class TagEntry:
    """What a tag points to; ``checked_at`` is when the upstream last confirmed it, in unix seconds.

    ``producer`` is the name of who pushed it to a hosted repository, never a secret; "" where that is not known.
    """

    descriptor: Descriptor
    checked_at: float
    producer: str = ""


class _Referrers(msgspec.Struct, frozen=True):
    """The record of what refers to one manifest."""

    manifests: tuple[Descriptor, ...] = ()


class Catalog:
    """The repositories of a store. ``namespace`` is an upstream's name, or ``paths.HOSTED``.

    Every method raises StoreUnavailable when the store fails, DamagedRecord when a record cannot be understood, and
    ValueError for names that are none.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def tag(self, namespace: str, repository: str, tag: str) -> TagEntry | None:
        """Where the tag points, or None when it is not known."""
        return await self._read(paths.tag(namespace, repository, tag), TagEntry)

    async def set_tag(
        self, namespace: str, repository: str, tag: str, entry: TagEntry, expected: Absent | None = None
    ) -> None:
        """Points the tag, whatever it pointed to; where it must not exist yet (ABSENT), raises RecordConflict."""
        await self._store.put(paths.tag(namespace, repository, tag), codec.encode(entry), expected)

    async def remove_tag(self, namespace: str, repository: str, tag: str) -> None:
        """Forgets the tag; nothing happens when it is not known."""
        await self._store.remove(paths.tag(namespace, repository, tag))

    async def remove_tag_of(self, namespace: str, repository: str, tag: str, digest: Digest) -> None:
        """Forgets the tag if it points to this manifest, and lets it be where somebody points it elsewhere meanwhile.

        Raises RecordConflict when that does not end.
        """
        name = paths.tag(namespace, repository, tag)
        await _until_settled(name, lambda: self._remove_tag_of(name, digest))

    async def _remove_tag_of(self, name: str, digest: Digest) -> None:
        record = await self._store.get(name)
        if record is not None and read_tag(name, record.value).descriptor.digest == digest:
            await self._store.remove(name, record.version)

    async def tags(self, namespace: str, repository: str) -> list[str]:
        """All tags in lexical order. This lists, so it is slow on a bucket."""
        prefix = paths.tags(namespace, repository)
        return sorted([name.removeprefix(prefix) async for name in self._store.names(prefix)])

    async def member(self, namespace: str, repository: str, digest: Digest) -> Descriptor | None:
        """The descriptor (media type, digest, size) of a manifest or blob, or None when the repository has it not."""
        return await self._read(paths.member(namespace, repository, digest), Descriptor)

    async def add_member(self, namespace: str, repository: str, descriptor: Descriptor) -> None:
        """Notes that the repository has this manifest or blob."""
        name = paths.member(namespace, repository, descriptor.digest)
        await self._store.put(name, codec.encode(descriptor))

    async def remove_member(self, namespace: str, repository: str, digest: Digest) -> None:
        """Forgets that the repository has it; the bytes stay, others may have them too."""
        await self._store.remove(paths.member(namespace, repository, digest))

    async def put_manifest(self, namespace: str, repository: str, manifest: Manifest | Index) -> None:
        """Stores the manifest's bytes, then notes that the repository has it."""
        await self.put_blob_bytes(namespace, repository, manifest.descriptor, manifest.raw)

    async def put_blob_bytes(self, namespace: str, repository: str, descriptor: Descriptor, data: bytes) -> None:
        """Stores a small blob, then notes that the repository has it. Raises DigestMismatch."""
        async with self._store.writer(descriptor.digest) as writer:
            await writer.write(data)
            await writer.commit(descriptor.digest)
        await self.add_member(namespace, repository, descriptor)

    async def manifest(self, namespace: str, repository: str, digest: Digest) -> tuple[bytes, str] | None:
        """A manifest's raw bytes and media type.

        None when the repository does not have it, has it only as a blob, or when the bytes are gone or damaged. Damaged
        ones are logged: until they are put aside they are as good as gone, and nobody may remember them.
        """
        descriptor = await self.member(namespace, repository, digest)
        if descriptor is None or not media_types.is_manifest(descriptor.media_type):
            return None
        try:
            async with self._store.open(digest) as chunks:
                raw = b"".join([chunk async for chunk in chunks])
        except BlobNotFound:
            return None
        if Digest.of(raw, digest.algorithm) != digest:
            from structlog import get_logger  # only damage pays for importing the log

            get_logger().error("manifest_damaged", repository=repository, digest=str(digest), bytes=len(raw))
            return None
        return raw, descriptor.media_type

    async def referrers(self, namespace: str, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """What has been noted to refer to a manifest; nothing when nothing does."""
        record = await self._read(paths.referrers(namespace, repository, subject), _Referrers)
        return record.manifests if record is not None else ()

    async def change_referrers(
        self,
        namespace: str,
        repository: str,
        subject: Digest,
        change: Callable[[tuple[Descriptor, ...]], tuple[Descriptor, ...]],
    ) -> None:
        """Notes what refers to a manifest now: what ``change``, a pure function, makes of what did before.

        It is applied anew to what somebody else wrote meanwhile. Raises RecordConflict when that does not end.
        """
        name = paths.referrers(namespace, repository, subject)
        await _until_settled(name, lambda: self._change_referrers(name, change))

    async def _change_referrers(
        self, name: str, change: Callable[[tuple[Descriptor, ...]], tuple[Descriptor, ...]]
    ) -> None:
        record = await self._store.get(name)
        before = _decode(name, record.value, _Referrers).manifests if record is not None else ()
        after = change(before)
        if after == before:
            return
        if after:
            value = codec.encode(_Referrers(after))
            await self._store.put(name, value, record.version if record is not None else ABSENT)
        elif record is not None:
            await self._store.remove(name, record.version)

    async def list_repository(self, namespace: str, repository: str) -> None:
        """Notes that there is such a repository; nothing happens when that is known."""
        with contextlib.suppress(RecordConflict):
            await self._store.put(paths.name(namespace, repository), b"", ABSENT)

    async def is_listed(self, namespace: str, repository: str) -> bool:
        """Whether the repository has been listed."""
        return await self._store.get(paths.name(namespace, repository)) is not None

    async def repositories(self, namespace: str) -> list[str]:
        """The names of all repositories that have been listed, in lexical order. This lists, of small records."""
        return sorted([paths.listed_name(namespace, name) async for name in self._store.names(paths.names(namespace))])

    async def _read(self, name: str, kind: type[T]) -> T | None:
        record = await self._store.get(name)
        return _decode(name, record.value, kind) if record is not None else None


def read_tag(name: str, value: bytes) -> TagEntry:
    """What the record of a tag says. Raises DamagedRecord."""
    return _decode(name, value, TagEntry)


def read_member(name: str, value: bytes) -> Descriptor:
    """What the record of a manifest or blob says. Raises DamagedRecord."""
    return _decode(name, value, Descriptor)


async def _until_settled(name: str, change: Callable[[], Awaitable[None]]) -> None:
    """Tries a compare-and-swap of a record anew while others change it. Raises RecordConflict if that does not end."""
    for _ in range(CONFLICT_TRIES):
        with contextlib.suppress(RecordConflict):
            return await change()
        await asyncio.sleep(random.random() * CONFLICT_PAUSE_S)  # noqa: S311 - spreads writers
    raise RecordConflict(name)


def _decode(name: str, value: bytes, kind: type[T]) -> T:
    try:
        return codec.decode(value, kind, "record")
    except InvalidManifest as error:
        raise DamagedRecord(name, str(error)) from error
