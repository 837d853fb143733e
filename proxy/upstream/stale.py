"""Answering for an upstream that is ill with what it once showed: whether, how that is said, and that it is counted."""

from __future__ import annotations

from cache.oci.errors import RegistryError
from proxy.auth.access import Access
from proxy.auth.caller import Caller
from proxy.observe.metrics import Metrics
from proxy.requests.outcome import Cached, Outcome
from proxy.requests.routing import Proxied
from proxy.upstream.freshness import Failure, diagnose, judge_failure


class Stale:
    """Knows who was let in where, and counts."""

    def __init__(self, access: Access, metrics: Metrics) -> None:
        self._access = access
        self._metrics = metrics

    def outcome(
        self, route: Proxied, caller: Caller, error: RegistryError, past_s: float = 0.0, age_s: float | None = None
    ) -> Outcome:
        """How what is held is served in place of the upstream's answer. Raises ``error`` when it must not be.

        ``past_s`` is for how long it has not been fresh (0 = it never changes), ``age_s`` how long ago it was checked.
        """
        standing = self._access.standing(route, caller)
        if judge_failure(error, standing, past_s, route.upstream.freshness.max_stale_s) is Failure.RELAY:
            raise error
        ailment = diagnose(error)
        self._metrics.stale_served(route.namespace, ailment.name.lower())
        return Outcome(Cached.STALE, age_s, f"{route.namespace} {ailment.value}")
