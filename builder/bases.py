"""Base images: their layers and configuration, without fetching a layer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from builder.errors import PlanError
from builder.layers import RegistryOrigin
from builder.plan import ImageBase, Plan
from cache.oci.client import RegistryClient
from cache.oci.config import ImageConfig
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.errors import InvalidManifest, OCIError
from cache.oci.layer import Layer
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.oci.registries import Registries
from cache.verify import verified

MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """An image to start from: what it is, and the repository that has its layers."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    origin: RegistryOrigin


async def resolve_bases(plan: Plan, registries: Registries, platform: Platform) -> dict[int, ResolvedBase]:
    """The base image of each stage that has one, by the stage's index; each image is asked for once.

    Raises PlanError, with the place of the FROM, for an image that is missing, refused or not for the platform.
    """
    bases = {stage.index: stage.base for stage in plan.stages if isinstance(stage.base, ImageBase)}
    images = {base.reference: base for base in bases.values()}
    resolved = await asyncio.gather(*(_resolve(base, registries, platform) for base in images.values()))
    by_reference = dict(zip(images, resolved, strict=True))
    return {index: by_reference[base.reference] for index, base in bases.items()}


async def _resolve(base: ImageBase, registries: Registries, platform: Platform) -> ResolvedBase:
    try:
        client, repository, reply = await registries.resolve_manifest(base.reference)
        manifest = parse_manifest(reply.raw, reply.media_type)
        if isinstance(manifest, Index):
            chosen = manifest.select(platform)
            reply = await client.get_manifest(repository, str(chosen.digest))
            manifest = parse_manifest(reply.raw, reply.media_type)
        if isinstance(manifest, Index):
            raise InvalidManifest(f"index {reply.digest} is inside another index")
        config = ImageConfig.from_json(await _read_blob(client, repository, manifest.config))
        return ResolvedBase(config, _layers(manifest, config), RegistryOrigin(client, repository))
    except OCIError as error:
        raise PlanError(f"cannot use the base image {base.reference}: {error}", base.span) from error


def _layers(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise InvalidManifest(
            f"manifest {manifest.digest} has {len(manifest.layers)} layers,"
            f" but its configuration has {len(config.rootfs.diff_ids)} diff_ids"
        )
    return tuple(Layer(*pair) for pair in zip(manifest.layers, config.rootfs.diff_ids, strict=True))


async def _read_blob(client: RegistryClient, repository: str, descriptor: Descriptor) -> bytes:
    if descriptor.size > MAX_CONFIG_BYTES:
        raise InvalidManifest(f"image config {descriptor.digest} of {descriptor.size} bytes is too large")
    async with client.open_blob(repository, descriptor.digest) as reply:
        return b"".join([chunk async for chunk in verified(reply.chunks, descriptor.digest, descriptor.size)])
