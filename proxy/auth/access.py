"""Who may read what: the upstream's word, remembered for a short time.

Content that is cached from an upstream's repository is served to those whom the upstream itself lets in, with the
credentials that they brought, no matter whose brought it here. What it let an anonymous client read is open to all.
Where a repository is read with the proxy's own account (``proxy.auth.accounts``), the account is who asks, and which of
our clients may use it the rules say.

A permission is good for a repository and never for a blob: that a repository has the blob is known by proof
(``proxy.transfer.blobs``). Who is not known to be let in is asked for at the upstream before we look at what we hold or
wait for what somebody else has fetched, and hears nothing in the upstream's own words (``proxy.requests.replies``):
neither the answer nor the way to it tells what the proxy holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import LRUCache

from proxy.auth.caller import NOBODY, Caller
from proxy.requests.routing import Proxied
from proxy.upstream.freshness import Standing, judge_standing

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
