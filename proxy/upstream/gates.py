"""The gates before the upstreams: a circuit breaker for each registry, and a rate limit for each account at it.

What passes is decided by values (``proxy.upstream.circuit``, ``proxy.upstream.quota``); here is who owns them. Nothing
is asked for it: every reply that comes for whatever reason says how the upstream is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog
from cachetools import LRUCache

from cache.oci.errors import RateLimited, RegistryError, Unreachable
from cache.oci.retry import retry_after_s
from proxy.auth.caller import Caller
from proxy.upstream.circuit import CLOSED, NOT_REACHED, SERVER_ERROR, TIMED_OUT, Circuit, Pace
from proxy.upstream.quota import Quota

MAX_ACCOUNTS = 10_000
MAX_REGISTRIES = 1000

log = structlog.get_logger()


class Gates:
    """All of them. ``clock`` counts seconds."""

    def __init__(self, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace = pace
        self.clock = clock
        self._circuits: LRUCache[str, Circuit] = LRUCache(MAX_REGISTRIES)
        self._quotas: LRUCache[tuple[str, str], Quota] = LRUCache(MAX_ACCOUNTS)

    def gate(self, name: str, url: str, caller: Caller, *, waits: bool = False) -> UpstreamGate:
        """The gate before the registry at ``url``, which people call ``name``, for one identity.

        ``waits`` = whoever is refused tries again by the schedule, and does not fail at once.
        """
        return UpstreamGate(self, name, url, caller, waits)

    def circuit(self, url: str) -> Circuit:
        """The circuit of the registry at ``url``."""
        return self._circuits.get(url, CLOSED)

    def set_circuit(self, name: str, url: str, after: Circuit) -> None:
        """Notes what became of a circuit; says so when it opens or closes."""
        before = self.circuit(url)
        self._circuits[url] = after
        if bool(before.times) != bool(after.times):
            log.warning("upstream_failing" if after.times else "upstream_recovered", upstream=name)

    def quota(self, key: tuple[str, str]) -> Quota:
        """What is known of an account, named by the registry's URL and the identity's fingerprint."""
        return self._quotas.get(key, _UNKNOWN)

    def set_quota(self, key: tuple[str, str], quota: Quota) -> None:
        """Notes what became of an account's quota; one that says nothing takes no room."""
        if quota != _UNKNOWN:
            self._quotas[key] = quota
        else:
            self._quotas.pop(key, None)


_UNKNOWN = Quota()


class UpstreamGate:
    """The gate before one registry, for one identity; see ``cache.oci.gate.Gate``."""

    def __init__(self, gates: Gates, name: str, url: str, caller: Caller, waits: bool) -> None:
        self._gates = gates
        self._name = name
        self._url = url
        self._key = (url, caller.fingerprint)
        self._patient = caller.patient
        self._waits = waits

    @property
    def shut(self) -> bool:
        """True when trying again at once is of no use."""
        if self._waits:
            return False
        now = self._gates.clock()
        closed = self._gates.quota(self._key).wait_s(now, costs=False, patient=False) > 0
        return closed or self._gates.circuit(self._url).wait_s(now) > 0

    @contextmanager
    def enter(self, method: str, path: str) -> Iterator[UpstreamGate]:
        """Lets a request pass. Raises RateLimited or Unreachable when the registry is not to be asked now."""
        costs = method == "GET" and "/manifests/" in path
        self._admit(method, path, costs)
        try:
            yield self
        except RegistryError as error:
            self._failed(error)
            raise
        finally:
            if costs:
                self._gates.set_quota(self._key, self._gates.quota(self._key).settled())

    def replied(self, status: int, headers: Mapping[str, str]) -> None:
        """Notes how the registry is by what it answered."""
        quota = self._gates.quota(self._key).stated(headers, self._gates.clock())
        self._gates.set_quota(self._key, quota)
        self._answered(status, retry_after_s(headers.get("Retry-After"), datetime.now(UTC)))

    def _answered(self, status: int, asked_s: float | None) -> None:
        quota, now = self._gates.quota(self._key), self._gates.clock()
        quota = quota.refused(asked_s, now, self._gates.pace) if status == 429 else quota.served()
        self._gates.set_quota(self._key, quota)
        if status >= 500:
            self._weigh(SERVER_ERROR, asked_s if status == 503 else None)
        else:
            self._gates.set_circuit(self._name, self._url, CLOSED)

    def _admit(self, method: str, path: str, costs: bool) -> None:
        now = self._gates.clock()
        url = self._url + path.partition("?")[0]
        circuit, quota = self._gates.circuit(self._url), self._gates.quota(self._key)
        if wait_s := circuit.wait_s(now):
            error = Unreachable(method, url, reason="it did not answer a moment ago, and is left alone")
            error.retry_after_s = wait_s
            raise error
        if wait_s := quota.wait_s(now, costs, self._patient):
            raise RateLimited(method, url, reason=self._why_limited(quota, now), retry_after_s=wait_s)
        self._gates.set_circuit(self._name, self._url, circuit.entered(now, self._gates.pace))
        if costs:
            self._gates.set_quota(self._key, quota.spent(now))

    def _why_limited(self, quota: Quota, now: float) -> str:
        left = quota.left(now)
        if now < quota.closed_until or left is None or left <= 0:
            return "its rate limit is used up"
        return f"{left} requests of its rate limit of {quota.limit} are left, and kept for those who wait for an answer"

    def _failed(self, error: RegistryError) -> None:
        """Notes what stood in the way of a reply: silence, or an answer on the way to it (the token server's)."""
        if isinstance(error, Unreachable):
            self._weigh(TIMED_OUT if error.timed_out else NOT_REACHED, None)
        elif error.status is not None:
            self._answered(error.status, error.retry_after_s)

    def _weigh(self, weight: int, asked_s: float | None) -> None:
        circuit = self._gates.circuit(self._url)
        after = circuit.failed(weight, self._gates.clock(), self._gates.pace, asked_s or 0.0)
        self._gates.set_circuit(self._name, self._url, after)
