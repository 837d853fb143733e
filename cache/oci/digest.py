"""Content digests (OCI image-spec, "Descriptor", section Digests)."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Protocol

from cache.oci.errors import InvalidDigest

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Hash(Protocol):
    """The part of a ``hashlib`` object that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@functools.total_ordering
class Digest:
    """``algorithm:hex``, with an algorithm that we can verify (sha256 or sha512); immutable.

    No dataclass: msgspec would write one as an object of two fields, where OCI wants a string.
    """

    __slots__ = ("algorithm", "hex")
    algorithm: str
    hex: str

    def __init__(self, algorithm: str, hexadecimal: str) -> None:
        length = HEX_LENGTHS.get(algorithm)
        if length is None:
            raise InvalidDigest(f"unknown digest algorithm {algorithm!r}: expected sha256 or sha512")
        if len(hexadecimal) != length or not _HEX.fullmatch(hexadecimal):
            raise InvalidDigest(f"{algorithm} digest needs {length} lower-case hex digits, got {hexadecimal!r}")
        object.__setattr__(self, "algorithm", algorithm)
        object.__setattr__(self, "hex", hexadecimal)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a digest cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a digest cannot be changed: {name}")

    def __reduce__(self) -> tuple[type[Digest], tuple[str, str]]:
        return Digest, (self.algorithm, self.hex)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and (self.algorithm, self.hex) == (other.algorithm, other.hex)

    def __lt__(self, other: Digest) -> bool:
        return (self.algorithm, self.hex) < (other.algorithm, other.hex)

    def __hash__(self) -> int:
        return hash((self.algorithm, self.hex))

    def __repr__(self) -> str:
        return f"Digest({str(self)!r})"

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
