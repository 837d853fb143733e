"""Images in files: an OCI layout (a directory or a tar) or a docker-save archive, read without unpacking it.

Archives may be compressed as a whole; then they are decompressed once, to a file. Layers are read where they lie.
"""

from __future__ import annotations

import asyncio
import posixpath
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from builder.errors import BuildError
from builder.layer.decompress import START_BYTES, DecompressingReader, compression_of
from builder.layer.tarlayer import recompress_layer
from builder.outputs.exports import USUAL_LAYERS
from builder.outputs.image import Image, ImageSet, compose
from builder.outputs.image_files import REF_NAME, ArchivedImage
from cache.oci import codec, media_types
from cache.oci.config import ImageConfig
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import OCIError
from cache.oci.layer import Layer
from cache.oci.manifest import Index, Manifest, parse_manifest
from cache.verify import verified

CHUNK_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 16 << 20


class _LayoutIndex(msgspec.Struct, frozen=True):
    manifests: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file; as an origin of a layer they are verified as they pass."""

    path: Path
    start: int
    size_bytes: int

    def read(self) -> bytes:
        """All of it. Raises BuildError when it is too large to be a document."""
        if self.size_bytes > MAX_DOCUMENT_BYTES:
            raise BuildError(f"a document of {self.size_bytes} bytes in {self.path} is too large")
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size_bytes)

    @asynccontextmanager
    async def open(self, layer: Layer) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of the layer."""
        yield verified(self._chunks(), layer.descriptor.digest, layer.descriptor.size)

    async def _chunks(self) -> AsyncIterator[bytes]:
        left = self.size_bytes
        with await asyncio.to_thread(self.path.open, "rb") as file:
            await asyncio.to_thread(file.seek, self.start)
            while left and (data := await asyncio.to_thread(file.read, min(left, CHUNK_BYTES))):
                left -= len(data)
                yield data


@dataclass(frozen=True, slots=True)
class StoredImages:
    """What a file holds, and where the layers are."""

    images: ImageSet
    layers: tuple[tuple[Layer, Piece], ...]


def read_stored(path: Path, scratch: Path) -> StoredImages:
    """The one image, or index of images, at ``path``; ``scratch`` takes what must be decompressed.

    Raises BuildError for what is neither layout nor archive, holds several images, or is not whole.
    """
    try:
        return _read(path, scratch)
    except (OCIError, msgspec.DecodeError, tarfile.TarError) as error:
        raise BuildError(f"{path} cannot be pushed: {error}") from error
    except OSError as error:
        raise BuildError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def _read(path: Path, scratch: Path) -> StoredImages:
    pieces = _in_directory(path) if path.is_dir() else _in_tar(_plain_tar(path, scratch))
    if "index.json" in pieces and "oci-layout" in pieces:
        return _Layout(path, pieces).read()
    if "manifest.json" in pieces:
        return _docker_archive(path, pieces, scratch)
    raise BuildError(f"{path} is neither an OCI layout nor a docker-save archive")


def _in_directory(path: Path) -> dict[str, Piece]:
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): Piece(file, 0, file.stat().st_size) for file in files}


def _plain_tar(path: Path, scratch: Path) -> Path:
    plain = scratch / "archive.tar"
    with path.open("rb") as source, plain.open("wb") as out:
        if compression_of(source.read(START_BYTES)) == "none":
            return path
        source.seek(0)
        reader = DecompressingReader(source)
        while data := reader.read(CHUNK_BYTES):
            out.write(data)
    return plain


def _in_tar(path: Path) -> dict[str, Piece]:
    """Every file by its name; links are followed, as old archives name a layer twice by them."""
    pieces: dict[str, Piece] = {}
    links: dict[str, str] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            name = posixpath.normpath(member.name)
            if member.isreg():
                pieces[name] = Piece(path, member.offset_data, member.size)
            elif member.issym() or member.islnk():
                base = posixpath.dirname(name) if member.issym() else ""
                links[name] = posixpath.normpath(posixpath.join(base, member.linkname))
    return {**{name: pieces[target] for name, target in links.items() if target in pieces}, **pieces}


@dataclass(slots=True)
class _Layout:
    path: Path
    pieces: dict[str, Piece]
    layers: list[tuple[Layer, Piece]] = field(default_factory=list)

    def read(self) -> StoredImages:
        index = codec.decode(self.pieces["index.json"].read(), _LayoutIndex, "index.json")
        roots = {descriptor.digest: descriptor for descriptor in index.manifests}
        if len(roots) != 1:
            names = ", ".join(d.annotations.get(REF_NAME, str(d.digest)) for d in roots.values()) or "none"
            raise BuildError(f"{self.path} must hold one image, but it holds {len(roots)}: {names}")
        (descriptor,) = roots.values()
        root = self._manifest(descriptor)
        images = (self._image(root),) if isinstance(root, Manifest) else tuple(map(self._child, root.manifests))
        return StoredImages(ImageSet(images, root, {}), tuple(self.layers))

    def _child(self, descriptor: Descriptor) -> Image:
        manifest = self._manifest(descriptor)
        if isinstance(manifest, Index):
            raise BuildError(f"{self.path}: index {descriptor.digest} is inside another index")
        return self._image(manifest)

    def _image(self, manifest: Manifest) -> Image:
        """The image; its layers' diff_ids are not needed to push it, and their digests stand for them."""
        layers = tuple(Layer(descriptor, descriptor.digest) for descriptor in manifest.layers)
        for layer in layers:
            if not media_types.is_foreign_layer(layer.descriptor.media_type):
                self.layers.append((layer, self._piece(layer.descriptor)))
        return Image(manifest, self._piece(manifest.config).read(), layers)

    def _manifest(self, descriptor: Descriptor) -> Manifest | Index:
        raw = self._piece(descriptor).read()
        if Digest.of(raw, descriptor.digest.algorithm) != descriptor.digest:
            raise BuildError(f"{self.path}: the content of {descriptor.digest} has another digest")
        return parse_manifest(raw, descriptor.media_type)

    def _piece(self, descriptor: Descriptor) -> Piece:
        piece = self.pieces.get(f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}")
        if piece is None or piece.size_bytes != descriptor.size:
            found = "is missing" if piece is None else f"has {piece.size_bytes} bytes"
            raise BuildError(f"{self.path}: blob {descriptor.digest} of {descriptor.size} bytes {found}")
        return piece


def _docker_archive(path: Path, pieces: dict[str, Piece], scratch: Path) -> StoredImages:
    listed = codec.decode(_named(path, pieces, "manifest.json").read(), tuple[ArchivedImage, ...], "manifest.json")
    if len(listed) != 1:
        raise BuildError(f"{path} must hold one image, but it holds {len(listed)}")
    (described,) = listed
    config = ImageConfig.from_json(_named(path, pieces, described.config).read())
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(described.layers):
        raise BuildError(f"{path} has {len(described.layers)} layers, but its configuration {len(diff_ids)} diff_ids")
    found = [
        _compressed(_named(path, pieces, name), diff_id, scratch)
        for diff_id, name in zip(diff_ids, described.layers, strict=True)
    ]
    image = compose(config, [layer for layer, _ in found])
    return StoredImages(ImageSet((image,), image.manifest, {}), tuple(found))


def _compressed(piece: Piece, diff_id: Digest, scratch: Path) -> tuple[Layer, Piece]:
    """A layer of the archive as it is pushed: written anew, compressed. Raises BuildError for wrong content."""
    out_path = scratch / diff_id.hex
    with piece.path.open("rb") as file, out_path.open("wb") as out:
        file.seek(piece.start)
        written = recompress_layer(_Bounded(file, piece.size_bytes), out, USUAL_LAYERS)
    if written.diff_id != diff_id:
        raise BuildError(f"a layer does not hold what its image says: expected {diff_id}, got {written.diff_id}")
    descriptor = Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=written.digest, size=written.size_bytes)
    return Layer(descriptor, diff_id), Piece(out_path, 0, written.size_bytes)


class _Bounded:
    """A file that ends after so many bytes."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._left = size_bytes

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def _named(path: Path, pieces: dict[str, Piece], name: str) -> Piece:
    piece = pieces.get(posixpath.normpath(name))
    if piece is None:
        raise BuildError(f"{path} has no {name}")
    return piece
