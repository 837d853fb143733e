"""Where blobs were seen lately: hints for mounts that name no source. A hint proves nothing and is forgotten freely."""

from __future__ import annotations

from cachetools import LRUCache

from cache.oci.digest import Digest
from proxy.requests.routing import Route

MAX_BLOBS = 50_000
MAX_PLACES = 4


class Sightings:
    """The latest few repositories in which each blob was seen."""

    def __init__(self) -> None:
        self._places: LRUCache[Digest, tuple[Route, ...]] = LRUCache(MAX_BLOBS)
        self._brought: LRUCache[tuple[Digest, str], Route] = LRUCache(MAX_BLOBS)

    def note_push(self, route: Route, digest: Digest, who: str) -> None:
        """Notes that the repository has the blob, and who brought it there."""
        self._brought[(digest, who)] = route
        self.note(route, digest)

    def brought(self, digest: Digest, who: str) -> Route | None:
        """Where this very identity brought the blob last: that it is there is nothing new to them."""
        return self._brought.get((digest, who))

    def note(self, route: Route, digest: Digest) -> None:
        """Notes that the repository has the blob."""
        known = self._places.get(digest, ())
        if not known or known[0] != route:
            others = (place for place in known if place != route)
            self._places[digest] = (route, *others)[:MAX_PLACES]

    def places(self, digest: Digest) -> tuple[Route, ...]:
        """Where the blob was seen, the latest first."""
        return self._places.get(digest, ())
