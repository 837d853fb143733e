"""Cache keys: a versioned, framed hash of everything that can change a step's result.

Every field goes in as tag, length and bytes, so that no two different lists of fields can give the same input. A change
of what goes in, or of its form, is a new ``SCHEMA_VERSION``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SCHEMA_VERSION = 1
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class CacheKey:
    """The name of a step's result: 64 lower-case hex digits, which any registry takes as a tag."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise ValueError(f"a cache key has 64 lower-case hex digits, got {self.hex!r}")

    def __str__(self) -> str:
        return self.hex


class KeyBuilder:
    """Collects fields and gives their key.

    ``kind`` names what the key is of (``run``, ``copy``, ``base`` …), so that equal fields of different kinds differ.
    """

    def __init__(self, kind: str) -> None:
        self._hash = hashlib.sha256(b"crossdock-key")
        self._frame("schema", str(SCHEMA_VERSION).encode())
        self.text("kind", kind)

    def _frame(self, tag: str, value: bytes) -> None:
        name = tag.encode()
        self._hash.update(len(name).to_bytes(8, "big") + name + len(value).to_bytes(8, "big") + value)

    def data(self, tag: str, value: bytes) -> KeyBuilder:
        """Adds bytes."""
        self._frame(tag, value)
        return self

    def text(self, tag: str, value: str) -> KeyBuilder:
        """Adds text (file names that are not UTF-8 come as surrogate escapes)."""
        return self.data(tag, value.encode("utf-8", "surrogateescape"))

    def items(self, tag: str, values: Iterable[str]) -> KeyBuilder:
        """Adds a list of texts, in order."""
        listed = list(values)
        self.data(tag, str(len(listed)).encode())
        for value in listed:
            self.text(tag, value)
        return self

    def mapping(self, tag: str, values: Mapping[str, str]) -> KeyBuilder:
        """Adds a mapping; the order of its items does not matter."""
        return self.items(tag, (part for name in sorted(values) for part in (name, values[name])))

    def key(self) -> CacheKey:
        """The key of what has been added so far."""
        return CacheKey(self._hash.hexdigest())
