"""The clients of the upstreams: one connection pool and one set of gates for all, and a cache of tokens for each."""

from __future__ import annotations

from dataclasses import replace

from cachetools import TTLCache

from cache.oci.auth import TokenCache
from cache.oci.client import RegistryClient
from cache.oci.observer import UNOBSERVED, Observer
from cache.oci.profile import Profile
from cache.oci.reach import Reach
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from proxy.auth.caller import NOBODY, Caller
from proxy.config import Patience, Upstream
from proxy.upstream.gates import Gates, UpstreamGate

PROFILE_TTL_S = 3600.0
MAX_PROFILES = 1000


class Upstreams:
    """Gives the client that speaks to an upstream with somebody's credential, and with no other."""

    def __init__(self, transport: Transport, patience: Patience, observer: Observer = UNOBSERVED) -> None:
        self._transport = transport
        self._patience = patience
        self._gates = Gates(patience.pace)
        self._observer = observer
        self._tokens: dict[tuple[str, float], TokenCache] = {}
        self._profiles: TTLCache[str, Profile] = TTLCache(MAX_PROFILES, PROFILE_TTL_S)

    def client(self, upstream: Upstream, caller: Caller) -> RegistryClient:
        """A client for one identity; tokens and rate limits are kept apart per identity."""
        gate = self._gates.gate(upstream.name, upstream.url, caller)
        return self._client(upstream, upstream.url, caller, gate, name=upstream.name)

    def pusher(self, upstream: Upstream, caller: Caller) -> RegistryClient:
        """As ``client``, but it waits longer: who pushes a blob would otherwise have to send it again."""
        gate = self._gates.gate(upstream.name, upstream.url, caller, waits=True)
        backoff = self._patience.push_backoff
        return self._client(upstream, upstream.url, caller, gate, name=upstream.name, backoff=backoff)

    def mirrors(self, upstream: Upstream, caller: Caller) -> list[RegistryClient]:
        """The clients of the upstream's mirrors, in order; they are shown nobody's credential."""
        asker, found = replace(NOBODY, patient=caller.patient), []
        for url in upstream.mirrors:
            name = f"mirror {url}"
            gate = self._gates.gate(name, url, asker)
            found.append(self._client(upstream, url, asker, gate, name=name, namespace=upstream.name))
        return found

    def is_failing(self, upstream: Upstream) -> bool:
        """True when the upstream has failed so often that it is left alone most of the time."""
        return self._gates.circuit(upstream.url).times > 0

    def _client(
        self,
        upstream: Upstream,
        url: str,
        caller: Caller,
        gate: UpstreamGate,
        *,
        name: str,
        namespace: str = "",
        backoff: Backoff | None = None,
    ) -> RegistryClient:
        return RegistryClient(
            self._transport,
            url,
            caller.credential,
            self._token_cache(upstream),
            name=name,
            namespace=namespace,
            backoff=backoff or self._patience.backoff,
            profile=self._profile(url),
            gate=gate,
            observer=self._observer,
            reach=Reach(realm_hosts=upstream.realm_hosts, private_hosts=upstream.redirect_hosts),
        )

    def _token_cache(self, upstream: Upstream) -> TokenCache:
        """Its tokens, none used for longer than a permission is remembered."""
        key = (upstream.name, upstream.freshness.access_ttl_s)
        if key not in self._tokens:
            self._tokens[key] = TokenCache(max_use_s=upstream.freshness.access_ttl_s)
        return self._tokens[key]

    def _profile(self, url: str) -> Profile:
        """What is known of the registry; it is learnt anew now and then, since registries are mended."""
        return self._profiles.setdefault(url, Profile())
