"""Media types of manifests, configs and layers: OCI's and Docker's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Compression = Literal["gzip", "zstd", "none"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

OCI_LAYERS: Mapping[Compression, str] = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD, "none": OCI_LAYER}
DOCKER_LAYERS: Mapping[Compression, str] = {"gzip": DOCKER_LAYER_GZIP, "none": DOCKER_LAYER}

_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1|docker\.image\.rootfs\.(foreign\.)?diff)"
    r"\.tar([+.](gzip|zstd))?"
)
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})

ACCEPT_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
"""What to ask a registry for: every kind, so that what is stored does not depend on who asked first."""


def is_manifest(media_type: str) -> bool:
    """True for image manifests and indexes, and not for what they are made of."""
    return media_type in MANIFESTS or media_type in INDEXES


def is_foreign_layer(media_type: str) -> bool:
    """True for layers that registries need not hold (non-distributable, Docker's "foreign")."""
    return "nondistributable" in media_type or media_type == DOCKER_FOREIGN_LAYER_GZIP


def is_layer(media_type: str) -> bool:
    """True for layers that hold a tar, compressed or not; not for encrypted ones and for what artifacts are made of."""
    return _LAYER.fullmatch(media_type) is not None


def layer_compression(media_type: str) -> Compression:
    """``gzip``, ``zstd`` or ``none``: how a layer of this media type is compressed."""
    if media_type.endswith(("gzip", ".gz")):
        return "gzip"
    return "zstd" if media_type.endswith("zstd") else "none"
