"""The stored form of a record: its version, a newline, its value. The same in files and in a bucket.

Versions are random: a record that gets an earlier value back has another version, another content and another ETag
all the same, so a compare-and-swap cannot take the one for the other.
"""

from __future__ import annotations

import re

from cache.errors import DamagedRecord
from cache.store import Record

VERSION_BYTES = 16
"""How much randomness makes a version; written as twice as many hex digits."""

_VERSION = re.compile(rb"[0-9a-f]{32}")


def encode(version: str, value: bytes) -> bytes:
    """What is stored of a record."""
    return version.encode("ascii") + b"\n" + value


def decode(name: str, content: bytes) -> Record:
    """The record in ``content``. Raises DamagedRecord."""
    version, newline, value = content.partition(b"\n")
    if not newline or not _VERSION.fullmatch(version):
        raise DamagedRecord(name, "it does not begin with a version")
    return Record(value, version.decode("ascii"))
