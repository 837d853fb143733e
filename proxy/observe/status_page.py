"""The page at ``/``: how the proxy is, for whoever opens it in a browser.

It says what the metrics say, and no more: no repository and no user, so everybody who reaches the proxy may see it.
It is HTML without script, and nothing in it comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from cache.units import told_seconds

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:50em;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:left}"
)


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """``last`` is the last status that came, None when none did, 0 before the first request."""

    name: str
    is_default: bool
    requests: int
    last: int | None
    is_failing: bool
    remaining: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """``served`` and ``hits`` are requests for manifests and blobs since the start, ``maintenance`` is a text."""

    version: str
    up_s: float
    draining: bool
    upstreams: tuple[UpstreamStatus, ...]
    hosted: tuple[str, ...]
    fetches: int
    uploads: int
    served: int
    hits: int
    maintenance: str


def render_status(status: Status) -> str:
    """The whole page."""
    state = "about to stop" if status.draining else "serving"
    ratio = f"{status.hits / status.served:.0%} of {status.served:,}" if status.served else "none asked for yet"
    facts = (
        ("State", f"{state}, for {told_seconds(status.up_s)}"),
        ("Manifests and blobs served from the cache", ratio),
        ("Blobs being fetched", str(status.fetches)),
        ("Uploads open", str(status.uploads)),
        ("Maintenance of the store", status.maintenance),
        ("Hosted here", ", ".join(f"{prefix}/" for prefix in status.hosted) or "nothing"),
    )
    title = f"Crossdock proxy {status.version}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{_table(facts)}<h2>Upstreams</h2>{_table(_upstreams(status.upstreams), _HEAD)}"
        '<p><a href="/metrics">Metrics</a></p></body></html>\n'
    )


_HEAD = ("Registry", "State", "Requests", "Rate limit left")


def _upstreams(upstreams: Iterable[UpstreamStatus]) -> Iterator[tuple[str, ...]]:
    for upstream in upstreams:
        name = f"{upstream.name} (default)" if upstream.is_default else upstream.name
        remaining = "" if upstream.remaining is None else str(upstream.remaining)
        yield name, _state(upstream), f"{upstream.requests:,}", remaining


def _state(upstream: UpstreamStatus) -> str:
    if upstream.is_failing:
        return "failing: asked now and then, to see whether it is back"
    match upstream.last:
        case 0:
            return "not asked yet"
        case None:
            return "did not answer the last request"
        case status if status >= 500 or status == 429:
            return f"answered {status} to the last request"
    return "answers"


def _table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{titles}</tr>' if head else ''}{body}</table>"
