"""What an upstream said that it does not have, remembered for seconds, so that not every client asks it anew.

A push through this proxy ends that at once, and an answer that was asked for before a push is not kept after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import LRUCache

from cache.oci.digest import Digest
from cache.oci.errors import NotFound
from proxy.auth.caller import Caller
from proxy.requests.routing import Proxied

MAX_ABSENT = 50_000
MAX_CHANGED = 10_000
MAX_ASKERS = 100
"""How many identities' answers are kept for one name."""


class Absences:
    """The 404s of upstreams, each for the identity that got it: to another one the same thing may be shown.

    ``clock`` counts seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._absent: LRUCache[tuple[str, str, str], dict[str, tuple[float, NotFound]]] = LRUCache(MAX_ABSENT)
        self._changes: LRUCache[tuple[str, str], int] = LRUCache(MAX_CHANGED)

    def check(self, route: Proxied, reference: str | Digest, caller: Caller) -> None:
        """Returns unless the upstream said just now that it has no such manifest or blob. Raises NotFound then."""
        key = _key(route, reference)
        until, error = self._absent.get(key, {}).get(caller.fingerprint, (0.0, None))
        if error is not None and self._clock() < until:
            raise error.with_traceback(None)

    def epoch(self, route: Proxied) -> int:
        """Changes whenever the repository is changed through us; take it before the upstream is asked."""
        return self._changes.get((route.namespace, route.repository), 0)

    def note(self, route: Proxied, reference: str | Digest, caller: Caller, error: NotFound, epoch: int) -> None:
        """Keeps an upstream's 404, unless something was pushed since ``epoch``."""
        if epoch != self.epoch(route):
            return
        askers = self._absent.setdefault(_key(route, reference), {})
        if len(askers) >= MAX_ASKERS:
            askers.clear()
        askers[caller.fingerprint] = (self._clock() + route.upstream.freshness.negative_ttl_s, error)

    def end(self, route: Proxied, reference: str | Digest) -> None:
        """Notes that the repository has it now, or something else under this name, or nothing any more."""
        self._changes[(route.namespace, route.repository)] = self.epoch(route) + 1
        self._absent.pop(_key(route, reference), None)


def _key(route: Proxied, reference: str | Digest) -> tuple[str, str, str]:
    return (route.namespace, route.repository, str(reference))
