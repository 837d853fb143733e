"""A layer as data: what to fetch and what it is when unpacked."""

from __future__ import annotations

from dataclasses import dataclass

from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer blob and its diff_id, the digest of the uncompressed tar. No content, no hidden I/O."""

    descriptor: Descriptor
    diff_id: Digest
