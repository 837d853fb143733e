"""Image → registry. A blob that the registry has, or can mount or copy itself, is never sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from builder.errors import BuildError
from builder.events import Pushed, Warned
from builder.layer.origins import BuildLayers, RegistryOrigin
from builder.options import PushOptions
from builder.outputs.image import Image, ImageSet
from cache.errors import CacheError
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.errors import OCIError, RegistryError
from cache.oci.layer import Layer
from cache.oci.manifest import Index, Manifest
from cache.oci.reference import Reference

PARALLEL_BLOBS = 4
_MOST_WAIT_S = 30.0


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


async def push_images(
    images: ImageSet, destination: Destination, layers: BuildLayers, options: PushOptions
) -> tuple[Pushed | Warned, ...]:
    """Puts blobs, configs and manifests there, in this order, and says what it moved. Raises BuildError.

    The name comes last, so that it never stands for half of something. After a temporary failure all is tried again
    as often as the options say; what has arrived is not sent twice.
    """
    for failed in range(options.retries + 1):
        try:
            return await _push(images, destination, layers, options)
        except (OCIError, CacheError) as error:
            temporary = isinstance(error, RegistryError) and error.temporary
            if failed == options.retries or not temporary:
                raise BuildError(f"cannot push to {destination.reference}: {error}") from error
            await asyncio.sleep(min(2.0**failed, _MOST_WAIT_S))
    raise AssertionError("the last try either returns or raises")


async def _push(
    images: ImageSet, destination: Destination, layers: BuildLayers, options: PushOptions
) -> tuple[Pushed | Warned, ...]:
    started_s = time.monotonic()
    sent_bytes = []
    for image in images.images:
        sent_bytes += await _push_layers(image, destination, layers)
        sent_bytes.append(await _push_config(image, destination))
        if image.manifest.digest != images.root.digest:
            await _put(destination, str(image.manifest.digest), image.manifest)
    warned = await _put_root(images, destination, options)
    uploaded = [size for size in sent_bytes if size is not None]
    pushed = Pushed(
        destination=str(destination.reference),
        digest=str(images.root.digest),
        uploaded_bytes=sum(uploaded),
        uploaded_blobs=len(uploaded),
        reused_blobs=len(sent_bytes) - len(uploaded),
        seconds=time.monotonic() - started_s,
    )
    return (warned,) if warned else (pushed,)


async def _put_root(images: ImageSet, destination: Destination, options: PushOptions) -> Warned | None:
    """Gives the images their name; None, or that the tag was kept as it is, which the options may allow."""
    try:
        await _put(destination, destination.reference.identifier, images.root)
    except RegistryError as error:
        if not (options.ignore_immutable and _is_immutable(error)):
            raise
        return Warned(f"{destination.reference} is immutable and stays what it is: {error}")
    return None


def _is_immutable(error: RegistryError) -> bool:
    """Whether the registry refused to move a tag: there is no code for it, but each says so (ECR, GAR, Harbor, ACR)."""
    said = " ".join(f"{detail.code} {detail.message}" for detail in error.details).lower()
    return not error.temporary and ("immutab" in said or "tagalreadyexists" in said.replace("_", ""))


async def _put(destination: Destination, identifier: str, manifest: Manifest | Index) -> None:
    await destination.client.put_manifest(destination.repository, identifier, manifest.raw, manifest.media_type)


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
