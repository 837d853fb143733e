"""Base images: their layers and configuration, without fetching a layer."""

from __future__ import annotations

import asyncio

import msgspec

from builder.contexts.locations import LayoutContext
from builder.errors import PlanError
from builder.layer.origins import Origin, RegistryOrigin
from builder.oci_layout import OciLayout
from builder.planning.plan import ImageBase, Plan
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.config import ImageConfig
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.errors import InvalidManifest, OCIError
from cache.oci.layer import Layer
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.oci.reference import Reference
from cache.oci.registries import ProxyRegistries, Registries
from cache.verify import verified

MAX_CONFIG_BYTES = 16 << 20


class ResolvedBase(msgspec.Struct, frozen=True):
    """An image to start from: what it is, and the repository that has its layers."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    origin: Origin


class BaseImages(msgspec.Struct, frozen=True):
    """The base images of one build; each is asked for once, whatever the number of plans and stages."""

    registries: Registries
    _known: dict[tuple[Reference | LayoutContext, Platform], ResolvedBase] = msgspec.field(default_factory=dict)

    async def resolve(self, plan: Plan, platform: Platform) -> dict[int, ResolvedBase]:
        """The base image of each stage that has one, by the stage's index; for ``platform`` where FROM names none.

        Raises PlanError, with the place of the FROM, for an image that is missing, refused or not for the platform.
        """
        bases = {stage.index: stage.base for stage in plan.stages if isinstance(stage.base, ImageBase)}
        keys = {index: (base.reference, base.platform or platform) for index, base in bases.items()}
        missing = {key: bases[index] for index, key in keys.items() if key not in self._known}
        resolved = await asyncio.gather(*(self._resolve(base, key[1]) for key, base in missing.items()))
        self._known.update(zip(missing, resolved, strict=True))
        return {index: self._known[key] for index, key in keys.items()}

    async def _resolve(self, base: ImageBase, platform: Platform) -> ResolvedBase:
        try:
            if isinstance(base.reference, LayoutContext):
                return await asyncio.to_thread(_from_layout, base.reference, platform)
            return await from_registry(self.registries, base.reference, platform)
        except OCIError as error:
            raise PlanError(f"cannot use the base image {base.reference}: {error}", base.span) from error


async def from_registry(
    registries: Registries | ProxyRegistries, reference: Reference, platform: Platform
) -> ResolvedBase:
    """An image of a registry; one without an index is taken whatever its platform is. Raises OCIError."""
    client, repository, reply = await registries.resolve_manifest(reference)
    manifest = parse_manifest(reply.raw, reply.media_type)
    if isinstance(manifest, Index):
        chosen = manifest.select(platform)
        reply = await client.get_manifest(repository, str(chosen.digest))
        manifest = parse_manifest(reply.raw, reply.media_type)
    if isinstance(manifest, Index):
        raise InvalidManifest(f"index {reply.digest} is inside another index")
    config = _config(manifest, await _read_blob(client, repository, manifest.config))
    return ResolvedBase(config, _layers(manifest, config), RegistryOrigin(client, repository))


def _from_layout(place: LayoutContext, platform: Platform) -> ResolvedBase:
    layout = OciLayout(place.path)
    descriptor = layout.find(place.identifier, platform)
    manifest = parse_manifest(layout.read(descriptor), descriptor.media_type)
    if isinstance(manifest, Index):
        descriptor = manifest.select(platform)
        manifest = parse_manifest(layout.read(descriptor), descriptor.media_type)
    if isinstance(manifest, Index):
        raise InvalidManifest(f"index {descriptor.digest} is inside another index")
    config = _config(manifest, layout.read(manifest.config))
    return ResolvedBase(config, _layers(manifest, config), layout)


def _config(manifest: Manifest, data: bytes) -> ImageConfig:
    try:
        return ImageConfig.from_json(data)
    except InvalidManifest as error:
        kind = manifest.artifact_type or manifest.config.media_type
        if kind in media_types.CONFIGS:
            raise
        raise InvalidManifest(
            f"manifest {manifest.digest} is not an image's but of the kind {kind}: {error}"
        ) from error


def _layers(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise InvalidManifest(
            f"manifest {manifest.digest} has {len(manifest.layers)} layers,"
            f" but its configuration has {len(config.rootfs.diff_ids)} diff_ids"
        )
    for layer in manifest.layers:
        if not media_types.is_layer(layer.media_type):
            raise InvalidManifest(f"layer {layer.digest} is of the media type {layer.media_type}: expected a tar's")
    return tuple(Layer(*pair) for pair in zip(manifest.layers, config.rootfs.diff_ids, strict=True))


async def _read_blob(client: RegistryClient, repository: str, descriptor: Descriptor) -> bytes:
    if descriptor.size > MAX_CONFIG_BYTES:
        raise InvalidManifest(f"image config {descriptor.digest} of {descriptor.size} bytes is too large")
    async with client.open_blob(repository, descriptor.digest) as reply:
        return b"".join([chunk async for chunk in verified(reply.chunks, descriptor.digest, descriptor.size)])
