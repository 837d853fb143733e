"""Image manifests and indexes (OCI image-spec; Docker Image Manifest V2, Schema 2).

A manifest is its bytes: the raw form is kept beside the parsed one, and the digest is always of the raw form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest


class _ManifestBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class _IndexBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True):
    raw: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))


class Manifest(_Document, frozen=True):
    """An image manifest: a config and layers."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    artifact_type: str
    subject: Descriptor | None

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The blobs that must be there before a registry takes this manifest: config and distributable layers."""
        layers = (layer for layer in self.layers if not media_types.is_foreign_layer(layer.media_type))
        return (self.config, *layers)


class Index(_Document, frozen=True):
    """An image index (Docker: manifest list): manifests, usually one per platform."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    artifact_type: str
    subject: Descriptor | None

    def select(self, wanted: Platform) -> Descriptor:
        """The manifest for a platform; the exact variant first. Raises InvalidManifest when there is none."""
        fitting = [d for d in self.manifests if d.platform is not None and d.platform.matches(wanted)]
        exact = [d for d in fitting if d.platform is not None and d.platform.variant == wanted.variant]
        if chosen := (exact or fitting):
            return chosen[0]
        held = ", ".join(sorted({str(d.platform) for d in self.manifests if d.platform})) or "none"
        raise InvalidManifest(f"no manifest for {wanted} in index {self.digest}: it has {held}")


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """The manifest or index in ``raw``; ``media_type`` is what the registry called it ("" = unknown).

    Raises InvalidManifest for other kinds (Docker schema 1 among them), for JSON that does not fit, and when the
    document calls itself something else than the registry did.
    """
    kind = _kind_of(raw, media_type)
    if kind in media_types.INDEXES:
        index = codec.decode(raw, _IndexBody, "image index")
        return Index(raw, kind, index.manifests, index.annotations, index.artifact_type, index.subject)
    if kind in media_types.MANIFESTS:
        body = codec.decode(raw, _ManifestBody, "image manifest")
        return Manifest(raw, kind, body.config, body.layers, body.annotations, body.artifact_type, body.subject)
    raise InvalidManifest(f"unsupported manifest media type {kind!r}")


def _kind_of(raw: bytes, media_type: str) -> str:
    """The media type that the document states, else the registry's, else the one that its fields imply."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"not a manifest: {error}") from error
    if not isinstance(document, dict):
        raise InvalidManifest(f"not a manifest: expected a JSON object, got {type(document).__name__}")
    asked = media_type.partition(";")[0].strip()
    stated = document.get("mediaType")
    if isinstance(stated, str) and stated:
        if asked in media_types.MANIFESTS | media_types.INDEXES and asked != stated:
            raise InvalidManifest(f"manifest says that it is {stated}, but it came as {asked}")
        return stated
    if asked in media_types.MANIFESTS | media_types.INDEXES:
        return asked
    if "manifests" in document:
        return media_types.OCI_INDEX
    return media_types.OCI_MANIFEST if "layers" in document and "config" in document else asked or "unknown"


def make_manifest(
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    *,
    media_type: str = media_types.OCI_MANIFEST,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A new manifest; the same arguments give the same bytes."""
    ordered = dict(sorted((annotations or {}).items()))
    body = _ManifestBody(schema_version=2, media_type=media_type, config=config, layers=layers, annotations=ordered)
    return Manifest(codec.encode(body), media_type, config, layers, ordered, "", None)


def make_index(
    manifests: tuple[Descriptor, ...],
    *,
    media_type: str = media_types.OCI_INDEX,
    annotations: Mapping[str, str] | None = None,
) -> Index:
    """A new image index; the same arguments give the same bytes."""
    ordered = dict(sorted((annotations or {}).items()))
    body = _IndexBody(schema_version=2, media_type=media_type, manifests=manifests, annotations=ordered)
    return Index(codec.encode(body), media_type, manifests, ordered, "", None)
