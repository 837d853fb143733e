"""How far out an IP address is. What is nearer to us than a registry is no place for that registry to send us to."""

from __future__ import annotations

import ipaddress
from enum import IntEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
"""Cloud metadata services that are not at a link-local address."""


class Network(IntEnum):
    """Kinds of networks; the greater, the farther from us."""

    LOOPBACK = 0
    PRIVATE = 1
    """Private use, shared (CGNAT, 100.64.0.0/10), and all else that is not routed in the internet."""
    PUBLIC = 2


def parse_address(host: str) -> Address | None:
    """The IP address that a URL's host is; None for names. One that embeds another (mapped, NAT64) is that other."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def network_of(host: str) -> Network | None:
    """Where an IP address is.

    None for what is no registry's business anywhere: link-local addresses and others with cloud metadata, multicast,
    unspecified and reserved ones, and whatever is not an address.
    """
    address = parse_address(host)
    if address is None or address in _METADATA:
        return None
    if address.is_loopback:
        return Network.LOOPBACK
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return None
    return Network.PUBLIC if address.is_global else Network.PRIVATE


def may_reach(origin: Network, address: str) -> bool:
    """Whether a registry in ``origin`` may send us to the IP address: never to a network nearer than its own."""
    network = network_of(address)
    return network is not None and network >= origin
