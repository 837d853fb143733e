"""Which registries are asked before another: Kaniko's ``--registry-mirror`` and ``--registry-map``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cache.oci.reference import DOCKER_HUB, Reference, canonical_host

Mirrors = Mapping[str, tuple[str, ...]]
"""By the host that they stand in for: ``HOST[:PORT][/PREFIX]`` to ask first, in order."""


def parse_mirrors(of_docker_hub: Iterable[str], maps: Iterable[str]) -> Mirrors:
    """The mirrors of Docker Hub, and those that maps name: ``HOST=MIRROR[/PREFIX]``, several joined by ``;``.

    Raises ValueError for what is no such text.
    """
    pairs = [(DOCKER_HUB, mirror) for mirror in of_docker_hub]
    for entry in ";".join(maps).split(";"):
        host, equals, mirror = entry.strip().partition("=")
        if entry.strip() and not (host and equals and mirror):
            raise ValueError(f"{entry.strip()!r}: expected HOST=MIRROR[/PREFIX]")
        if equals:
            pairs.append((_host(host), mirror))
    mirrors: dict[str, tuple[str, ...]] = {}
    for host, mirror in pairs:
        mirrors[host] = (*mirrors.get(host, ()), _place(mirror))
    return mirrors


def _host(text: str) -> str:
    return Reference(canonical_host(text), "image").host


def _place(text: str) -> str:
    """The mirror itself when an image could be named under it. Raises ValueError."""
    host, _, prefix = text.removesuffix("/").partition("/")
    Reference(host, f"{prefix}/image" if prefix else "image")
    return text
