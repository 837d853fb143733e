"""Image → registry. A blob that the registry has, or can mount or copy itself, is never sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from builder.errors import BuildError
from builder.events import Pushed
from builder.image import Image
from builder.layers import BuildLayers, RegistryOrigin
from cache.errors import CacheError
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.errors import OCIError
from cache.oci.layer import Layer
from cache.oci.reference import Reference

PARALLEL_BLOBS = 4


@dataclass(frozen=True, slots=True)
class Destination:
    """A place to push to, and the client that reaches it."""

    reference: Reference
    client: RegistryClient

    @property
    def repository(self) -> str:
        return self.reference.repository


async def check_permission(destination: Destination) -> None:
    """Returns when the registry would take an upload; nothing is left behind. Raises BuildError."""
    try:
        location = await destination.client.start_upload(destination.repository)
        await destination.client.cancel_upload(location)
    except OCIError as error:
        raise BuildError(f"cannot push to {destination.reference}: {error}") from error


async def push_image(image: Image, destination: Destination, layers: BuildLayers) -> Pushed:
    """Puts blobs, config and manifest there, in this order, and says what it moved. Raises BuildError."""
    started_s = time.monotonic()
    try:
        sent_bytes = await _push_layers(image, destination, layers)
        sent_bytes.append(await _push_config(image, destination))
        client, manifest = destination.client, image.manifest
        await client.put_manifest(
            destination.repository, destination.reference.identifier, manifest.raw, manifest.media_type
        )
    except (OCIError, CacheError) as error:
        raise BuildError(f"cannot push to {destination.reference}: {error}") from error
    uploaded = [size for size in sent_bytes if size is not None]
    return Pushed(
        destination=str(destination.reference),
        digest=str(manifest.digest),
        uploaded_bytes=sum(uploaded),
        uploaded_blobs=len(uploaded),
        reused_blobs=len(sent_bytes) - len(uploaded),
        seconds=time.monotonic() - started_s,
    )


async def _push_layers(image: Image, destination: Destination, layers: BuildLayers) -> list[int | None]:
    limit = asyncio.Semaphore(PARALLEL_BLOBS)

    async def push(layer: Layer) -> int | None:
        async with limit:
            return await _push_layer(layer, destination, layers)

    held = {layer.descriptor.digest: layer for layer in image.layers if not _is_foreign(layer)}
    return list(await asyncio.gather(*(push(layer) for layer in held.values())))


def _is_foreign(layer: Layer) -> bool:
    return media_types.is_foreign_layer(layer.descriptor.media_type)


async def _push_layer(layer: Layer, destination: Destination, layers: BuildLayers) -> int | None:
    """The bytes that were sent, or None when the registry had the layer or got it by itself."""
    client, repository, descriptor = destination.client, destination.repository, layer.descriptor
    if await _mount(layer, destination, layers) or await client.head_blob(repository, descriptor.digest) is not None:
        layers.add(layer, RegistryOrigin(client, repository))
        return None
    await client.upload_blob(repository, descriptor.digest, descriptor.size, lambda: layers.open(layer))
    layers.add(layer, RegistryOrigin(client, repository))
    return descriptor.size


async def _mount(layer: Layer, destination: Destination, layers: BuildLayers) -> bool:
    """True when another repository of the same registry had the layer and the registry mounted it."""
    for origin in layers.origins(layer):
        if not isinstance(origin, RegistryOrigin) or origin.client.base_url != destination.client.base_url:
            continue
        if origin.repository != destination.repository:
            return await destination.client.mount_blob(
                destination.repository, layer.descriptor.digest, origin.repository
            )
    return False


async def _push_config(image: Image, destination: Destination) -> int | None:
    config = image.manifest.config
    if await destination.client.head_blob(destination.repository, config.digest) is not None:
        return None

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[bytes]]:
        yield _one_chunk(image.config)

    await destination.client.upload_blob(destination.repository, config.digest, config.size, source)
    return config.size


async def _one_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data
