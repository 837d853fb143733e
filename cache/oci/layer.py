"""A layer as data: what to fetch and what it is when unpacked."""

from __future__ import annotations

import hashlib

import msgspec

from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest


class Layer(msgspec.Struct, frozen=True):
    """A layer blob and its diff_id, the digest of the uncompressed tar. No content, no hidden I/O."""

    descriptor: Descriptor
    diff_id: Digest


def chain_id(below: Digest | None, diff_id: Digest) -> Digest:
    """The name of a stack of layers: the one whose chain id is ``below`` (None: no layer) with one more on it.

    image-spec, config.md, "Layer ChainID".
    """
    if below is None:
        return diff_id
    return Digest("sha256", hashlib.sha256(f"{below} {diff_id}".encode()).hexdigest())
