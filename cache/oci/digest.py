"""Content digests (OCI image-spec, "Descriptor", section Digests)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from cache.oci.errors import InvalidDigest

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Hash(Protocol):
    """The part of a ``hashlib`` object that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """``algorithm:hex``, with an algorithm that we can verify (sha256 or sha512)."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = HEX_LENGTHS.get(self.algorithm)
        if length is None:
            raise InvalidDigest(f"unknown digest algorithm {self.algorithm!r}: expected sha256 or sha512")
        if len(self.hex) != length or not _HEX.fullmatch(self.hex):
            raise InvalidDigest(f"{self.algorithm} digest needs {length} lower-case hex digits, got {self.hex!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest written as ``algorithm:hex``. Raises InvalidDigest."""
        algorithm, colon, hexadecimal = text.partition(":")
        if not colon:
            raise InvalidDigest(f"{text!r} is not a digest: expected algorithm:hex")
        return cls(algorithm, hexadecimal)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> Hash:
        """A new, empty hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
