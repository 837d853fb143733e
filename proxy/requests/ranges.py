"""Byte ranges: ``Range`` on blobs (RFC 9110) and ``Content-Range`` on upload chunks (distribution-spec)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.errors import InvalidRequest, Refused

_RANGE = re.compile(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*")
_CHUNK = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/.*)?")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int

    @property
    def length_bytes(self) -> int:
        return self.stop - self.start


class RangeNotSatisfiable(Refused):
    """416: the range lies outside the blob of ``size_bytes``."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(416, "RANGE_INVALID", f"the range does not fit a blob of {size_bytes} bytes")
        self.size_bytes = size_bytes


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The part of a blob that ``Range`` asks for, clipped to its size; None = all of it.

    Several ranges, and what is not ours to understand, mean all of it, as RFC 9110 allows. ``500-0`` is refused:
    conformance suites want that, although the RFC would ignore it. Raises RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    if start >= stop:
        raise RangeNotSatisfiable(size_bytes)
    return ByteRange(start, stop)


def parse_chunk(header: str | None) -> ByteRange | None:
    """Which bytes of an upload a chunk says that it holds; None = it does not say.

    distribution-spec writes ``0-99``; ``bytes 0-99/*`` is taken as well. Raises InvalidRequest.
    """
    if header is None:
        return None
    match = _CHUNK.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidRequest("BLOB_UPLOAD_INVALID", f"Content-Range is {header!r}: expected first-last")
    return ByteRange(int(match[1]), int(match[2]) + 1)
