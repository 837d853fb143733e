"""Where in which bucket a store is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where a store is. An empty endpoint or region is looked for where the AWS tools look."""

    bucket: str
    prefix: str = ""
    endpoint_url: str = ""
    region: str = ""

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise ValueError(f"{self.bucket!r} is not the name of a bucket")
        if self.prefix != self.prefix.strip("/"):
            raise ValueError(f"a prefix neither begins nor ends with '/', got {self.prefix!r}")

    @property
    def url(self) -> str:
        """The location as a person would write it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of a stored name."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def name(self, key: str) -> str:
        """The stored name of a key; the inverse of ``key``."""
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key
