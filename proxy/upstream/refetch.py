"""Fetching anew what the store has lost: a blob or manifest whose upstream is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from cache.catalog import Catalog
from cache.errors import CacheError
from cache.oci import media_types
from cache.oci.digest import Digest
from cache.oci.errors import OCIError
from cache.record_names import Kind
from cache.store import Store
from cache.upkeep.walking import records_below
from proxy.auth.accounts import Accounts
from proxy.auth.caller import NOBODY
from proxy.errors import ProxyError
from proxy.reload import Configuration
from proxy.requests.routing import Proxied
from proxy.transfer.blobs import Blobs, IncomingBlob
from proxy.upstream.manifests import Manifests

TRIES = 3
_ASKING = replace(NOBODY, patient=True)
log = structlog.get_logger()


class Refetch:
    """Asks the upstreams whose repositories have a blob, as their anonymous user or by the proxy's own account.

    What only clients' own credentials can read comes back with the next of their pulls.
    """

    def __init__(
        self, store: Store, configuration: Configuration, accounts: Accounts, blobs: Blobs, manifests: Manifests
    ) -> None:
        self._store = store
        self._catalog = Catalog(store)
        self._configuration = configuration
        self._accounts = accounts
        self._blobs = blobs
        self._manifests = manifests

    async def fetch(self, digest: Digest) -> bool:
        """Whether the blob has come again. Lists: for what happens hardly ever. Raises StoreUnavailable."""
        tries = 0
        async for route in self._places(digest):
            try:
                await self._fetch(route, digest)
            except (OCIError, CacheError, ProxyError) as error:
                tries += 1
                log.info("blob_not_refetched", digest=str(digest), upstream=route.namespace, error=str(error))
                if tries == TRIES:
                    return False
            else:
                return True
        return False

    async def _places(self, digest: Digest) -> AsyncIterator[Proxied]:
        """The repositories of today's upstreams that have it."""
        upstreams = self._configuration.current.upstreams
        async for named in records_below(self._store):
            upstream = upstreams.get(named.namespace)
            if upstream is not None and named.kind is Kind.MEMBER and named.digest == digest:
                yield Proxied(upstream, named.repository)

    async def _fetch(self, route: Proxied, digest: Digest) -> None:
        caller = self._accounts.reader(route, _ASKING)
        member = await self._catalog.member(route.namespace, route.repository, digest)
        if member is not None and media_types.is_manifest(member.media_type):
            found = await self._manifests.find(route, digest, caller)
            # It may have come from memory, where it is good while the store has lost it.
            await self._catalog.put_blob_bytes(route.namespace, route.repository, found.descriptor, found.raw)
            return
        blob = await self._blobs.find(route, digest, caller)
        if isinstance(blob, IncomingBlob):
            await blob.spool.wait_sealed()
