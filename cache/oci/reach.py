"""Where a registry may send us: which token servers get its credentials, and which networks it may point into."""

from __future__ import annotations

from dataclasses import dataclass

from cache.oci.networks import parse_address
from cache.oci.redirect import RefusedRedirect


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the registry at ``host`` is trusted with us.

    ``realm_hosts`` are token servers outside its own domain, ``private_hosts`` those that it may send us to in whatever
    network they are. ``for_token`` says that the request shows credentials to a token server.
    """

    host: str = ""
    realm_hosts: frozenset[str] = frozenset()
    private_hosts: frozenset[str] = frozenset()
    for_token: bool = False

    def check(self, host: str) -> None:
        """Returns when a request may go to ``host`` at all. Raises RefusedRedirect."""
        if self.for_token and _plain(host) not in self.realm_hosts and not is_own_realm(self.host, host):
            raise RefusedRedirect(
                f"sends us to {host}, which is not in the domain of {self.host}: expected one there,"
                " or that host among the realm-host settings"
            )

    def is_trusted(self, host: str) -> bool:
        """Whether ``host`` may be in any network: the registry itself, and what the settings name."""
        named = self.realm_hosts | self.private_hosts if self.for_token else self.private_hosts
        return self.is_own(host) or _plain(host) in named

    def is_own(self, host: str) -> bool:
        """Whether that is the registry itself."""
        return _plain(host) == _plain(self.host)


def is_own_realm(registry: str, realm: str) -> bool:
    """Whether the token server at ``realm`` goes with a registry: the same host, or one of its parent domain's.

    ``registry-1.docker.io`` has ``auth.docker.io``, ``registry.gitlab.com`` has ``gitlab.com``. A parent of one label
    is nobody's own, nor is one like ``co.uk`` (two letters after at most three): anybody can have a name under it.
    """
    registry, realm = _plain(registry), _plain(realm)
    if registry == realm:
        return True
    if parse_address(registry) is not None or parse_address(realm) is not None:
        return False
    parent = registry.partition(".")[2]
    *_, second, top = ["", "", *parent.split(".")]
    is_suffix = not second or (parent.count(".") == 1 and len(top) == 2 and len(second) <= 3)
    return not is_suffix and (realm == parent or realm.endswith(f".{parent}"))


def _plain(host: str) -> str:
    return host.lower().rstrip(".")
