"""Manifests that refer to others (distribution-spec, "Listing Referrers" and "Referrers Tag Schema")."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import Index, Manifest

ALGORITHM_CHARACTERS = 32
ENCODED_CHARACTERS = 64
INLINE_BYTES = 16 * 1024
"""The annotations of manifests up to this size are kept beside them where referrers are noted."""


def fallback_tag(subject: Digest) -> str:
    """The tag under which clients keep the index of referrers where the registry has no API for them."""
    return f"{subject.algorithm[:ALGORITHM_CHARACTERS]}-{subject.hex[:ENCODED_CHARACTERS]}"


def referrer(manifest: Manifest | Index, digest: Digest) -> Descriptor:
    """How a list of referrers describes this manifest, which is known by ``digest``.

    An image manifest without an artifact type has its config's media type for one, an index has none.
    """
    implied = manifest.config.media_type if isinstance(manifest, Manifest) else ""
    return Descriptor(
        media_type=manifest.media_type,
        digest=digest,
        size=len(manifest.raw),
        annotations=dict(manifest.annotations),
        artifact_type=manifest.artifact_type or implied,
    )


def of_type(referrers: Iterable[Descriptor], artifact_type: str) -> tuple[Descriptor, ...]:
    """Those of the type; all of them when it is ""."""
    return tuple(found for found in referrers if artifact_type in ("", found.artifact_type))


def brief(described: Descriptor) -> Descriptor:
    """The descriptor as it is noted: without its annotations when its manifest is large, so that notes stay small."""
    return described if described.size <= INLINE_BYTES else msgspec.structs.replace(described, annotations={})


def with_referrer(noted: tuple[Descriptor, ...], added: Descriptor) -> tuple[Descriptor, ...]:
    """The referrers and one more, in the order of the digests."""
    return tuple(sorted((*without_referrer(noted, added.digest), added), key=lambda found: found.digest))


def without_referrer(noted: tuple[Descriptor, ...], removed: Digest) -> tuple[Descriptor, ...]:
    """The referrers but one."""
    return tuple(found for found in noted if found.digest != removed)
