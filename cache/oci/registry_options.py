"""How a command reaches registries, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.oci.mirrors import Mirrors

HELPERS = ("env", "google", "ecr", "acr", "gitlab")
"""Kaniko's built-in credential helpers, in the order in which they are asked (``cache.oci.ambient``)."""


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """What a host's TLS is checked with beside the usual authorities, and what we show it: certificate and key."""

    authority: Path | None = None
    client: tuple[Path, Path] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """How registries are reached. Hosts are ``name[:port]``.

    ``mirrors`` are asked first; without ``fallback`` a registry that has mirrors is not asked itself. ``helpers`` are
    asked for credentials that docker's configuration does not have.
    """

    insecure_push: bool = False
    insecure_pull: bool = False
    insecure_hosts: frozenset[str] = frozenset()
    skip_tls_verify: bool = False
    skip_tls_verify_hosts: frozenset[str] = frozenset()
    certificates: Mapping[str, HostCertificates] = field(default_factory=dict)
    mirrors: Mirrors = field(default_factory=dict)
    fallback: bool = True
    helpers: tuple[str, ...] = ()

    @property
    def tls_hosts(self) -> frozenset[str]:
        """The hosts that something of TLS is said of: they are reached by it, even on this machine."""
        return self.skip_tls_verify_hosts | frozenset(self.certificates)
