"""Unpacks a layer blob into a directory: decompress, digest and place in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from builder.rootfs import Tree
from cache.oci.digest import Digest

Compression = Literal["gzip", "zstd", "none"]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out: the digest and size of the uncompressed tar, and what could not be made, each with its reason."""

    diff_id: Digest
    size_bytes: int
    skipped: tuple[str, ...] = ()


def unpack_layer(
    source: BinaryIO, compression: Compression, directory: Path, *, overlay: bool, lower: Tree | None = None
) -> Unpacked:
    """Unpacks the layer ``source`` into ``directory`` and says what it was.

    With ``overlay`` the directory is new and this layer's own, and whiteouts are written as overlayfs reads them;
    ``lower`` is then the tree of the layers below, from which directories that the layer does not list itself get their
    owner and mode. Without it the layer is applied in place. The caller compares the diff_id, and drops the directory
    when this raises BuildError.
    """
    raise NotImplementedError
