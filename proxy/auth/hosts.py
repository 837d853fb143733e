"""Which names a client may call the proxy by, so that nobody's web page can talk to it under a name of their own.

A browser that was led to our address by an attacker's DNS (rebinding) still says the attacker's name in ``Host``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from cache.oci.redirect import is_loopback

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """``names`` in lower case, beside which every address is known to those who reach us at it."""

    names: frozenset[str]

    def accept(self, host: str, arrived_at: str) -> bool:
        """Whether ``host`` (as in the Host header; its port does not count) is a name for where a request arrived.

        ``arrived_at`` is our end of the connection: an IP address.
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").lower().rstrip(".")
        if name in self.names or name == arrived_at:
            return True
        ours = _address(arrived_at)
        return _address(name) == ours if ours is None or not ours.is_loopback else is_loopback(name)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
