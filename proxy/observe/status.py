"""How the proxy is now, gathered from what it counts."""

from __future__ import annotations

import time

from cache.units import told_bytes, told_seconds
from proxy.config import Upstream
from proxy.maintenance import Maintenance
from proxy.observe.status_page import Status, UpstreamStatus
from proxy.services import Services

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
        maintenance=_maintenance(services.maintenance),
    )


def _maintenance(maintenance: Maintenance) -> str:
    if not maintenance.is_on:
        return "off"
    last = maintenance.last
    if last is None:
        return "no round yet in this replica"
    parts = [f"last {told_seconds(max(0.0, time.time() - last.ended_at))} ago"]
    if last.reaped is not None:
        removed = last.reaped.unfinished
        parts.append(f"{removed.uploads + removed.files:,} leftovers removed")
    if last.scrubbed is not None:
        parts.append(f"{told_bytes(last.scrubbed.read_bytes)} read, {last.scrubbed.damaged:,} blobs damaged")
    return ", ".join(parts)


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
