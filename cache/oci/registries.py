"""From an image's name to the registry that has it: addresses, credentials, mirrors."""

from __future__ import annotations

from collections.abc import Container

from cache.oci.auth import TokenCache
from cache.oci.client import ManifestReply, RegistryClient
from cache.oci.credentials import ANONYMOUS, Credential, DockerConfig
from cache.oci.errors import OCIError
from cache.oci.redirect import is_loopback, parse_url
from cache.oci.reference import DOCKER_HUB, HUB_HOST, Reference, canonical_host
from cache.oci.registry_options import RegistryOptions
from cache.oci.retry import Backoff
from cache.oci.transport import Transport

HUB_URL = f"https://{HUB_HOST}"
MIRROR_BACKOFF = Backoff(tries=2, first_s=0.2, limit_s=2.0)
"""Short: behind a mirror stands the registry itself."""


class _EveryHost:
    """Holds every host: what ``--insecure`` and ``--skip-tls-verify`` without a host stand for."""

    def __contains__(self, host: object) -> bool:
        return True


EVERY_HOST: Container[str] = _EveryHost()
USUAL_OPTIONS = RegistryOptions()


class Registries:
    """The clients of all registries that one command talks to: one per registry and credential.

    ``insecure`` holds the hosts (``name[:port]``) that are reached by plain HTTP; loopback hosts are, too, unless the
    options say something of their TLS.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: DockerConfig,
        options: RegistryOptions = USUAL_OPTIONS,
        insecure: Container[str] = frozenset(),
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._options = options
        self._insecure = insecure
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
            url = base_url(host, self._insecure, self._options.tls_hosts)
            self._clients[key] = RegistryClient(
                self._transport, url, credential, self._tokens, name=host, backoff=backoff
            )
        return self._clients[key]

    def candidates(self, reference: Reference) -> list[tuple[RegistryClient, str]]:
        """Where to ask for the image, in order, with the repository's name there: mirrors, then the registry itself.

        The latter is left out where the mirrors alone are to be asked.
        """
        found = []
        for mirror in self._options.mirrors.get(reference.host, ()):
            host, _, prefix = mirror.removesuffix("/").partition("/")
            repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
            found.append((self._client(canonical_host(host), repository, mirror=True), repository))
        if self._options.fallback or not found:
            found.append((self.client(reference.host, reference.repository), reference.repository))
        return found

    async def resolve_manifest(self, reference: Reference) -> tuple[RegistryClient, str, ManifestReply]:
        """The image's manifest or index, with the client and repository that have it.

        A mirror that fails or has it not is passed over. Raises what the last one gives (OCIError), with a note for
        each mirror before it.
        """
        *mirrors, (last, repository) = self.candidates(reference)
        passed_over: list[str] = []
        for client, name in mirrors:
            try:
                return client, name, await client.get_manifest(name, reference.identifier)
            except OCIError as error:
                passed_over.append(f"mirror {client.name}: {error}")
        try:
            return last, repository, await last.get_manifest(repository, reference.identifier)
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

    async def resolve_manifest(self, reference: Reference) -> tuple[RegistryClient, str, ManifestReply]:
        """The image's manifest or index, with the client and repository that have it. Raises OCIError."""
        client = self.client(reference)
        return client, reference.repository, await client.get_manifest(reference.repository, reference.identifier)


def base_url(host: str, insecure: Container[str], tls: Container[str] = frozenset()) -> str:
    """Where a registry's API is. As with every client, plain HTTP only for insecure hosts and this machine's own.

    Docker Hub is never one of them: who calls every registry insecure means their own. Of this machine's own those
    are not that ``tls`` holds.
    """
    if host == DOCKER_HUB:
        return HUB_URL
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    plain = host in insecure or (is_loopback(name) and host not in tls and name not in tls)
    return f"{'http' if plain else 'https'}://{host}"
