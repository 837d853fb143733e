"""Cache keys: a versioned, framed hash of everything that can change a step's result.

Every field goes in as tag, length and bytes, so that no two different lists of fields can give the same input. A change
of what goes in, or of its form, is a new ``SCHEMA_VERSION``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

SCHEMA_VERSION = 1
_HEX = re.compile(r"[0-9a-f]{64}")


Parts = tuple[tuple[str, str], ...]
"""What went into a key, by label, as text to compare: a short hash of each value, so that no value is in it."""

_PART_HEX_DIGITS = 8
"""Of a part's SHA-256: enough to see that two differ, too few to prove a guess of what it was."""


class CacheKey(msgspec.Struct, frozen=True, order=True):
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
        self._parts: list[tuple[str, bytes]] = []
        self._frame("schema", str(SCHEMA_VERSION).encode())
        self.text("kind", kind)

    def _frame(self, tag: str, value: bytes) -> None:
        name = tag.encode()
        self._hash.update(len(name).to_bytes(8, "big") + name + len(value).to_bytes(8, "big") + value)

    def data(self, tag: str, value: bytes) -> KeyBuilder:
        """Adds bytes."""
        self._frame(tag, value)
        self._parts.append((tag, value))
        return self

    def text(self, tag: str, value: str) -> KeyBuilder:
        """Adds text (file names that are not UTF-8 come as surrogate escapes)."""
        return self.data(tag, _encoded(value))

    def items(self, tag: str, values: Iterable[str]) -> KeyBuilder:
        """Adds a list of texts, in order."""
        listed = [_encoded(value) for value in values]
        self._frame_all(tag, listed)
        self._parts.append((tag, b"".join(len(value).to_bytes(8, "big") + value for value in listed)))
        return self

    def _frame_all(self, tag: str, values: Sequence[bytes]) -> None:
        self._frame(tag, str(len(values)).encode())
        for value in values:
            self._frame(tag, value)

    def mapping(self, tag: str, values: Mapping[str, str]) -> KeyBuilder:
        """Adds a mapping; the order of its items does not matter."""
        pairs = [(_encoded(name), _encoded(values[name])) for name in sorted(values)]
        self._frame_all(tag, [part for pair in pairs for part in pair])
        self._parts += [(f"{tag} {name.decode('utf-8', 'replace')}", value) for name, value in pairs]
        return self

    def parts(self) -> Parts:
        """What has been added so far, in order; labels are tags, and for a mapping tag and name."""
        return tuple((label, hashlib.sha256(value).hexdigest()[:_PART_HEX_DIGITS]) for label, value in self._parts)

    def key(self) -> CacheKey:
        """The key of what has been added so far."""
        return CacheKey(self._hash.hexdigest())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
