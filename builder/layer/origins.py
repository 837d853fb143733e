"""Where the bytes of each layer can be had, and how they come to this machine.

A build knows many layers and needs the bytes of few: a layer that is only named in the image is never fetched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder import events
from builder.errors import BuildError
from builder.layer.chunk_stream import ChunkStream, streamed
from cache.disk.filesystem import FilesystemStore
from cache.errors import CacheError
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.singleflight import SingleFlight
from cache.store import BlobWriter
from cache.verify import verified


@dataclass(frozen=True, slots=True)
class RegistryOrigin:
    """A repository that holds the layer; a registry can mount it from there."""

    client: RegistryClient
    repository: str

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        """The compressed bytes, verified as they pass."""
        descriptor = layer.descriptor
        async with self.client.open_blob(self.repository, descriptor.digest) as reply:
            yield verified(reply.chunks, descriptor.digest, descriptor.size)


class Origin(Protocol):
    """Somewhere that the compressed bytes of a layer can be read from."""

    def open(self, layer: Layer) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class BuildLayers:
    """The layers that a build has met, each with its origins; a local copy comes first.

    What is fetched goes to ``store``; the ``others`` are only read, and a copy there is digested before it is used.
    ``keeps`` says of an origin whether its layers go to ``store`` too when they are only streamed.
    """

    def __init__(
        self,
        store: FilesystemStore,
        *others: FilesystemStore,
        keeps: Callable[[Origin], bool] = lambda _: False,
        listen: events.Listener = lambda _: None,
    ) -> None:
        self._store = store
        self._keeps = keeps
        self._listen = listen
        self._others = others
        self._whole: dict[tuple[str, Digest], bool] = {}
        self._origins: dict[Digest, list[Origin]] = {}
        self._fetches: SingleFlight[Digest, Path] = SingleFlight()

    @property
    def store(self) -> FilesystemStore:
        """Where layers that were built or fetched lie."""
        return self._store

    def add(self, layer: Layer, origin: Origin) -> None:
        """Notes that ``origin`` has the layer."""
        known = self._origins.setdefault(layer.descriptor.digest, [])
        if origin not in known:
            known.append(origin)

    def origins(self, layer: Layer) -> tuple[Origin, ...]:
        """Everything that has the layer, apart from this machine."""
        return tuple(self._origins.get(layer.descriptor.digest, ()))

    async def _holder(self, layer: Layer) -> FilesystemStore | None:
        """The first of our stores with a copy that can be used: disks fill up, and volumes get cut and age."""
        digest = layer.descriptor.digest
        path = self._store.local_path(digest)
        if path is not None and path.stat().st_size == layer.descriptor.size:
            return self._store
        for store in self._others:
            if store.local_path(digest) is not None and await self._is_whole(store, layer.descriptor):
                return store
        return None

    async def _is_whole(self, store: FilesystemStore, descriptor: Descriptor) -> bool:
        """Whether the copy is what it is called; read once, and told where it is not."""
        key = store.url, descriptor.digest
        if key not in self._whole:
            fault = await _fault(store, descriptor)
            if fault is not None and key not in self._whole:
                self._listen(events.Warned(f"{store.url} has a damaged layer, which is not used: {fault}"))
            self._whole[key] = fault is None
        return self._whole[key]

    async def fetch(self, layer: Layer) -> Path:
        """The compressed layer on this machine, fetched and verified if it was not there."""
        digest = layer.descriptor.digest
        store = await self._holder(layer)
        held = store.local_path(digest) if store is not None else None
        return held or await self._fetches.run(digest, lambda: self._fetch(layer))

    @asynccontextmanager
    async def stream(self, layer: Layer) -> AsyncIterator[ChunkStream]:
        """The compressed layer as it comes, verified; it is kept too where its bytes will be asked for again."""
        digest = layer.descriptor.digest
        async with AsyncExitStack() as stack:
            chunks = await stack.enter_async_context(self.open(layer))
            if await self._holder(layer) is None and self._keeps(self.origins(layer)[0]):
                writer = await stack.enter_async_context(self._store.writer(digest))
                chunks = _written(chunks, writer, digest)
            yield await stack.enter_async_context(streamed(chunks))

    async def close(self) -> None:
        """Ends what is still being fetched."""
        await self._fetches.close()

    async def _fetch(self, layer: Layer) -> Path:
        digest = layer.descriptor.digest
        async with self.open(layer) as chunks, self._store.writer(digest) as writer:
            async for _ in _written(chunks, writer, digest):
                pass
        path = self._store.local_path(digest)
        if path is None:
            raise AssertionError(f"layer {digest} vanished from {self._store.url} after it was committed")
        return path

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        """The compressed bytes, from this machine or from the first origin. Raises BuildError when there is neither."""
        store, origins = await self._holder(layer), self.origins(layer)
        if store is None and not origins:
            raise BuildError(
                f"layer {layer.descriptor.digest} is nowhere whole: crossdock cache verify finds what is damaged"
            )
        held = store.open(layer.descriptor.digest) if store is not None else origins[0].open(layer)
        async with held as chunks:
            yield chunks


async def _fault(store: FilesystemStore, descriptor: Descriptor) -> CacheError | None:
    """What is wrong with the store's copy."""
    try:
        async with store.open(descriptor.digest) as chunks:
            async for _ in verified(chunks, descriptor.digest, descriptor.size):
                pass
    except CacheError as error:
        return error
    return None


async def _written(chunks: AsyncIterator[bytes], writer: BlobWriter, digest: Digest) -> AsyncIterator[bytes]:
    """``chunks``, while they are stored; the end comes when they are."""
    async for chunk in chunks:
        await writer.write(chunk)
        yield chunk
    await writer.commit(digest)
