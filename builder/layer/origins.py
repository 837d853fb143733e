"""Where the bytes of each layer can be had, and how they come to this machine.

A build knows many layers and needs the bytes of few: a layer that is only named in the image is never fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache.disk.filesystem import FilesystemStore
from cache.oci.client import RegistryClient
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.singleflight import SingleFlight
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

    What is fetched goes to ``store``; the ``others`` are only read.
    """

    def __init__(self, store: FilesystemStore, *others: FilesystemStore) -> None:
        self._store = store
        self._stores = (store, *others)
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

    def local_path(self, layer: Layer) -> Path | None:
        """The compressed layer on this machine, or None."""
        found = (store.local_path(layer.descriptor.digest) for store in self._stores)
        return next((path for path in found if path is not None), None)

    async def fetch(self, layer: Layer) -> Path:
        """The compressed layer on this machine, fetched and verified if it was not there."""
        return self.local_path(layer) or await self._fetches.run(layer.descriptor.digest, lambda: self._fetch(layer))

    @asynccontextmanager
    async def fetching(self, layers: Iterable[Layer]) -> AsyncIterator[None]:
        """Fetches all of these at once while the block asks for one after the other; what fails, fails there."""
        tasks = [asyncio.create_task(self.fetch(layer)) for layer in layers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Ends what is still being fetched."""
        await self._fetches.close()

    async def _fetch(self, layer: Layer) -> Path:
        digest = layer.descriptor.digest
        async with self.open(layer) as chunks, self._store.writer(digest) as writer:
            async for chunk in chunks:
                await writer.write(chunk)
            await writer.commit(digest)
        path = self._store.local_path(digest)
        if path is None:
            raise AssertionError(f"layer {digest} vanished from {self._store.url} after it was committed")
        return path

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        """The compressed bytes, from this machine or from the first origin."""
        for store in self._stores:
            if store.local_path(layer.descriptor.digest) is not None:
                async with store.open(layer.descriptor.digest) as chunks:
                    yield chunks
                return
        async with self.origins(layer)[0].open(layer) as chunks:
            yield chunks
