"""An OCI image layout on this machine as somewhere that images come from (image-spec, "Image Layout")."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.oci import media_types
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest
from cache.oci.layer import Layer
from cache.oci.manifest import Index, parse_manifest
from cache.verify import verified

MAX_DOCUMENT_BYTES = 16 << 20
_REF_NAME = "org.opencontainers.image.ref.name"
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class OciLayout:
    """The layout in a directory."""

    directory: Path

    def find(self, identifier: str, platform: Platform) -> Descriptor:
        """The manifest, or index, with this tag or digest; without either the only one, or the platform's.

        Raises InvalidManifest.
        """
        raw = self._read_file(self.directory / "index.json", MAX_DOCUMENT_BYTES)
        index = parse_manifest(raw, media_types.OCI_INDEX)
        if not isinstance(index, Index):
            raise InvalidManifest(f"{self.directory}/index.json is not an index")
        if not identifier:
            return index.manifests[0] if len(index.manifests) == 1 else index.select(platform)
        for descriptor in index.manifests:
            if identifier in (str(descriptor.digest), descriptor.annotations.get(_REF_NAME)):
                return descriptor
        raise InvalidManifest(f"the layout {self.directory} has no image {identifier!r}")

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or a configuration, verified. Raises InvalidManifest."""
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise InvalidManifest(f"{descriptor.digest} of {descriptor.size} bytes is too large")
        data = self._read_file(self._path(descriptor.digest), descriptor.size)
        if Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
            raise InvalidManifest(f"the layout {self.directory} has other bytes than those of {descriptor.digest}")
        return data

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        """The compressed bytes of a layer, verified as they pass. Raises InvalidManifest when they are not there."""
        descriptor = layer.descriptor
        yield verified(self._chunks(descriptor.digest), descriptor.digest, descriptor.size)

    async def _chunks(self, digest: Digest) -> AsyncIterator[bytes]:
        try:
            with self._path(digest).open("rb") as file:
                while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    yield data
        except OSError as error:
            raise InvalidManifest(f"the layout {self.directory} lacks {digest}: {error.strerror or error}") from error

    def _path(self, digest: Digest) -> Path:
        return self.directory / "blobs" / digest.algorithm / digest.hex

    def _read_file(self, path: Path, most_bytes: int) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(most_bytes + 1)
        except OSError as error:
            raise InvalidManifest(f"cannot read {path}: {error.strerror or error}") from error
        if len(data) > most_bytes:
            raise InvalidManifest(f"{path} is larger than {most_bytes} bytes")
        return data
