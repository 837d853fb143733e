"""Blobs of upstreams' repositories: held, or fetched once for all who ask.

A blob is served from the store only where two things are known: that the repository asked for has it, and that who asks
may read that repository. The first is remembered for ever (content does not change under its digest), the second for
a short time (``proxy.access``); asking the upstream for this blob with the client's own credentials proves both.

That a manifest of a repository *names* a blob proves nothing: some registries take manifests whose blobs they do not
have, and then naming a digest would be enough to read somebody else's layer from the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import TTLCache

from cache.catalog import Catalog
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import Denied, ErrorDetail, NotFound, RegistryError
from cache.singleflight import SingleFlight
from cache.store import BlobStore
from proxy.access import Access
from proxy.caller import Caller
from proxy.fills import Fills
from proxy.freshness import Failure, judge_failure
from proxy.routing import Proxied
from proxy.spool import Spool
from proxy.upstreams import Upstreams

BLOB_TYPE = "application/octet-stream"
SEEN_TTL_S = 60.0
MAX_SEEN = 100_000


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in the store. ``outcome`` is what X-Cache says."""

    digest: Digest
    size_bytes: int
    outcome: str = "hit"


@dataclass(frozen=True, slots=True)
class IncomingBlob:
    """A blob that is being fetched right now."""

    digest: Digest
    spool: Spool
    outcome: str = "miss"

    @property
    def size_bytes(self) -> int:
        return self.spool.size_bytes


FoundBlob = StoredBlob | IncomingBlob


class Blobs:
    """The blobs of all upstreams."""

    def __init__(self, store: BlobStore, catalog: Catalog, upstreams: Upstreams, access: Access, fills: Fills) -> None:
        self._store = store
        self._catalog = catalog
        self._upstreams = upstreams
        self._access = access
        self._fills = fills
        self._heads: SingleFlight[tuple[str, str, Digest, str], int] = SingleFlight()
        self._seen: TTLCache[tuple[str, str, Digest], int] = TTLCache(MAX_SEEN, SEEN_TTL_S)

    async def find(self, route: Proxied, digest: Digest, caller: Caller) -> FoundBlob:
        """The blob, held or on its way in.

        Raises NotFound, Denied or another RegistryError as the upstream does.
        """
        held = await self.find_held(route, digest, caller)
        return held if held is not None else await self._fetch(route, digest, caller)

    async def find_held(self, route: Proxied, digest: Digest, caller: Caller) -> StoredBlob | None:
        """The blob when the store holds it and the upstream lets this identity have it; None when it is not held.

        Raises as ``find``.
        """
        size_bytes = await self._store.stat(digest)
        if size_bytes is None:
            return None
        member = await self._catalog.member(route.namespace, route.repository, digest)
        if member is not None and self._access.readable(route, caller):
            return StoredBlob(digest, size_bytes)
        outcome = await self._prove(route, digest, caller, member is not None)
        return StoredBlob(digest, size_bytes, outcome)

    async def stat(self, route: Proxied, digest: Digest, caller: Caller) -> tuple[int, str]:
        """The blob's size in bytes and the outcome, without fetching it. Raises as ``find``.

        Who pushes asks this to learn what need not be uploaded, so it is the upstream's word, at most SEEN_TTL_S old:
        a blob that we hold and the upstream has lost must be uploaded again.
        """
        seen_bytes = self._seen.get((route.namespace, route.repository, digest))
        if seen_bytes is not None and self._access.readable(route, caller):
            return seen_bytes, "hit"
        member = await self._catalog.member(route.namespace, route.repository, digest)
        try:
            return await self._head(route, digest, caller), "miss"
        except RegistryError as error:
            held = member is not None and await self._store.stat(digest) is not None
            if member is None or self._judge(route, caller, error, held) is Failure.RELAY:
                raise
            return member.size, "stale"

    async def add(self, route: Proxied, digest: Digest, size_bytes: int) -> None:
        """Notes that the upstream has just shown, or taken, this blob of the repository."""
        self._seen[(route.namespace, route.repository, digest)] = size_bytes
        if await self._catalog.member(route.namespace, route.repository, digest) is None:
            descriptor = Descriptor(media_type=BLOB_TYPE, digest=digest, size=size_bytes)
            await self._catalog.add_member(route.namespace, route.repository, descriptor)

    def doubt(self, route: Proxied) -> None:
        """Forgets what was seen of a repository lately: the upstream says that it misses something."""
        for key in [key for key in self._seen if key[:2] == (route.namespace, route.repository)]:
            self._seen.pop(key, None)

    async def remove(self, route: Proxied, digest: Digest) -> None:
        """Notes that the repository has this blob no longer."""
        self._seen.pop((route.namespace, route.repository, digest), None)
        await self._catalog.remove_member(route.namespace, route.repository, digest)

    async def _prove(self, route: Proxied, digest: Digest, caller: Caller, is_member: bool) -> str:
        """Lets the upstream say whether this identity may have this blob; returns the outcome."""
        try:
            await self._head(route, digest, caller)
        except RegistryError as error:
            if self._judge(route, caller, error, is_member) is Failure.RELAY:
                raise
            return "stale"
        return "hit"

    async def _head(self, route: Proxied, digest: Digest, caller: Caller) -> int:
        """The size that the upstream gives for the blob; at most one such question is under way."""

        async def ask() -> int:
            size_bytes = await self._client(route, caller).head_blob(route.repository, digest)
            if size_bytes is None:
                raise blob_unknown(route, digest)
            self._access.grant(route, caller)
            await self.add(route, digest, size_bytes)
            return size_bytes

        key = (route.namespace, route.repository, digest, caller.fingerprint)
        return await self._heads.run(key, ask)

    def _judge(self, route: Proxied, caller: Caller, error: RegistryError, held: bool) -> Failure:
        """What to do about a failed upstream. That it hides what it once showed is a refusal as well."""
        if isinstance(error, Denied) or (held and isinstance(error, NotFound)):
            self._access.revoke(route, caller)
        return judge_failure(error, held, self._access.was_readable(route, caller))

    async def _fetch(self, route: Proxied, digest: Digest, caller: Caller) -> IncomingBlob | StoredBlob:
        """Joins the fill of this blob, or starts it.

        A fill that somebody else's credentials did not open is no answer for this identity: it tries its own.
        """
        owner = (route.namespace, route.repository, caller.fingerprint)
        while (fill := self._fills.running(digest)) is not None:
            try:
                spool = await fill.opened()
            except RegistryError:
                if fill.owner == owner:
                    raise
                continue
            return await self._follow(route, caller, digest, spool)
        if (held := await self.find_held(route, digest, caller)) is not None:
            return held  # the fill ended between the two looks
        if self._fills.running(digest) is not None:
            return await self._fetch(route, digest, caller)
        return IncomingBlob(digest, await self._start(route, digest, caller, owner))

    async def _follow(self, route: Proxied, caller: Caller, digest: Digest, spool: Spool) -> IncomingBlob:
        member = await self._catalog.member(route.namespace, route.repository, digest)
        if member is None or not self._access.readable(route, caller):
            await self._prove(route, digest, caller, False)
        return IncomingBlob(digest, spool)

    async def _start(self, route: Proxied, digest: Digest, caller: Caller, owner: object) -> Spool:
        async def opened(size_bytes: int) -> None:
            self._access.grant(route, caller)
            await self.add(route, digest, size_bytes)

        source = self._client(route, caller).open_blob(route.repository, digest)
        fill = self._fills.start(digest, owner, source, opened)
        try:
            return await fill.opened()
        except Denied:
            self._access.revoke(route, caller)
            raise

    def _client(self, route: Proxied, caller: Caller) -> RegistryClient:
        return self._upstreams.client(route.upstream, caller)


def blob_unknown(route: Proxied, digest: Digest) -> NotFound:
    """What an upstream's 404 to a HEAD means; such a reply has no body that says it."""
    url = f"{route.upstream.url}/v2/{route.repository}/blobs/{digest}"
    return NotFound("HEAD", url, 404, (ErrorDetail("BLOB_UNKNOWN", f"{route} has no blob {digest}"),))
