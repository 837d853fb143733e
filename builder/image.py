"""Base and layers → manifest and config (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cache.oci import media_types
from cache.oci.config import ImageConfig, RootFS
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.manifest import Manifest, make_manifest

_OCI_LAYER = {
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
    "none": media_types.OCI_LAYER,
}


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image: its manifest, the bytes of its config and its layers, lowest first."""

    manifest: Manifest
    config: bytes
    layers: tuple[Layer, ...]


def compose(config: ImageConfig, layers: Sequence[Layer]) -> Image:
    """The OCI image of these layers; the same arguments give the same bytes.

    Layers that came with Docker's media types keep their bytes and get the OCI name of the same format. Foreign layers
    keep everything, their URLs too.
    """
    named = tuple(Layer(_oci_descriptor(layer.descriptor), layer.diff_id) for layer in layers)
    rootfs = RootFS(diff_ids=tuple(layer.diff_id for layer in named))
    raw = msgspec.structs.replace(config, rootfs=rootfs).to_json()
    config_descriptor = Descriptor(media_type=media_types.OCI_CONFIG, digest=Digest.of(raw), size=len(raw))
    manifest = make_manifest(config_descriptor, tuple(layer.descriptor for layer in named))
    return Image(manifest, raw, named)


def _oci_descriptor(descriptor: Descriptor) -> Descriptor:
    if media_types.is_foreign_layer(descriptor.media_type):
        return descriptor
    name = _OCI_LAYER[media_types.layer_compression(descriptor.media_type)]
    return Descriptor(media_type=name, digest=descriptor.digest, size=descriptor.size)
