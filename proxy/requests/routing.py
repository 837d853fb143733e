"""Which registry a request is for: a name and ``?ns=`` become an upstream's repository or a hosted one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cache import paths
from cache.oci.reference import DOCKER_HUB, canonical_host
from proxy.config import ProxyConfig, Upstream
from proxy.errors import Unknown


@dataclass(frozen=True, slots=True)
class Hosted:
    """A repository that exists only here."""

    repository: str

    @property
    def namespace(self) -> str:
        return paths.HOSTED

    def __str__(self) -> str:
        return self.repository


@dataclass(frozen=True, slots=True)
class Proxied:
    """A repository of an upstream, by the name that it has there."""

    upstream: Upstream
    repository: str

    @property
    def namespace(self) -> str:
        return self.upstream.name

    def __str__(self) -> str:
        return f"{self.upstream.name}/{self.repository}"


Route = Hosted | Proxied


def same_place(one: Route, other: Route) -> bool:
    """True when both are the same repository, whatever the settings of its upstream were at either time."""
    return (one.namespace, one.repository) == (other.namespace, other.repository)


def route(config: ProxyConfig, name: str, ns: str | None) -> Route:
    """Where the repository ``name`` lives.

    ``ns`` decides when it is there (containerd sends it); then a first path component that names an upstream; then a
    hosted prefix; then the default upstream. Raises Unknown when none of them fits: whoever is not configured is never
    connected to.
    """
    if ns is not None:
        upstream = config.upstreams.get(canonical_host(ns))
        if upstream is None:
            raise Unknown("NAME_UNKNOWN", "the registry in ?ns= is not one that this proxy stands in front of")
        return _proxied(upstream, name)
    first, _, rest = name.partition("/")
    upstream = config.upstreams.get(canonical_host(first))
    if upstream is not None and rest:
        return _proxied(upstream, rest)
    if is_under(name, config.hosted):
        return Hosted(name)
    if config.default_upstream is None:
        raise Unknown("NAME_UNKNOWN", f"repository {name} is neither hosted here nor of a registry behind this proxy")
    return _proxied(config.upstreams[config.default_upstream], name)


def is_under(repository: str, prefixes: Iterable[str]) -> bool:
    """Whether a repository lies under one of these prefixes, component by component."""
    return any(repository == prefix or repository.startswith(f"{prefix}/") for prefix in prefixes)


def _proxied(upstream: Upstream, repository: str) -> Proxied:
    """Docker Hub keeps names of one component under ``library/``."""
    if upstream.name == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Proxied(upstream, repository)
