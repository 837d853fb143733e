"""Which certificates each host must show, and is shown."""

from __future__ import annotations

import ssl
from collections.abc import Container, Mapping

from yarl import URL

from cache.oci.errors import InvalidCredentials
from cache.oci.registry_options import HostCertificates


class HostTls:
    """TLS by host (``name`` or ``name:port``): ``unverified`` ones may show any certificate.

    Raises InvalidCredentials for certificates that cannot be used.
    """

    def __init__(
        self, unverified: Container[str] = frozenset(), certificates: Mapping[str, HostCertificates] | None = None
    ) -> None:
        self._unverified = unverified
        self._contexts = {
            host: _context(host, files, verify=host not in unverified) for host, files in (certificates or {}).items()
        }

    def of(self, url: URL) -> ssl.SSLContext | bool:
        """What aiohttp is to be told for a request to this URL: True = the usual authorities, False = anybody."""
        names = (url.authority, f"{url.host}:{url.port}", url.host or "")
        context = next((self._contexts[name] for name in names if name in self._contexts), None)
        return context or not any(name in self._unverified for name in names)


def _context(host: str, files: HostCertificates, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    what = ""
    try:
        if files.authority is not None:
            what = f"the certificate {files.authority}"
            context.load_verify_locations(files.authority)
        if files.client is not None:
            what = f"the client certificate {files.client[0]} with the key {files.client[1]}"
            context.load_cert_chain(*files.client)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidCredentials(f"{what} for {host} cannot be used: {error.strerror or error}") from error
    return context
