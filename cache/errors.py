"""The errors of the stores and of what is built on them.

    CacheError
    ├── BlobNotFound(digest)                        absent: nothing is wrong with the store
    ├── DigestMismatch(expected, actual, size)      the bytes are not what their name says
    ├── SizeMismatch(digest, expected, actual)
    ├── RecordConflict(name)                        a compare-and-swap lost
    ├── DamagedRecord(name)                         a record that is there but cannot be understood
    └── StoreUnavailable(store, operation)          the store failed: nothing is known about the content
        ├── StoreFull
        └── CondemnedUnknown                        nor of what gc is about to delete

Absent and failed are never the same: no caller may take StoreUnavailable for a miss without saying so.
"""

from __future__ import annotations

from cache.oci.digest import Digest


class CacheError(Exception):
    """Anything that the stores refuse or cannot do."""


class BlobNotFound(CacheError):
    """The store does not hold this blob."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"blob {digest} is not in the store")
        self.digest = digest


class DigestMismatch(CacheError):
    """Bytes that do not have the digest they were said to have."""

    def __init__(self, expected: Digest, actual: Digest, size: int) -> None:
        super().__init__(f"expected {expected}, but {size} bytes came with {actual}")
        self.expected = expected
        self.actual = actual
        self.size = size


class SizeMismatch(CacheError):
    """More or fewer bytes than announced."""

    def __init__(self, digest: Digest, expected: int, actual: int) -> None:
        super().__init__(f"expected {expected} bytes for {digest}, got {actual}")
        self.digest = digest
        self.expected = expected
        self.actual = actual


class RecordConflict(CacheError):
    """A record changed, appeared or went since its version was read."""

    def __init__(self, name: str) -> None:
        super().__init__(f"record {name} was changed by somebody else")
        self.name = name


class DamagedRecord(CacheError):
    """A record that is there, but whose content is not what we write."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"record {name} is damaged, remove it: {reason}")
        self.name = name


class StoreUnavailable(CacheError):
    """The store could not do what it was asked; whether the content is there is unknown."""

    def __init__(self, store: str, operation: str, reason: str = "") -> None:
        super().__init__(f"store {store} failed to {operation}" + (f": {reason}" if reason else ""))
        self.store = store
        self.operation = operation


class StoreFull(StoreUnavailable):
    """No space left in the store."""


class CondemnedUnknown(StoreUnavailable):
    """What gc has condemned could not be read for so long that no push may be acknowledged."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, "say what gc has condemned", reason)
