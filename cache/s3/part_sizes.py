"""How large the parts of a multipart upload are.

All parts are of one size as long as the blob is an ordinary one, as some servers (Cloudflare's R2) want it. A blob's
size is not known beforehand, and 10,000 parts is S3's limit: so the later parts of a giant grow.
"""

from __future__ import annotations

PART_BYTES = 8 << 20
"""A blob smaller than this is one PUT. Every writer holds a few parts; S3's least is 5 MiB."""

MAX_PARTS = 10_000
_EQUAL_PARTS = 3000
_DOUBLE_EVERY = 1000


def part_bytes(number: int) -> int:
    """The size of the part with this number (from 1 on). Raises ValueError past S3's limit."""
    if not 1 <= number <= MAX_PARTS:
        raise ValueError(f"part {number}: S3 takes parts 1 to {MAX_PARTS}")
    doublings = max(0, (number - 1 - _EQUAL_PARTS) // _DOUBLE_EVERY + 1) if number > _EQUAL_PARTS else 0
    return PART_BYTES << doublings
