"""What is made of a finished build, as values: each export is an image, an archive of one, or its files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from cache.oci.descriptor import Platform
from cache.oci.media_types import Compression
from cache.oci.reference import Reference

ExportKind = Literal["image", "docker", "oci", "local", "tar"]
AnnotationPlace = Literal["manifest", "manifest-descriptor", "index", "index-descriptor"]

MOST_LEVEL = {"gzip": 9, "zstd": 22, "none": 0}


class LayerFormat(msgspec.Struct, frozen=True):
    """How layers are compressed; ``level`` None is the usual one. Raises ValueError for a level that is none."""

    compression: Compression = "gzip"
    level: int | None = None

    def __post_init__(self) -> None:
        most = MOST_LEVEL[self.compression]
        if self.level is not None and not 0 <= self.level <= most:
            raise ValueError(f"compression level {self.level}: expected 0 to {most} for {self.compression}")

    def __str__(self) -> str:
        return self.compression if self.level is None else f"{self.compression} {self.level}"


USUAL_LAYERS = LayerFormat()


class Annotation(msgspec.Struct, frozen=True):
    """A note on the manifest, the index, or the descriptor by which another document names one of them.

    ``platform`` limits it to the image of one platform; it has no meaning for an index.
    """

    place: AnnotationPlace
    key: str
    value: str
    platform: Platform | None = None


class ImageFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How an image's documents and layers are written.

    ``docker``: Docker's media types and not OCI's. ``recompress``: base layers are compressed anew too. Raises
    ValueError for what Docker's types cannot say.
    """

    layers: LayerFormat = USUAL_LAYERS
    recompress: bool = False
    docker: bool = False
    annotations: tuple[Annotation, ...] = ()

    def __post_init__(self) -> None:
        if self.docker and self.layers.compression == "zstd":
            raise ValueError("Docker has no media type for zstd layers: leave OCI's media types on")
        if self.docker and self.annotations:
            raise ValueError("Docker's manifests have no annotations: leave OCI's media types on")


USUAL_IMAGE = ImageFormat()


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to make of the build.

    ``path`` is where to write, None for standard output (and for an ``image``, which goes to the registries of its
    ``names`` if it is to be ``push``-ed). An archive with a ``url`` is sent there by POST, in so many
    ``tries`` at most. ``packed``: the OCI layout is one tar file. ``split``: the files of each
    platform lie in a directory of their own; None = where there are several platforms. ``target`` is the stage that it
    is made of, "" for the first that is built.
    """

    kind: ExportKind
    path: Path | None = None
    url: str = ""
    tries: int = 1
    names: tuple[Reference, ...] = ()
    push: bool = False
    packed: bool = True
    split: bool | None = None
    target: str = ""
    format: ImageFormat = USUAL_IMAGE

    @property
    def is_image(self) -> bool:
        """Whether it is made of layers, and not of the files in them."""
        return self.kind in ("image", "docker", "oci")


def step_format(exports: tuple[Export, ...]) -> LayerFormat:
    """How the steps' layers are written at once, to be compressed a second time as rarely as possible.

    That is the format of what is pushed, for it is what the cache holds too; archives come second. Layers without
    compression are made only when they are asked for: a cache of them would be large.
    """
    images = [export for export in exports if export.is_image]
    chosen = [export.format.layers for export in sorted(images, key=lambda export: not export.push)]
    return next((layers for layers in chosen if layers.compression != "none"), USUAL_LAYERS)
