"""The registries that one command talks to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.oci.ambient import AmbientCredentials
from cache.oci.connections import USER_AGENT
from cache.oci.credentials import DockerConfig
from cache.oci.http_proxy import proxy_for
from cache.oci.registries import EVERY_HOST, Registries
from cache.oci.registry_options import RegistryOptions
from cache.oci.tls import HostTls
from cache.oci.transport import Transport


@dataclass(frozen=True, slots=True)
class Peers:
    """Registries, as they are pulled from and as they are pushed to, and what they are reached with."""

    pull: Registries
    push: Registries
    transport: Transport
    credentials: DockerConfig


@asynccontextmanager
async def open_peers(
    options: RegistryOptions, environ: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> AsyncIterator[Peers]:
    """The registries that the options describe, with the environment's credentials.

    ``headers`` go with every request. Raises InvalidCredentials.
    """
    ambient = AmbientCredentials(options.helpers, environ)
    home = Path(environ.get("HOME") or Path.home())
    credentials = DockerConfig.load(environ, home, ambient.credential_for)
    tls = HostTls(EVERY_HOST if options.skip_tls_verify else options.skip_tls_verify_hosts, options.certificates)
    client = environ.get("UPSTREAM_CLIENT_TYPE")  # Kaniko's: who it is that builds
    sent = {**({"User-Agent": f"{USER_AGENT},{client}"} if client else {}), **(headers or {})}
    async with Transport(tls=tls, headers=sent, proxy_of=lambda url: proxy_for(url, environ)) as transport:

        def registries(everywhere: bool) -> Registries:
            insecure: Container[str] = EVERY_HOST if everywhere else options.insecure_hosts
            return Registries(transport, credentials, options, insecure)

        yield Peers(registries(options.insecure_pull), registries(options.insecure_push), transport, credentials)
