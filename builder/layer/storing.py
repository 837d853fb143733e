"""Layers as they are written → the store where they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from builder.layer.tarlayer import WrittenLayer
from cache.disk.filesystem import FilesystemStore
from cache.oci import media_types
from cache.oci.descriptor import Descriptor
from cache.oci.layer import Layer
from cache.oci.media_types import Compression


def keep_layer(store: FilesystemStore, compression: Compression, write: Callable[[BinaryIO], WrittenLayer]) -> Layer:
    """The layer that ``write`` puts into the file it is given, kept in the store. Blocks; leaves nothing half."""
    path = store.incoming()
    try:
        with path.open("wb") as out:
            written = write(out)
        store.adopt(path, written.digest, written.size_bytes)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    media_type = media_types.OCI_LAYERS[compression]
    return Layer(Descriptor(media_type=media_type, digest=written.digest, size=written.size_bytes), written.diff_id)
