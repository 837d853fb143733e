"""The clients of the upstreams: one connection pool and one cache of tokens for all."""

from __future__ import annotations

from cachetools import TTLCache

from cache.oci.auth import TokenCache
from cache.oci.client import RegistryClient
from cache.oci.observer import UNOBSERVED, Observer
from cache.oci.profile import Profile
from cache.oci.reach import Reach
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from proxy.caller import Caller
from proxy.config import Upstream

BACKOFF = Backoff(tries=3, first_s=0.2, factor=3.0, limit_s=2.0)
"""Short: a client waits, and it has other mirrors and its own patience."""
PUSH_BACKOFF = Backoff(tries=5, first_s=0.2, factor=3.0, limit_s=30.0)
"""Longer: who pushes a blob would otherwise have to send it again."""

PROFILE_TTL_S = 3600.0
MAX_PROFILES = 1000


class Upstreams:
    """Gives the client that speaks to an upstream with somebody's credential, and with no other."""

    def __init__(self, transport: Transport, observer: Observer = UNOBSERVED) -> None:
        self._transport = transport
        self._observer = observer
        self._tokens = TokenCache()
        self._profiles: TTLCache[str, Profile] = TTLCache(MAX_PROFILES, PROFILE_TTL_S)

    def client(self, upstream: Upstream, caller: Caller, backoff: Backoff = BACKOFF) -> RegistryClient:
        """A client for one identity; tokens are kept apart per identity."""
        reach = Reach(realm_hosts=upstream.realm_hosts, private_hosts=upstream.redirect_hosts)
        return RegistryClient(
            self._transport,
            upstream.url,
            caller.credential,
            self._tokens,
            name=upstream.name,
            backoff=backoff,
            profile=self._profile(upstream.url),
            observer=self._observer,
            reach=reach,
        )

    def _profile(self, url: str) -> Profile:
        """What is known of the registry; it is learnt anew now and then, since registries are mended."""
        return self._profiles.setdefault(url, Profile())
