"""Who may read what: the upstream's word, remembered for a short time.

The proxy has no accounts of its own. Content that is cached from an upstream's repository is served to those whom the
upstream itself lets in, with the credentials that they brought. What it let an anonymous client read is open to all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import TTLCache

from proxy.caller import NOBODY, Caller
from proxy.routing import Proxied

GRACE_S = 3600.0
"""How long an old permission still counts while the upstream cannot be asked."""
MAX_REMEMBERED = 100_000


class Access:
    """Remembers, per upstream, repository and caller, when the upstream last let somebody read.

    Only permissions are remembered, never refusals: whoever was refused may have been let in since.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._granted_at: TTLCache[tuple[str, str, str], float] = TTLCache(MAX_REMEMBERED, GRACE_S, timer=clock)

    def readable(self, route: Proxied, caller: Caller) -> bool:
        """True when the upstream let this caller, or anybody, read the repository within the time to live."""
        age_s = self._age_s(route, caller)
        return age_s is not None and age_s < route.upstream.freshness.access_ttl_s

    def was_readable(self, route: Proxied, caller: Caller) -> bool:
        """True when the last that we heard of it was a permission, within the grace period."""
        return self._age_s(route, caller) is not None

    def grant(self, route: Proxied, caller: Caller) -> None:
        """Notes that the upstream just let this identity read the repository."""
        self._granted_at[_key(route, caller)] = self._clock()

    def revoke(self, route: Proxied, caller: Caller) -> None:
        """Notes that the upstream just refused this identity."""
        self._granted_at.pop(_key(route, caller), None)

    def _age_s(self, route: Proxied, caller: Caller) -> float | None:
        keys = {_key(route, caller), _key(route, NOBODY)}
        granted = [at for key in keys if (at := self._granted_at.get(key)) is not None]
        return self._clock() - max(granted) if granted else None


def _key(route: Proxied, caller: Caller) -> tuple[str, str, str]:
    return (route.namespace, route.repository, caller.fingerprint)
