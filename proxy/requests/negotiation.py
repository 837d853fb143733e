"""Which form of an image a client takes (``Accept``, RFC 9110, section 12.5.1), judged from what is stored.

Bytes are never changed. The one case that is no plain answer: an old client that asks by tag, names manifest types and
takes no index gets the index's manifest for linux/amd64, as registries have always answered it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from cache.oci import media_types
from cache.oci.descriptor import Descriptor, Platform
from cache.oci.manifest import Index

DEFAULT_PLATFORM = Platform(os="linux", architecture="amd64")


@dataclass(frozen=True, slots=True)
class Accept:
    """What a client takes, in lower case: media types, ``type/*`` and ``*/*``, without those of weight zero."""

    taken: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()

    def takes(self, media_type: str) -> bool:
        """Whether the type is taken; the most exact range that covers it decides."""
        kind = media_type.lower()
        for covering in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if covering in self.taken:
                return True
            if covering in self.refused:
                return False
        return False


@functools.lru_cache(maxsize=64)
def parse_accept(*headers: str) -> Accept:
    """What the ``Accept`` headers say; parameters other than a weight of zero do not matter."""
    taken: set[str] = set()
    refused: set[str] = set()
    for member in ",".join(headers).split(","):
        kind, *parameters = (part.strip().lower() for part in member.split(";"))
        if kind:
            (refused if any(map(_is_zero, parameters)) else taken).add(kind)
    return Accept(frozenset(taken), frozenset(refused))


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip() in ("0", "0.", "0.0", "0.00", "0.000")


def wants_no_index(accept: Accept, media_type: str) -> bool:
    """Whether a client that asked for a tag cannot use what it points to, being an index."""
    return (
        media_type in media_types.INDEXES
        and bool(accept.taken & media_types.MANIFESTS)
        and not accept.takes(media_type)
    )


def instead_of(index: Index, accept: Accept) -> Descriptor | None:
    """The manifest that such a client gets; None when the index has none for it."""
    fitting = (found for found in index.manifests if found.platform and found.platform.matches(DEFAULT_PLATFORM))
    return next((found for found in fitting if accept.takes(found.media_type)), None)
