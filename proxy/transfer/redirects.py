"""Sending clients to the bucket for large blobs, so that their bytes do not pass through the proxy.

Whoever is let in here gets a URL that anybody could use for some minutes. It is in the reply's Location alone, and goes
into no log and no metric.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from cache.errors import CacheError
from cache.oci.networks import parse_address
from cache.store import LocalPaths, Presigned, Store
from proxy.config import Redirection
from proxy.observe.metrics import Metrics
from proxy.reload import Configuration
from proxy.transfer.blobs import FoundBlob, StoredBlob

EXPIRES_S = 20 * 60
"""Long enough for a client that waits for its turn: the URL has to be good when the transfer begins."""
REDIRECT_HEADER = "Crossdock-Redirect"
"""With ``never`` a client says that it cannot reach the bucket."""

log = structlog.get_logger()


def may_redirect(policy: Redirection, peer: str | None, size_bytes: int) -> bool:
    """Whether a client at this address is sent elsewhere for a blob of this size."""
    address = parse_address(peer) if peer is not None and size_bytes >= policy.size_bytes else None
    return address is not None and any(address in network for network in policy.networks)


def keeps_credentials(host: str, url: str) -> bool:
    """Whether clients take the credentials that they use at ``host`` to ``url`` too.

    They do where it is the same name, whatever the port, or one below it; and S3 refuses two kinds of credentials.
    """
    ours, theirs = (urlsplit(f"//{host}").hostname or ""), (urlsplit(url).hostname or "")
    return theirs == ours or theirs.endswith(f".{ours}")


class Redirects:
    """Decides who is sent where."""

    def __init__(self, store: Store, configuration: Configuration, metrics: Metrics) -> None:
        self._store = store
        self._configuration = configuration
        self._metrics = metrics

    async def url(self, http: web.Request, found: FoundBlob) -> str | None:
        """Where to fetch the blob; None when the proxy is to give it itself. Never fails: then it is None as well."""
        policy = self._configuration.current.redirection
        if not policy.networks or not isinstance(found, StoredBlob) or not isinstance(self._store, Presigned):
            return None
        if http.headers.get(REDIRECT_HEADER) == "never" or not may_redirect(policy, http.remote, found.size_bytes):
            return None
        if isinstance(self._store, LocalPaths):
            path = await asyncio.to_thread(self._store.local_path, found.digest)
            if path is not None:
                return None  # nearer than the bucket
        try:
            url = await self._store.presigned_url(found.digest, EXPIRES_S)
        except CacheError as error:
            log.warning("redirect_failed", digest=str(found.digest), error=str(error))
            self._metrics.redirected("failed")
            return None
        if url is None or ("Authorization" in http.headers and keeps_credentials(http.host, url)):
            self._metrics.redirected("streamed")
            return None
        self._metrics.redirected("redirected")
        return url
