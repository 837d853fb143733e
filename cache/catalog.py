"""What a store knows of repositories: where tags point, and which manifests and blobs a repository has.

Blobs are shared between repositories; that one may read them through a repository is a record of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from cache import paths
from cache.errors import BlobNotFound, DamagedRecord
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.manifest import Index, Manifest
from cache.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TagEntry:
    """What a tag points to; ``checked_at`` is when the upstream last confirmed it, in unix seconds."""

    descriptor: Descriptor
    checked_at: float


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

    async def set_tag(self, namespace: str, repository: str, tag: str, entry: TagEntry) -> None:
        """Points the tag, whatever it pointed to."""
        await self._store.put(paths.tag(namespace, repository, tag), codec.encode(entry))

    async def remove_tag(self, namespace: str, repository: str, tag: str) -> None:
        """Forgets the tag; nothing happens when it is not known."""
        await self._store.remove(paths.tag(namespace, repository, tag))

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

        None when the repository does not have it, has it only as a blob, or when the bytes are gone.
        """
        descriptor = await self.member(namespace, repository, digest)
        if descriptor is None or descriptor.media_type not in media_types.MANIFESTS | media_types.INDEXES:
            return None
        try:
            async with self._store.open(digest) as chunks:
                return b"".join([chunk async for chunk in chunks]), descriptor.media_type
        except BlobNotFound:
            return None

    async def _read(self, name: str, kind: type[T]) -> T | None:
        record = await self._store.get(name)
        if record is None:
            return None
        try:
            return codec.decode(record.value, kind, "record")
        except InvalidManifest as error:
            raise DamagedRecord(name, str(error)) from error
