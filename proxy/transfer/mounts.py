"""Blobs that need not be uploaded, because they are somewhere already.

A mount into an upstream's repository is first offered to the upstream. Where it cannot do that (the source is in
another registry, or hosted here) and we hold the blob, we upload it ourselves, so that a build whose layers are all
cached moves none of them through the builder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import structlog

from cache.oci.credentials import ANONYMOUS
from cache.oci.digest import Digest
from cache.oci.errors import RegistryError
from cache.singleflight import SingleFlight
from cache.store import BlobStore
from proxy.auth.access import Access
from proxy.auth.accounts import Accounts
from proxy.auth.caller import NOBODY, Caller
from proxy.errors import Unknown
from proxy.hosting.hosted import HostedRepositories
from proxy.requests.routing import Hosted, Proxied, Route
from proxy.transfer.blobs import Blobs, StoredBlob
from proxy.upstream.freshness import Standing
from proxy.upstream.upstreams import Upstreams

log = structlog.get_logger()


class Mounts:
    """Brings blobs from one repository into another."""

    def __init__(
        self,
        store: BlobStore,
        blobs: Blobs,
        hosted: HostedRepositories,
        upstreams: Upstreams,
        access: Access,
        accounts: Accounts,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._hosted = hosted
        self._upstreams = upstreams
        self._access = access
        self._accounts = accounts
        self._copies: SingleFlight[tuple[str, Digest, str], None] = SingleFlight()

    async def mount(self, target: Route, source: Route, digest: Digest, caller: Caller) -> bool:
        """True when the target has the blob now; False when it must be uploaded.

        Raises RegistryError when the upstream refuses the copy that we make.
        """
        if isinstance(target, Hosted):
            return await self._into_hosted(target, source, digest, caller)
        return await self._into_upstream(target, source, digest, caller)

    async def mount_from_any(self, target: Route, sources: Iterable[Route], digest: Digest, caller: Caller) -> bool:
        """As ``mount``, from the first of these that has the blob.

        Upstreams' repositories count only where this identity was let in not long ago: asking for others would tell by
        the time it takes that somebody else has the blob.
        """
        for source in sources:
            reader = self._reader(source, target, caller)
            known = isinstance(source, Hosted) or self._access.standing(source, reader) is not Standing.UNKNOWN
            if known and await self.mount(target, source, digest, caller):
                return True
        return False

    async def restore(self, target: Proxied, digest: Digest, caller: Caller) -> bool:
        """True when the upstream has the blob, or has it again because we hold what its repository once had.

        Raises RegistryError as the upstream does.
        """
        lost = await self._blobs.find_lost(target, digest)
        if lost is None:
            client = self._upstreams.client(target.upstream, caller)
            return await client.head_blob(target.repository, digest) is not None
        key = (str(target), digest, caller.fingerprint)
        await self._copies.run(key, lambda: self._copy(target, target, lost, caller))
        await self._blobs.add(target, digest, lost.size_bytes)
        return True

    async def _into_hosted(self, target: Hosted, source: Route, digest: Digest, caller: Caller) -> bool:
        found = await self._find(source, digest, self._reader(source, target, caller))
        if found is None:
            return False
        try:
            await self._hosted.add_blob(target, digest, found.size_bytes)
        except Unknown:
            return False  # it is being deleted this very moment
        return True

    async def _into_upstream(self, target: Proxied, source: Route, digest: Digest, caller: Caller) -> bool:
        if await self._mount_there(target, source, digest, caller):
            return True
        found = await self._find(source, digest, self._reader(source, target, caller))
        if found is None:
            return False
        key = (str(target), digest, caller.fingerprint)
        await self._copies.run(key, lambda: self._copy(target, source, found, caller))
        await self._blobs.add(target, digest, found.size_bytes)
        return True

    async def _mount_there(self, target: Proxied, source: Route, digest: Digest, caller: Caller) -> bool:
        """Lets the upstream mount the blob, where it has both repositories."""
        if isinstance(source, Hosted) or source.upstream != target.upstream:
            return False
        client = self._upstreams.client(target.upstream, caller)
        if not await client.mount_blob(target.repository, digest, source.repository):
            return False
        size_bytes = await self._store.stat(digest)
        if size_bytes is not None:
            await self._blobs.add(target, digest, size_bytes)
        return True

    async def _copy(self, target: Proxied, source: Route, found: StoredBlob, caller: Caller) -> None:
        """Uploads a blob that we hold, unless the upstream has it already."""
        client = self._upstreams.client(target.upstream, caller)

        def content() -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            return self._store.open(found.digest)

        if await client.head_blob(target.repository, found.digest) is None:
            await client.upload_blob(target.repository, found.digest, found.size_bytes, content)
            log.info("blob_copied", source=str(source), target=str(target), digest=str(found.digest))

    async def _find(self, source: Route, digest: Digest, caller: Caller) -> StoredBlob | None:
        """The blob when we hold it, the source has it, and this identity may read it there."""
        try:
            if isinstance(source, Hosted):
                return await self._hosted.find_blob(source, digest)
            if not self._access.readable(source, caller):
                await self._blobs.stat(source, digest, caller)  # asked for what we do not hold as well: it takes time
            return await self._blobs.find_held(source, digest, caller)
        except (Unknown, RegistryError) as error:
            log.info("mount_not_possible", source=str(source), digest=str(digest), reason=str(error))
            return None

    def _reader(self, source: Route, target: Route, caller: Caller) -> Caller:
        """As whom to read the source: a client's credential is never shown to a registry that it was not meant for.

        It was meant for the target's; for another upstream only if that has taken it lately. Where the proxy has an
        account for the source, that is used: the rules have been asked.
        """
        reader = self._accounts.reader(source, caller)
        if reader.account:
            return reader
        if isinstance(source, Hosted) or (isinstance(target, Proxied) and source.upstream == target.upstream):
            return caller
        known = not self._access.readable(source, NOBODY) and self._access.readable(source, caller)
        return caller if known else replace(caller, credential=ANONYMOUS)
