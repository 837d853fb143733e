"""Image → files: a docker-save archive, an OCI layout directory, digest files. Nothing is visible half-written."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from builder.errors import BuildError
from builder.image import Image
from cache.oci import codec, media_types
from cache.oci.digest import Digest
from cache.oci.reference import Reference

_SUFFIXES = {"gzip": ".tar.gz", "zstd": ".tar.zst", "none": ".tar"}


class _ArchivedImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of a docker-save archive's ``manifest.json``."""

    config: str
    repo_tags: tuple[str, ...]
    layers: tuple[str, ...]


class _LayoutIndex(msgspec.Struct, frozen=True, rename="camel"):
    """``index.json`` of an OCI layout."""

    schema_version: int
    media_type: str
    manifests: tuple[dict[str, object], ...]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes ``path`` when the block ends well, and is gone when it does not. Raises BuildError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as out:
            try:
                yield out.file
                out.flush()
                os.fchmod(out.fileno(), 0o644)
                Path(out.name).replace(path)
            except BaseException:
                Path(out.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a digest file; a device or a pipe, such as /dev/stdout, is written to as it is. Raises BuildError."""
    if path.exists() and not path.is_file():
        try:
            path.write_text(text)
        except OSError as error:
            raise BuildError(f"cannot write {path}: {error.strerror or error}") from error
        return
    with replacing(path) as out:
        out.write(text.encode())


def write_docker_archive(image: Image, names: Sequence[Reference], blobs: Mapping[Digest, Path], path: Path) -> None:
    """Writes what ``docker load`` reads; layers stay compressed. ``blobs`` has the file of every layer."""
    config_name = f"{image.manifest.config.digest.hex}.json"
    layer_names = {layer.descriptor.digest: _archive_name(image, layer.descriptor.digest) for layer in image.layers}
    listed = tuple(layer_names[layer.descriptor.digest] for layer in image.layers)
    described = _ArchivedImage(config_name, _repo_tags(names), listed)
    with replacing(path) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add_bytes(archive, config_name, image.config)
        for digest, name in layer_names.items():
            with blobs[digest].open("rb") as layer:
                info = tarfile.TarInfo(name)
                info.size = os.fstat(layer.fileno()).st_size
                archive.addfile(info, layer)
        _add_bytes(archive, "manifest.json", codec.encode((described,)))


def _archive_name(image: Image, digest: Digest) -> str:
    media_type = next(layer.descriptor.media_type for layer in image.layers if layer.descriptor.digest == digest)
    return digest.hex + _SUFFIXES[media_types.layer_compression(media_type)]


def _repo_tags(names: Sequence[Reference]) -> tuple[str, ...]:
    """``host/repository:tag`` of each name; Docker Hub's host is left out, as docker writes it."""
    return tuple(str(name).removeprefix("docker.io/library/").removeprefix("docker.io/") for name in names if name.tag)


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_oci_layout(image: Image, names: Sequence[Reference], blobs: Mapping[Digest, Path], path: Path) -> None:
    """Writes an OCI image layout that holds this image; blobs that are there already are kept (image-layout)."""
    for layer in image.layers:
        if (source := blobs.get(layer.descriptor.digest)) is not None:
            _put_blob(path, layer.descriptor.digest, source)
    _put_bytes(path, image.config)
    _put_bytes(path, image.manifest.raw)
    descriptor = msgspec.to_builtins(image.manifest.descriptor, enc_hook=str)
    tags = tuple(dict.fromkeys(name.tag for name in names if name.tag)) or (None,)
    manifests = tuple(
        {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}} if tag else descriptor for tag in tags
    )
    with replacing(path / "oci-layout") as out:
        out.write(b'{"imageLayoutVersion":"1.0.0"}')
    with replacing(path / "index.json") as out:
        out.write(codec.encode(_LayoutIndex(2, media_types.OCI_INDEX, manifests)))


def _blob_path(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.hex


def _put_blob(layout: Path, digest: Digest, source: Path) -> None:
    target = _blob_path(layout, digest)
    if not target.exists():
        with source.open("rb") as data, replacing(target) as out:
            shutil.copyfileobj(data, out, 1 << 20)


def _put_bytes(layout: Path, data: bytes) -> None:
    with replacing(_blob_path(layout, Digest.of(data))) as out:
        out.write(data)
