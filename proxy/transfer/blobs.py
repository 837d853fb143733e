"""Blobs of upstreams' repositories: held, or fetched once for all who ask.

A blob is served from the store only where two things are known: that the repository asked for has it, and that who asks
may read that repository. The first is remembered for ever (content does not change under its digest), the second for
a short time (``proxy.auth.access``); asking the upstream for this blob with the client's own credentials proves both.

That a manifest of a repository *names* a blob proves nothing: some registries take manifests whose blobs they do not
have, and then naming a digest would be enough to read somebody else's layer from the cache.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from cachetools import TTLCache

from cache.catalog import Catalog
from cache.oci.client import BlobReply, RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import ErrorDetail, NotFound, RegistryError
from cache.singleflight import SingleFlight
from cache.store import BlobStore
from proxy.auth.caller import Caller
from proxy.cluster.fills import FillSources
from proxy.errors import not_held
from proxy.requests.outcome import HIT, MISS, Outcome
from proxy.requests.routing import Proxied
from proxy.transfer.fills import Fills
from proxy.transfer.spool import Spool
from proxy.upstream.asking import Asking

BLOB_TYPE = "application/octet-stream"
SEEN_TTL_S = 60.0
MAX_SEEN = 100_000


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in the store, and how it may be served from there."""

    digest: Digest
    size_bytes: int
    outcome: Outcome = HIT


@dataclass(frozen=True, slots=True)
class IncomingBlob:
    """A blob that is being fetched right now."""

    digest: Digest
    spool: Spool
    outcome: Outcome = MISS

    @property
    def size_bytes(self) -> int:
        assert self.spool.size_bytes is not None, "a fill begins with the size"
        return self.spool.size_bytes


FoundBlob = StoredBlob | IncomingBlob


class Blobs:
    """The blobs of all upstreams."""

    def __init__(self, store: BlobStore, catalog: Catalog, ask: Asking, fills: Fills, sources: FillSources) -> None:
        self._store = store
        self._catalog = catalog
        self._ask = ask
        self._fills = fills
        self._fill_sources = sources
        self._heads: SingleFlight[tuple[object, ...], int] = SingleFlight()
        self._seen: TTLCache[tuple[str, str, Digest], int] = TTLCache(MAX_SEEN, SEEN_TTL_S)

    async def find(self, route: Proxied, digest: Digest, caller: Caller) -> FoundBlob:
        """The blob, held or on its way in.

        Raises NotFound, Denied or another RegistryError as the upstream does, and Unknown when it is not held and the
        caller may not have it fetched.
        """
        held = await self._held(route, digest, caller)
        return held if held is not None else await self._fetch(route, digest, caller)

    async def find_held(self, route: Proxied, digest: Digest, caller: Caller) -> StoredBlob | None:
        """The blob when the store holds it and the upstream lets this identity have it; None when it is not held.

        Raises as ``find``.
        """
        await self._fills.settled(digest)
        return await self._held(route, digest, caller)

    async def _held(self, route: Proxied, digest: Digest, caller: Caller) -> StoredBlob | None:
        size_bytes = await self._store.stat(digest)
        if size_bytes is None:
            return None
        member = await self._catalog.member(route.namespace, route.repository, digest)
        if member is not None and self._ask.access.readable(route, caller):
            return StoredBlob(digest, size_bytes)
        outcome = await self._prove(route, digest, caller, member is not None)
        return StoredBlob(digest, size_bytes, outcome)

    async def stat(self, route: Proxied, digest: Digest, caller: Caller) -> tuple[int, Outcome]:
        """The blob's size in bytes and the outcome, without fetching it. Raises as ``find``.

        Who pushes asks this to learn what need not be uploaded, so it is the upstream's word, at most SEEN_TTL_S old:
        a blob that we hold and the upstream has lost must be uploaded again.
        """
        seen_bytes = self._seen.get((route.namespace, route.repository, digest))
        if seen_bytes is not None and self._ask.access.readable(route, caller):
            return seen_bytes, HIT
        member = await self._catalog.member(route.namespace, route.repository, digest)
        try:
            return await self._head(route, digest, caller), MISS
        except RegistryError as error:
            if member is None or await self._store.stat(digest) is None:
                raise
            return member.size, self._ask.stale.outcome(route, caller, error)

    async def add(self, route: Proxied, digest: Digest, size_bytes: int) -> None:
        """Notes that the upstream has just taken this blob into the repository."""
        self._ask.absences.end(route, digest)
        await self._show(route, digest, size_bytes)

    async def _show(self, route: Proxied, digest: Digest, size_bytes: int) -> None:
        """Notes that the upstream has just shown this blob of the repository."""
        self._seen[(route.namespace, route.repository, digest)] = size_bytes
        if await self._catalog.member(route.namespace, route.repository, digest) is None:
            descriptor = Descriptor(media_type=BLOB_TYPE, digest=digest, size=size_bytes)
            await self._catalog.add_member(route.namespace, route.repository, descriptor)

    async def find_lost(self, route: Proxied, digest: Digest) -> StoredBlob | None:
        """A blob that the store holds and that the repository once had, whatever the upstream says now.

        Not to be shown to anybody: only to be given back to the repository.
        """
        size_bytes = await self._store.stat(digest)
        member = await self._catalog.member(route.namespace, route.repository, digest)
        return StoredBlob(digest, size_bytes) if size_bytes is not None and member is not None else None

    def doubt(self, route: Proxied) -> None:
        """Forgets what was seen of a repository lately: the upstream says that it misses something."""
        for key in [key for key in self._seen if key[:2] == (route.namespace, route.repository)]:
            self._seen.pop(key, None)

    async def remove(self, route: Proxied, digest: Digest) -> None:
        """Notes that the repository has this blob no longer."""
        self._ask.absences.end(route, digest)
        self._seen.pop((route.namespace, route.repository, digest), None)
        await self._catalog.remove_member(route.namespace, route.repository, digest)

    async def _prove(self, route: Proxied, digest: Digest, caller: Caller, is_member: bool) -> Outcome:
        """Lets the upstream say whether this identity may have this blob. Raises what it says when it may not."""
        try:
            await self._head(route, digest, caller)
        except RegistryError as error:
            if not is_member:
                raise
            return self._ask.stale.outcome(route, caller, error)
        return HIT

    async def _head(self, route: Proxied, digest: Digest, caller: Caller) -> int:
        """The size that the upstream gives for the blob; at most one such question is under way."""
        self._ask.absences.check(route, digest, caller)
        epoch = self._ask.absences.epoch(route)

        async def head(client: RegistryClient) -> int | None:
            return await client.head_blob(route.repository, digest)

        async def of_upstream() -> int:
            async with self._noting(route, digest, caller):
                size_bytes = await head(self._ask.sources.upstream(route, caller))
                if size_bytes is None:
                    raise blob_unknown(route, digest)
                return size_bytes

        async def ask() -> int:
            answer = await self._ask.sources.check(route, caller, head, of_upstream)
            if answer.proven and epoch == self._ask.absences.epoch(route):
                await self._show(route, digest, answer.value)
            return answer.value

        key = (route.namespace, route.repository, digest, caller.fingerprint, epoch)
        return await self._heads.run(key, ask)

    def _noting(self, route: Proxied, digest: Digest, caller: Caller) -> AbstractAsyncContextManager[None]:
        async def gone() -> None:
            if await self._catalog.member(route.namespace, route.repository, digest) is not None:
                self._ask.access.revoke(route, caller)  # that it hides what it once showed is a refusal

        return self._ask.noting(route, digest, caller, gone)

    async def _fetch(self, route: Proxied, digest: Digest, caller: Caller) -> IncomingBlob | StoredBlob:
        """Joins the fill of this blob, or starts it.

        A fill that somebody else's credentials did not open is no answer for this identity: it tries its own.
        """
        owner = (route.namespace, route.repository, caller.fingerprint)
        let_in = False
        while (fill := self._fills.running(digest)) is not None:
            if not let_in and (fill.owner != owner or fill.spool is not None):
                await self._let_in(route, digest, caller)  # before any wait: that would tell of somebody else's fetch
                let_in = True
                continue
            try:
                spool = await fill.opened()
            except RegistryError:
                if fill.owner == owner:
                    raise
                continue
            return IncomingBlob(digest, spool, HIT if spool.sealed else MISS)
        if (held := await self._held(route, digest, caller)) is not None:
            return held  # the fill ended between the two looks
        if self._fills.running(digest) is not None:
            return await self._fetch(route, digest, caller)
        return IncomingBlob(digest, await self._start(route, digest, caller, owner))

    async def _let_in(self, route: Proxied, digest: Digest, caller: Caller) -> None:
        """Returns when the repository has the blob and the upstream lets this identity have it. Raises as ``find``."""
        member = await self._catalog.member(route.namespace, route.repository, digest)
        if member is None or not self._ask.access.readable(route, caller):
            await self._head(route, digest, caller)

    async def _start(self, route: Proxied, digest: Digest, caller: Caller, owner: object) -> Spool:
        self._ask.absences.check(route, digest, caller)
        if not caller.may_fetch:
            if not self._ask.access.readable(route, caller):
                await self._head(route, digest, caller)  # who is not let in learns nothing of what is held
            raise not_held("BLOB_UNKNOWN", f"{route} blob {digest}", caller.who)

        def upstream(start: int) -> AbstractAsyncContextManager[BlobReply]:
            return self._ask.sources.open_blob(
                route,
                digest,
                caller,
                noting=lambda: self._noting(route, digest, caller),
                proven=lambda size_bytes: self._show(route, digest, size_bytes),
                start=start,
            )

        source = self._fill_sources.source(digest, upstream, lambda: self._head(route, digest, caller))
        fill = self._fills.start(route.namespace, digest, owner, source)
        return await fill.opened()


def blob_unknown(route: Proxied, digest: Digest) -> NotFound:
    """What an upstream's 404 to a HEAD means; such a reply has no body that says it."""
    url = f"{route.upstream.url}/v2/{route.repository}/blobs/{digest}"
    return NotFound("HEAD", url, 404, (ErrorDetail("BLOB_UNKNOWN", f"{route} has no blob {digest}"),))
