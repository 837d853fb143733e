"""Base and layers → manifest and config, and images → index (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from builder.outputs.exports import USUAL_IMAGE, Annotation, ImageFormat
from cache.oci import media_types
from cache.oci.config import ImageConfig, RootFS
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.manifest import Index, Manifest, make_index, make_manifest


class Image(msgspec.Struct, frozen=True):
    """A finished image: its manifest, the bytes of its config and its layers, lowest first."""

    manifest: Manifest
    config: bytes
    layers: tuple[Layer, ...]


class ImageSet(msgspec.Struct, frozen=True):
    """The images of one build, for one platform each, and what a name stands for: the image, or an index of them.

    ``annotations`` are for the descriptor by which something else names it.
    """

    images: tuple[Image, ...]
    root: Manifest | Index
    annotations: Mapping[str, str]

    @property
    def descriptor(self) -> Descriptor:
        """The root's, with its annotations and, for a single image, its platform left out."""
        return msgspec.structs.replace(self.root.descriptor, annotations=dict(self.annotations))


def compose(config: ImageConfig, layers: Sequence[Layer], image_format: ImageFormat = USUAL_IMAGE) -> Image:
    """The image of these layers; the same arguments give the same bytes.

    Layers that came with the other vendor's media types keep their bytes and get the name of the same format. Foreign
    layers keep everything, their URLs too. Raises ValueError for layers that Docker's types cannot name.
    """
    named = tuple(Layer(_named(layer.descriptor, image_format.docker), layer.diff_id) for layer in layers)
    rootfs = RootFS(diff_ids=tuple(layer.diff_id for layer in named))
    raw = msgspec.structs.replace(config, rootfs=rootfs).to_json()
    kind = media_types.DOCKER_CONFIG if image_format.docker else media_types.OCI_CONFIG
    config_descriptor = Descriptor(media_type=kind, digest=Digest.of(raw), size=len(raw))
    manifest = make_manifest(
        config_descriptor,
        tuple(layer.descriptor for layer in named),
        media_type=media_types.DOCKER_MANIFEST if image_format.docker else media_types.OCI_MANIFEST,
        annotations=_notes(image_format.annotations, "manifest", config.platform),
    )
    return Image(manifest, raw, named)


def _named(descriptor: Descriptor, docker: bool) -> Descriptor:
    if media_types.is_foreign_layer(descriptor.media_type):
        return descriptor
    compression = media_types.layer_compression(descriptor.media_type)
    names = media_types.DOCKER_LAYERS if docker else media_types.OCI_LAYERS
    if compression not in names:
        raise ValueError(f"layer {descriptor.digest} is {compression}, for which Docker has no media type")
    return Descriptor(media_type=names[compression], digest=descriptor.digest, size=descriptor.size)


def gather(images: Mapping[Platform, Image], image_format: ImageFormat) -> ImageSet:
    """One image as it is; several under an index, in their order. Raises ValueError for a note on what is not there."""
    notes = image_format.annotations
    if len(images) == 1:
        ((platform, image),) = images.items()
        if misplaced := [note for note in notes if note.place.startswith("index")]:
            raise ValueError(f"annotation {misplaced[0].key} is for an index, but an image for one platform has none")
        return ImageSet((image,), image.manifest, _notes(notes, "manifest-descriptor", platform))
    descriptors = (
        msgspec.structs.replace(
            image.manifest.descriptor,
            platform=platform,
            annotations=_notes(notes, "manifest-descriptor", platform),
        )
        for platform, image in images.items()
    )
    index = make_index(
        tuple(descriptors),
        media_type=media_types.DOCKER_INDEX if image_format.docker else media_types.OCI_INDEX,
        annotations=_notes(notes, "index", None),
    )
    return ImageSet(tuple(images.values()), index, _notes(notes, "index-descriptor", None))


def _notes(annotations: Iterable[Annotation], place: str, platform: Platform | None) -> dict[str, str]:
    fitting = (
        note
        for note in annotations
        if note.place == place and (note.platform is None or platform is None or platform.matches(note.platform))
    )
    return {note.key: note.value for note in fitting}
