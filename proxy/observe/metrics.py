"""What the proxy counts, in Prometheus' terms.

Every label is one of few words: an upstream of the configuration, a kind of request, an outcome. A repository, a digest
or a user never becomes one. The children of a metric are looked up once and kept: ``labels()`` costs more than counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics import MetricWrapperBase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DURATIONS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
WAITS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_SOURCES = {"hit": "cache", "stale": "cache", "miss": "upstream", "bypass": "upstream"}

M = TypeVar("M", bound=MetricWrapperBase)


class _Children(dict[tuple[str, ...], M]):
    """A metric's children by their labels' values."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        child = self[values] = self._metric.labels(*values)
        return child


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that has been answered. ``outcome`` is X-Cache's word, or ``refused`` or ``failed``."""

    kind: str
    outcome: str
    seconds: float
    sent_bytes: int = 0


class Metrics:
    """All metrics of one proxy. Is an ``Observer`` of the requests to upstreams."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.version = metadata.version("crossdock")
        self.last_status: dict[str, int | None] = {}
        """What each upstream answered last; None = nothing."""
        self._upstreams: frozenset[str] = frozenset()
        self._requests = self._counter("proxy_requests", "Requests answered.", "kind", "outcome")
        self._durations = _Children(
            Histogram(
                "proxy_request_duration_seconds",
                "From a request's head to the end of its reply.",
                ("kind",),
                buckets=DURATIONS_S,
                registry=self.registry,
            )
        )
        self._served = self._counter("proxy_served_bytes", "Bytes of bodies sent to clients.", "source")
        self._refused = self._counter("proxy_refused", "Requests refused.", "reason")
        self._pushes = self._counter("proxy_pushes", "Blobs and manifests pushed, and deletions.", "kind", "outcome")
        self._upstream_requests = self._counter(
            "proxy_upstream_requests", "Requests to upstreams.", "upstream", "status_class"
        )
        self._upstream_bytes = self._counter("proxy_upstream_received_bytes", "Bytes from upstreams.", "upstream")
        self._upstream_waits = _Children(
            Histogram(
                "proxy_upstream_seconds",
                "From a request to an upstream to its reply's head.",
                ("upstream",),
                buckets=WAITS_S,
                registry=self.registry,
            )
        )
        self._tokens = self._counter("proxy_token_fetches", "Tokens fetched for upstreams.", "upstream")
        self._rate_limited = self._counter("proxy_rate_limited", "Replies 429 of upstreams.", "upstream")
        self._stale = self._counter("proxy_stale_served", "Replies with stale content.", "upstream", "reason")
        self._remaining = _Children(
            Gauge(
                "proxy_rate_limit_remaining",
                "Requests that an upstream still allows, as it last said.",
                ("upstream",),
                registry=self.registry,
            )
        )
        self._cluster_fills = self._counter("proxy_cluster_fills", "Blobs fetched as one of several replicas.", "role")
        self._store_errors = Counter("proxy_store_errors", "Operations that the store failed.", registry=self.registry)
        self._tag_changes = self._counter(
            "proxy_tag_changes", "Hosted tags pushed again with other content.", "outcome"
        )
        self._redirects = self._counter("proxy_redirects", "Blobs for which a redirect was decided on.", "outcome")
        self._maintenance = self._counter("proxy_maintenance", "Tasks done for the store.", "task", "outcome")
        self._reaped = self._counter("proxy_reaped", "What was left behind in the store, and removed.", "kind")
        self._scrubbed = Counter("proxy_scrubbed_bytes", "Bytes read to find damage.", registry=self.registry)
        self._damaged = Counter("proxy_damaged_blobs", "Blobs found damaged.", registry=self.registry)
        self._fetches = Gauge("proxy_inflight_fetches", "Blobs being fetched from upstreams.", registry=self.registry)
        self._uploads = Gauge("proxy_uploads_open", "Uploads under way.", registry=self.registry)
        build = Info("crossdock_build", "This program.", registry=self.registry)
        build.info({"version": self.version})

    def _counter(self, name: str, text: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, text, labels, registry=self.registry))

    def expose(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def total(self, name: str, **labels: str) -> int:
        """The sum of a metric's samples that have these labels. Looks through all of them: not for a hot path."""
        return int(
            sum(
                sample.value
                for metric in self.registry.collect()
                for sample in metric.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )
        )

    def remaining(self, upstream: str) -> int | None:
        """What an upstream last said to be left of its rate limit; None when it never did."""
        value = self.registry.get_sample_value("proxy_rate_limit_remaining", {"upstream": upstream})
        return int(value) if value is not None else None

    def watch(self, fetches: Callable[[], int], uploads: Callable[[], int]) -> None:
        """Says where to look for what goes on now."""
        self._fetches.set_function(fetches)
        self._uploads.set_function(uploads)

    def know(self, upstreams: Iterable[str]) -> None:
        """Says which upstreams there are: no other name ever becomes a label."""
        self._upstreams = frozenset(upstreams)

    def request(self, answered: Answered) -> None:
        """Counts a request."""
        self._requests[(answered.kind, answered.outcome)].inc()
        self._durations[(answered.kind,)].observe(answered.seconds)
        if answered.sent_bytes and (source := _SOURCES.get(answered.outcome)) is not None:
            self._served[(source,)].inc(answered.sent_bytes)

    def refused(self, reason: str) -> None:
        """Counts a refusal."""
        self._refused[(reason,)].inc()

    def pushed(self, kind: str, outcome: str) -> None:
        """Counts a push or a deletion."""
        self._pushes[(kind, outcome)].inc()

    def stale_served(self, upstream: str, reason: str) -> None:
        """Counts a reply with stale content."""
        if upstream in self._upstreams:
            self._stale[(upstream, reason)].inc()

    def rate_limit(self, upstream: str, remaining: int) -> None:
        """Notes how much of its rate limit the upstream says is left."""
        if upstream in self._upstreams:
            self._remaining[(upstream,)].set(remaining)

    def cluster_fill(self, role: str) -> None:
        """Counts a fill that was ``led``, ``followed`` from another replica, or ``taken_over`` from one."""
        self._cluster_fills[(role,)].inc()

    def store_failed(self) -> None:
        """Counts a failure of the store."""
        self._store_errors.inc()

    def tag_changed(self, outcome: str) -> None:
        """Counts a push of other content under a hosted tag: ``changed``, or ``refused`` as the first writer counts."""
        self._tag_changes[(outcome,)].inc()

    def redirected(self, outcome: str) -> None:
        """Counts a blob for which a client was sent, or was to be sent, to the bucket."""
        self._redirects[(outcome,)].inc()

    def maintained(self, task: str, outcome: str) -> None:
        """Counts a task of maintenance."""
        self._maintenance[(task, outcome)].inc()

    def reaped(self, **removed: int) -> None:
        """Counts what was removed, by its kind."""
        for kind, count in removed.items():
            self._reaped[(kind,)].inc(count)

    def scrubbed(self, read_bytes: int, damaged: int) -> None:
        """Counts what was read to find damage, and the damage found."""
        self._scrubbed.inc(read_bytes)
        self._damaged.inc(damaged)

    def answered(self, registry: str, status: int | None, seconds: float, headers: Mapping[str, str]) -> None:
        """A reply of an upstream, or None."""
        if registry not in self._upstreams:
            return
        self._upstream_requests[(registry, f"{status // 100}xx" if status is not None else "none")].inc()
        self._upstream_waits[(registry,)].observe(seconds)
        self.last_status[registry] = status
        if status == 429:
            self._rate_limited[(registry,)].inc()
        remaining = headers.get("ratelimit-remaining", "").partition(";")[0].strip()
        if remaining.isascii() and remaining.isdigit():
            self._remaining[(registry,)].set(int(remaining))

    def received(self, registry: str, size_bytes: int) -> None:
        """Bytes of an upstream."""
        if registry in self._upstreams:
            self._upstream_bytes[(registry,)].inc(size_bytes)

    def token_fetched(self, registry: str) -> None:
        """A token for an upstream."""
        if registry in self._upstreams:
            self._tokens[(registry,)].inc()
