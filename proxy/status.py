"""How the proxy is now, gathered from what it counts."""

from __future__ import annotations

from proxy.config import Upstream
from proxy.services import Services
from proxy.status_page import Status, UpstreamStatus

_CACHED = ("hit", "stale")
_SERVED = (*_CACHED, "miss")
_KINDS = ("manifest", "blob")


def read_status(services: Services) -> Status:
    """The status for the page at ``/``."""
    served = {outcome: _served(services, outcome) for outcome in _SERVED}
    return Status(
        version=services.metrics.version,
        up_s=services.drain.up_s,
        draining=services.drain.draining,
        upstreams=tuple(_upstream(services, upstream) for upstream in services.config.upstreams.values()),
        hosted=services.config.hosted,
        fetches=len(services.fills),
        uploads=len(services.uploads),
        served=sum(served.values()),
        hits=sum(served[outcome] for outcome in _CACHED),
    )


def _served(services: Services, outcome: str) -> int:
    return sum(services.metrics.total("proxy_requests_total", kind=kind, outcome=outcome) for kind in _KINDS)


def _upstream(services: Services, upstream: Upstream) -> UpstreamStatus:
    return UpstreamStatus(
        name=upstream.name,
        is_default=upstream.name == services.config.default_upstream,
        requests=services.metrics.total("proxy_upstream_requests_total", upstream=upstream.name),
        last=services.metrics.last_status.get(upstream.name, 0),
        is_failing=services.upstreams.is_failing(upstream),
        remaining=services.metrics.remaining(upstream.name),
    )
