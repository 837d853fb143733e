"""What refers to a manifest: signatures, attestations and the like (distribution-spec, "Listing Referrers").

Hosted repositories keep a record for each subject. An upstream is asked each time, with the client's own credentials;
where it has no API for referrers, the index is used that clients keep under the fallback tag. Failure is never an empty
list: it would read as "not signed".
"""

from __future__ import annotations

from dataclasses import dataclass

from cache.catalog import Catalog
from cache.oci import codec
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest, InvalidReply, NotFound
from cache.oci.manifest import Index, parse_manifest
from cache.oci.referrers import INLINE_BYTES, fallback_tag, of_type, referrer
from proxy.auth.caller import Caller
from proxy.errors import Unknown
from proxy.hosting.hosted import HostedRepositories
from proxy.requests.outcome import BYPASS, HIT, MISS, Outcome
from proxy.requests.request import ListReferrers
from proxy.requests.routing import Hosted, Proxied, Route
from proxy.upstream.manifests import FoundManifest, Manifests
from proxy.upstream.upstreams import Upstreams

PAGE_BYTES = 1 << 20
"""How many bytes of descriptors one page holds; clients stop reading at 4 MiB."""


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """Some of what refers to a manifest, in the order of the digests; ``more`` = there is another page after it."""

    manifests: tuple[Descriptor, ...]
    more: bool
    outcome: Outcome


class Referrers:
    """Lists referrers, of hosted and of upstreams' repositories."""

    def __init__(
        self, catalog: Catalog, hosted: HostedRepositories, manifests: Manifests, upstreams: Upstreams
    ) -> None:
        self._catalog = catalog
        self._hosted = hosted
        self._manifests = manifests
        self._upstreams = upstreams

    async def page(self, route: Route, asked: ListReferrers, caller: Caller) -> ReferrersPage:
        """The page that is asked for. Raises RegistryError as the upstream does, StoreUnavailable."""
        if isinstance(route, Hosted):
            found, outcome = of_type(await self._hosted_referrers(route, asked.subject), asked.artifact_type), HIT
        else:
            found, outcome = await self._upstream_referrers(route, asked, caller)
        wanted = {referring.digest: referring for referring in found}
        rest = [wanted[digest] for digest in sorted(wanted) if asked.last is None or digest > asked.last]
        page: list[Descriptor] = []
        size_bytes = 0
        for referring in rest:
            whole = await self._whole(route, referring)
            size_bytes += len(codec.encode(whole))
            if page and size_bytes > PAGE_BYTES:
                break
            page.append(whole)
        return ReferrersPage(tuple(page), len(page) < len(rest), outcome)

    async def _hosted_referrers(self, route: Hosted, subject: Digest) -> tuple[Descriptor, ...]:
        """What is noted, and what clients noted themselves under the fallback tag."""
        noted = await self._catalog.referrers(route.namespace, route.repository, subject)
        try:
            fallback = await self._hosted.find_manifest(route, fallback_tag(subject))
        except Unknown:
            return noted
        return (*_manifests_of(fallback), *noted)

    async def _upstream_referrers(
        self, route: Proxied, asked: ListReferrers, caller: Caller
    ) -> tuple[tuple[Descriptor, ...], Outcome]:
        client = self._upstreams.client(route.upstream, caller)
        found = await client.referrers(route.repository, asked.subject, asked.artifact_type)
        if found is not None:
            return found, BYPASS
        try:
            fallback = await self._manifests.find(route, fallback_tag(asked.subject), caller)
        except NotFound:
            return (), MISS
        try:
            return of_type(_manifests_of(fallback), asked.artifact_type), fallback.outcome
        except InvalidManifest as error:
            url = f"{route.upstream.url}/v2/{route.repository}/manifests/{fallback_tag(asked.subject)}"
            raise InvalidReply("GET", url, 200, reason=str(error)) from error

    async def _whole(self, route: Route, noted: Descriptor) -> Descriptor:
        """The descriptor with its annotations: large ones are kept in the manifest only."""
        if isinstance(route, Proxied) or noted.size <= INLINE_BYTES:
            return noted
        held = await self._catalog.manifest(route.namespace, route.repository, noted.digest)
        return referrer(parse_manifest(*held), noted.digest) if held is not None else noted


def _manifests_of(fallback: FoundManifest) -> tuple[Descriptor, ...]:
    """What the fallback tag's index lists; nothing when it is an image. Raises InvalidManifest when it is neither."""
    index = parse_manifest(fallback.raw, fallback.descriptor.media_type)
    return index.manifests if isinstance(index, Index) else ()
