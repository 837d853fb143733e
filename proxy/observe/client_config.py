"""What to tell other people's clients, so that they come to this proxy: their files and flags, from its configuration.

A client that says which registry it means (``?ns=``: containerd, BuildKit) gets the bare address; one that does not
gets the registry's name as the first part of the repository's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from cache.oci.reference import DOCKER_HUB
from proxy.config import ProxyConfig
from proxy.errors import ConfigError

ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


class ProxyPlace:
    """Where clients find the proxy: ``authority`` is its HOST:PORT, ``is_plain`` says that it speaks plain HTTP."""

    def __init__(self, config: ProxyConfig, machine: str) -> None:
        """``machine`` is this machine's name, for a proxy that listens everywhere and was given no name.

        Raises ConfigError when nobody knows the port before the proxy starts.
        """
        if config.port == 0:
            raise ConfigError(["listen has port 0: expected the port that clients are to use"])
        name = config.hosts[0] if config.hosts else machine if config.host in ANY_ADDRESS else config.host
        self.authority = f"[{name}]:{config.port}" if ":" in name else f"{name}:{config.port}"
        self.is_plain = config.tls is None

    @property
    def url(self) -> str:
        return f"{'http' if self.is_plain else 'https'}://{self.authority}"


def print_client_config(client: str, config: ProxyConfig, machine: str) -> str:
    """The text for one of CLIENTS. Raises ConfigError when the configuration does not say where the proxy will be."""
    return "\n".join(CLIENTS[client](config, ProxyPlace(config, machine))) + "\n"


def _containerd(config: ProxyConfig, place: ProxyPlace) -> Iterator[str]:
    yield '# Where config.toml has, in the registry section of its CRI plugin: config_path = "/etc/containerd/certs.d"'
    for upstream in config.upstreams.values():
        yield f"\n# /etc/containerd/certs.d/{upstream.name}/hosts.toml"
        yield f"server = {_text(upstream.url)}"
        yield f"\n[host.{_text(place.url)}]"
        yield 'capabilities = ["pull", "resolve"]'


def _docker(config: ProxyConfig, place: ProxyPlace) -> Iterator[str]:
    daemon: dict[str, list[str]] = {}
    if config.default_upstream == DOCKER_HUB:
        daemon["registry-mirrors"] = [place.url]
    if place.is_plain:
        daemon["insecure-registries"] = [place.authority]
    yield "# /etc/docker/daemon.json, without these lines. Docker mirrors Docker Hub only, and from here only where it"
    yield f"# is the default upstream. Images of other registries are {place.authority}/REGISTRY/NAME."
    yield json.dumps(daemon, indent=2)


def _buildkit(config: ProxyConfig, place: ProxyPlace) -> Iterator[str]:
    yield "# /etc/buildkit/buildkitd.toml"
    for name in config.upstreams:
        yield f"[registry.{_text(name)}]"
        yield f"mirrors = [{_text(place.authority)}]\n"
    yield f"[registry.{_text(place.authority)}]"
    yield f"http = {_boolean(place.is_plain)}"


def _podman(config: ProxyConfig, place: ProxyPlace) -> Iterator[str]:
    yield "# /etc/containers/registries.conf.d/crossdock.conf (podman, buildah, skopeo, CRI-O)"
    for name in _as_paths(config):
        yield f"[[registry]]\nprefix = {_text(name)}\nlocation = {_text(name)}\n"
        yield f"[[registry.mirror]]\nlocation = {_text(f'{place.authority}/{name}')}"
        yield f"insecure = {_boolean(place.is_plain)}\n"
    yield f"[[registry]]\nlocation = {_text(place.authority)}\ninsecure = {_boolean(place.is_plain)}"


def _kaniko(config: ProxyConfig, place: ProxyPlace) -> Iterator[str]:
    yield "# Flags of Kaniko's executor, one on a line"
    for name in _as_paths(config):
        if name == DOCKER_HUB and config.default_upstream == DOCKER_HUB:
            yield f"--registry-mirror={place.authority}"
        else:
            yield f"--registry-map={'index.docker.io' if name == DOCKER_HUB else name}={place.authority}/{name}"
    if config.hosted:
        yield f"--cache-repo={place.authority}/{config.hosted[0]}/NAME"
    if place.is_plain:
        yield f"--insecure-registry={place.authority}"


def _as_paths(config: ProxyConfig) -> Iterator[str]:
    """The upstreams whose names can stand in a repository's name; one with a port cannot."""
    return (name for name in config.upstreams if ":" not in name)


def _text(value: str) -> str:
    """A string of TOML; what is written here is ASCII, which JSON writes in the same way."""
    return json.dumps(value)


def _boolean(value: bool) -> str:
    return "true" if value else "false"


CLIENTS: Mapping[str, Callable[[ProxyConfig, ProxyPlace], Iterator[str]]] = {
    "containerd": _containerd,
    "docker": _docker,
    "buildkit": _buildkit,
    "podman": _podman,
    "kaniko": _kaniko,
}
