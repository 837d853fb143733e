"""What to do with a reply that redirects: a pure decision, with the rules that keep credentials and networks apart.

- ``Authorization`` goes to the origin (scheme, host, port) that it was meant for, and never again once it was left.
- No step from https to http.
- No step to a link-local address (cloud metadata), nor from elsewhere to the loopback.
- What a registry may send us to beyond that, ``cache.oci.reach`` knows.
- Only GET and HEAD follow: a body cannot be sent twice.

URLs stay encoded as they came: a signed one is spoiled by any change.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from yarl import URL

from cache.oci.networks import parse_address

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CARRIED = frozenset({"accept", "accept-encoding", "range", "user-agent"})
"""Headers that may go to another origin."""


class RefusedRedirect(ValueError):
    """A redirect that must not be followed; says why, without the URL's query."""


class Target(msgspec.Struct, frozen=True):
    """Where a request goes, and with which headers."""

    url: URL
    headers: Mapping[str, str]


def parse_url(text: str) -> URL:
    """The URL with its encoding as it came; quoted only where it could not be sent so. Raises ValueError."""
    sendable = text.isascii() and text.isprintable() and " " not in text
    url = URL(text, encoded=sendable)
    _ = url.port  # an encoded URL is taken apart only here, and refused when that fails
    return url


def same_origin(one: URL, other: URL) -> bool:
    """True when scheme, host and port are equal."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def follow(target: Target, method: str, status: int, location: str | None) -> Target | None:
    """The next target, or None when the reply is final. Raises RefusedRedirect."""
    if status not in REDIRECTS or method not in ("GET", "HEAD") or not location:
        return None
    try:
        url = target.url.join(parse_url(location))
    except ValueError as error:
        raise RefusedRedirect("redirects to something that is not a URL") from error
    check_step(target.url, url)
    if same_origin(target.url, url):
        return Target(url, target.headers)
    return Target(url, {name: value for name, value in target.headers.items() if name.lower() in _CARRIED})


def check_step(origin: URL, url: URL) -> None:
    """Returns when a reply from ``origin`` may send us to ``url``. Raises RefusedRedirect."""
    if url.scheme not in ("http", "https") or not url.host or url.user is not None or url.password is not None:
        raise RefusedRedirect("sends us to something that is not a plain http or https URL")
    if origin.scheme == "https" and url.scheme != "https":
        raise RefusedRedirect(f"sends us from https to http at {url.host}")
    if origin.host == url.host:
        return
    address = parse_address(url.host)
    if address is not None and address.is_link_local:
        raise RefusedRedirect(f"sends us to the link-local address {url.host}")
    if is_loopback(url.host) and not is_loopback(origin.host or ""):
        raise RefusedRedirect(f"sends us to this machine's own address {url.host}")


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses; ``host`` without a port."""
    name = host.lower().rstrip(".")
    address = parse_address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)
