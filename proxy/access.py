"""Who may read what: the upstream's word, remembered for a short time.

The proxy has no accounts of its own. Content that is cached from an upstream's repository is served to those whom the
upstream itself lets in, with the credentials that they brought. What it let an anonymous client read is open to all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import LRUCache

from proxy.caller import NOBODY, Caller
from proxy.freshness import Standing, judge_standing
from proxy.routing import Proxied

MAX_REMEMBERED = 100_000


class Access:
    """Remembers, per upstream, repository and caller, when the upstream last let somebody read.

    Only permissions are remembered, never refusals: whoever was refused may have been let in since.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._granted_at: LRUCache[tuple[str, str, str], float] = LRUCache(MAX_REMEMBERED)

    def readable(self, route: Proxied, caller: Caller) -> bool:
        """True when the upstream let this caller, or anybody, read the repository within the time to live."""
        return self.standing(route, caller) is Standing.LET_IN

    def standing(self, route: Proxied, caller: Caller) -> Standing:
        """What the last that we heard of the repository from the upstream is worth to this caller now."""
        keys = {_key(route, caller), _key(route, NOBODY)}
        granted_at = max((at for key in keys if (at := self._granted_at.get(key)) is not None), default=None)
        return judge_standing(granted_at, self._clock(), route.upstream.freshness)

    def grant(self, route: Proxied, caller: Caller) -> None:
        """Notes that the upstream just let this identity read the repository."""
        self._granted_at[_key(route, caller)] = self._clock()

    def revoke(self, route: Proxied, caller: Caller) -> None:
        """Notes that the upstream just refused this identity."""
        self._granted_at.pop(_key(route, caller), None)


def _key(route: Proxied, caller: Caller) -> tuple[str, str, str]:
    return (route.namespace, route.repository, caller.fingerprint)
