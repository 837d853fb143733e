"""Writes changes as a layer: tar, digest, compression and digest again, in one pass and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from builder.changes import Change
from cache.oci.digest import Digest

Compression = Literal["gzip", "zstd", "none"]


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer that was written: digests and sizes of its tar and of the blob."""

    diff_id: Digest
    digest: Digest
    size_bytes: int
    tar_bytes: int


def write_layer(
    changes: Iterable[Change],
    out: BinaryIO,
    *,
    clamp_mtime_s: int | None = None,
    compression: Compression = "gzip",
    level: int | None = None,
) -> WrittenLayer:
    """Writes ``changes`` as a layer blob to ``out``; the same changes always give the same bytes.

    Times are whole seconds; later ones than ``clamp_mtime_s`` become it. Raises BuildError when a file changes while it
    is read.
    """
    raise NotImplementedError
