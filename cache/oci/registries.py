"""From an image's name to the registry that has it: addresses, credentials, mirrors."""

from __future__ import annotations

from collections.abc import Container, Mapping

from cache.oci.auth import TokenCache
from cache.oci.client import ManifestReply, RegistryClient
from cache.oci.credentials import ANONYMOUS, Credential, DockerConfig
from cache.oci.errors import OCIError
from cache.oci.redirect import is_loopback, parse_url
from cache.oci.reference import DOCKER_HUB, Reference, canonical_host
from cache.oci.retry import Backoff
from cache.oci.transport import Transport

HUB_URL = "https://registry-1.docker.io"
MIRROR_BACKOFF = Backoff(tries=2, first_s=0.2, limit_s=2.0)
"""Short: behind a mirror stands the registry itself."""


class _EveryHost:
    """Holds every host: what ``--insecure`` and ``--skip-tls-verify`` without a host stand for."""

    def __contains__(self, host: object) -> bool:
        return True


EVERY_HOST: Container[str] = _EveryHost()


class Registries:
    """The clients of all registries that one command talks to: one per registry and credential.

    ``insecure`` holds the hosts (``name[:port]``) that are reached by plain HTTP; loopback hosts always are.
    ``mirrors`` lists, by the host that they stand in for, ``HOST[:PORT][/PREFIX]`` to ask first.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: DockerConfig,
        insecure: Container[str] = frozenset(),
        mirrors: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._insecure = insecure
        self._mirrors = mirrors or {}
        self._tokens = TokenCache()
        self._clients: dict[tuple[str, Credential, bool], RegistryClient] = {}

    def client(self, host: str, repository: str = "") -> RegistryClient:
        """The client of a registry, with the credential for ``repository`` where there is one for a part of it.

        May start a credential helper the first time. Raises InvalidCredentials.
        """
        return self._client(canonical_host(host), repository, mirror=False)

    def _client(self, host: str, repository: str, *, mirror: bool) -> RegistryClient:
        credential = self._credentials.credential_for(host, repository)
        key = (host, credential, mirror)
        if key not in self._clients:
            backoff = MIRROR_BACKOFF if mirror else None
            url = base_url(host, self._insecure)
            self._clients[key] = RegistryClient(
                self._transport, url, credential, self._tokens, name=host, backoff=backoff
            )
        return self._clients[key]

    def candidates(self, reference: Reference) -> list[tuple[RegistryClient, str]]:
        """Where to ask for the image, in order, with the repository's name there: mirrors, then the registry itself."""
        found = []
        for mirror in self._mirrors.get(reference.host, ()):
            host, _, prefix = mirror.removesuffix("/").partition("/")
            repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
            found.append((self._client(canonical_host(host), repository, mirror=True), repository))
        found.append((self.client(reference.host, reference.repository), reference.repository))
        return found

    async def resolve_manifest(self, reference: Reference) -> tuple[RegistryClient, str, ManifestReply]:
        """The image's manifest or index, with the client and repository that have it.

        A mirror that fails or has it not is passed over. Raises what the registry itself gives (OCIError), with a note
        for each mirror.
        """
        *mirrors, (origin, repository) = self.candidates(reference)
        passed_over: list[str] = []
        for client, name in mirrors:
            try:
                return client, name, await client.get_manifest(name, reference.identifier)
            except OCIError as error:
                passed_over.append(f"mirror {client.name}: {error}")
        try:
            return origin, repository, await origin.get_manifest(repository, reference.identifier)
        except OCIError as error:
            for note in passed_over:
                error.add_note(note)
            raise


class ProxyRegistries:
    """The clients of all registries, reached through one proxy that stands in front of them.

    Each says by ``?ns=`` which registry it means. It shows the proxy's own credential where there is one, else the
    one for that registry: who warms a proxy by name has chosen to trust it.
    """

    def __init__(self, transport: Transport, credentials: DockerConfig, url: str) -> None:
        self._transport = transport
        self._credentials = credentials
        self._url = url
        self._host = parse_url(url).authority
        self._tokens = TokenCache()

    def client(self, reference: Reference) -> RegistryClient:
        """The client for the image's registry, or for the proxy itself when the image is named so.

        Raises InvalidCredentials.
        """
        credential = self._credentials.credential_for(self._host)
        if credential == ANONYMOUS:
            credential = self._credentials.credential_for(reference.host, reference.repository)
        namespace = "" if reference.host == self._host else reference.host
        return RegistryClient(
            self._transport, self._url, credential, self._tokens, name=self._host, namespace=namespace
        )


def base_url(host: str, insecure: Container[str]) -> str:
    """Where a registry's API is. As with every client, plain HTTP only for insecure hosts and this machine's own.

    Docker Hub is never one of them: who calls every registry insecure means their own.
    """
    if host == DOCKER_HUB:
        return HUB_URL
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return f"{'http' if host in insecure or is_loopback(name) else 'https'}://{host}"
