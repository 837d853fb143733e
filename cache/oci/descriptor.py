"""Content descriptors and platforms (OCI image-spec, "Descriptor" and "Image Index")."""

from __future__ import annotations

import msgspec

from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest

_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
_ALONE = frozenset(("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"))
"""Architectures that may stand for ``linux/`` and themselves, as for containerd, whose list is longer."""


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image runs: operating system, architecture and variant."""

    architecture: str
    os: str
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform written as ``os/architecture[/variant]``, or as an architecture of Linux. Raises ValueError."""
        parts = text.split("/")
        if _ALIASES.get(text, text) in _ALONE:
            parts = ["linux", text]
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text!r} is not a platform: expected os/architecture or os/architecture/variant")
        architecture = _ALIASES.get(parts[1], parts[1])
        variant = parts[2] if len(parts) == 3 else ""
        if (architecture, variant) == ("arm64", "v8"):
            variant = ""
        return cls(os=parts[0], architecture=architecture, variant=variant)

    def matches(self, wanted: Platform) -> bool:
        """True when an image for this platform serves who wants ``wanted``."""
        mine = "" if (self.architecture, self.variant) == ("arm64", "v8") else self.variant
        return (self.os, self.architecture) == (wanted.os, wanted.architecture) and wanted.variant in ("", mine)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a piece of content is, how long, and its digest."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InvalidManifest(f"descriptor of {self.digest} has a negative size: {self.size}")
