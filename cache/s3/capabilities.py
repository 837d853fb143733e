"""What an S3 server can do, as found by trying, and what a store makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Matching(Enum):
    """How ``If-Match`` wants an ETag: as the server itself gives it, or without the quotes (Ceph 16)."""

    QUOTED = "quoted"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The server's abilities; the defaults are Amazon's.

    Three are required, since nothing can stand in for them: ``If-None-Match`` and ``If-Match`` on PUT, and ranges. The
    others have a fallback:

    - ``conditional_complete``: without it two writers of one blob may both complete; they have the same verified bytes.
    - ``conditional_delete``: without it a record is removed under compare-and-swap by making it empty.
    - ``takes_checksums``: False when the server refuses a request because it carries ``x-amz-checksum-sha256``.
    - ``refuses_wrong_bytes``: without it bytes that change on the way to the bucket are found only when they are read.
    """

    matching: Matching = Matching.QUOTED
    conditional_complete: bool = True
    conditional_delete: bool = True
    takes_checksums: bool = True
    refuses_wrong_bytes: bool = True

    def etag(self, etag: str) -> str:
        """An ETag as ``If-Match`` of a write wants it."""
        return etag.strip('"') if self.matching is Matching.BARE else etag

    def missing(self) -> tuple[str, ...]:
        """What the server lacks, in words, each with what is done instead."""
        lacks = (
            (self.matching is Matching.BARE, "If-Match takes ETags only without quotes: sent so"),
            (not self.conditional_complete, "Complete is not conditional: the same bytes may be completed twice"),
            (not self.conditional_delete, "DELETE is not conditional: removed records may leave empty objects"),
            (not self.takes_checksums, "x-amz-checksum-sha256 is refused: not sent"),
            (not self.refuses_wrong_bytes, "checksums are not verified: only reading finds bytes damaged on the way"),
        )
        return tuple(text for lacking, text in lacks if lacking)


AMAZON = Capabilities()
