"""Images → files: a docker-save archive, an OCI layout. Nothing is visible half-written."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import msgspec

from builder.errors import BuildError
from builder.outputs.image import Image, ImageSet
from builder.outputs.whole_files import replacing, writing
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.reference import Reference

_SUFFIXES = {"gzip": ".tar.gz", "zstd": ".tar.zst", "none": ".tar"}
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


class ArchivedImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of a docker-save archive's ``manifest.json``."""

    config: str
    repo_tags: tuple[str, ...] | None
    layers: tuple[str, ...]


class _LayoutIndex(msgspec.Struct, frozen=True, rename="camel"):
    """``index.json`` of an OCI layout."""

    schema_version: int
    media_type: str
    manifests: tuple[Descriptor, ...]


def write_docker_archive(
    image: Image, names: Sequence[Reference], blobs: Mapping[Digest, Path], path: Path | None
) -> None:
    """Writes what ``docker load`` reads; layers stay as they are. ``blobs`` has the file of every layer."""
    config_name = f"{image.manifest.config.digest.hex}.json"
    layer_names = {layer.descriptor.digest: _archive_name(layer.descriptor) for layer in image.layers}
    listed = tuple(layer_names[layer.descriptor.digest] for layer in image.layers)
    described = ArchivedImage(config_name, _repo_tags(names), listed)
    with writing(path) as out, _new_tar(out) as archive:
        _add_bytes(archive, config_name, image.config)
        for digest, name in layer_names.items():
            _add_file(archive, name, digest, blobs[digest])
        _add_bytes(archive, "manifest.json", codec.encode((described,)))


def _archive_name(layer: Descriptor) -> str:
    return layer.digest.hex + _SUFFIXES[media_types.layer_compression(layer.media_type)]


def _repo_tags(names: Sequence[Reference]) -> tuple[str, ...]:
    """``host/repository:tag`` of each name; Docker Hub's host is left out, as docker writes it."""
    return tuple(str(name).removeprefix("docker.io/library/").removeprefix("docker.io/") for name in names if name.tag)


def _new_tar(out: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT)  # a stream: it may be a pipe


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, name: str, digest: Digest, path: Path) -> None:
    with _reading(digest, path) as blob:
        info = tarfile.TarInfo(name)
        info.size = path.stat().st_size
        archive.addfile(info, cast("IO[bytes]", blob))


class _Digested:
    """A file whose bytes are digested as they are read: a copy of long ago may have been damaged."""

    def __init__(self, file: IO[bytes], digest: Digest) -> None:
        self._file = file
        self.hash = hashlib.new(digest.algorithm)

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


@contextmanager
def _reading(digest: Digest, path: Path) -> Iterator[_Digested]:
    """A layer to read to its end in the block. Raises BuildError when that was not what its digest says."""
    with path.open("rb") as file:
        digested = _Digested(file, digest)
        yield digested
    if digested.hash.hexdigest() != digest.hex:
        raise BuildError(f"layer {digest} is damaged in {path}: crossdock cache verify finds what else is")


def write_oci_layout(
    images: ImageSet, names: Sequence[Reference], blobs: Mapping[Digest, Path], path: Path | None, *, packed: bool
) -> None:
    """Writes an OCI image layout that holds these images (image-layout): a directory, or one tar if it is ``packed``.

    Blobs that are in the directory already are kept; foreign layers need not be among the ``blobs``.
    """
    index = codec.encode(_LayoutIndex(2, media_types.OCI_INDEX, _named(images.descriptor, names)))
    layers = {layer.descriptor.digest: None for image in images.images for layer in image.layers}
    files = {digest: blobs[digest] for digest in layers if digest in blobs}
    documents = [data for image in images.images for data in (image.config, image.manifest.raw)]
    documents += [images.root.raw] if len(images.images) > 1 else []
    if packed or path is None:
        _write_packed(files, documents, index, path)
        return
    for digest, file in files.items():
        _put_blob(path, digest, file)
    for data in documents:
        _put_bytes(path, data)
    for name, data in (("oci-layout", _LAYOUT), ("index.json", index)):
        with replacing(path / name) as out:
            out.write(data)


def _named(root: Descriptor, names: Sequence[Reference]) -> tuple[Descriptor, ...]:
    """The root once for each name: the tag as the specification has it, the whole name as containerd has it."""
    tagged = [name for name in names if name.tag]
    described = (
        {**root.annotations, IMAGE_NAME: f"{name.name}:{name.tag}", REF_NAME: str(name.tag)} for name in tagged
    )
    return tuple(msgspec.structs.replace(root, annotations=notes) for notes in described) or (root,)


def _write_packed(files: Mapping[Digest, Path], documents: Sequence[bytes], index: bytes, path: Path | None) -> None:
    with writing(path) as out, _new_tar(out) as archive:
        _add_bytes(archive, "oci-layout", _LAYOUT)
        _add_bytes(archive, "index.json", index)
        for data in dict.fromkeys(documents):
            _add_bytes(archive, _blob_name(Digest.of(data)), data)
        for digest, file in files.items():
            _add_file(archive, _blob_name(digest), digest, file)


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _put_blob(layout: Path, digest: Digest, source: Path) -> None:
    target = layout / _blob_name(digest)
    if not target.exists():
        with replacing(target) as out, _reading(digest, source) as blob:
            shutil.copyfileobj(blob, out, 1 << 20)


def _put_bytes(layout: Path, data: bytes) -> None:
    with replacing(layout / _blob_name(Digest.of(data))) as out:
        out.write(data)
