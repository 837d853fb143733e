"""Which HTTP proxy a request goes through, by the variables that every program reads (as Go's httpproxy does; pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from yarl import URL

from cache.oci.redirect import is_loopback


def proxy_for(url: URL, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL, from ``HTTP_PROXY`` or ``HTTPS_PROXY`` in either case; None for what is reached directly.

    That is this machine, and what ``NO_PROXY`` names: hosts with all below them, addresses, networks, or ``*``.
    """
    proxy = _variable(environ, f"{url.scheme}_proxy")
    host = (url.host or "").lower().rstrip(".")
    if not proxy or is_loopback(host):
        return None
    named = (name.strip().lower() for name in _variable(environ, "no_proxy").split(","))
    if any(_names(name, host, url.port) for name in named if name):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.upper()) or environ.get(name) or ""


def _names(name: str, host: str, port: int | None) -> bool:
    if name == "*":
        return True
    bare, _, only_port = name.rpartition(":") if name.count(":") == 1 else (name, "", "")
    if only_port and only_port != str(port):
        return False
    if _holds(bare, host):
        return True
    suffix = bare.removeprefix("*")
    return host == suffix or host.endswith(suffix if suffix.startswith(".") else f".{suffix}")


def _holds(network: str, host: str) -> bool:
    """Whether it is a network, or an address, that the host is in."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
