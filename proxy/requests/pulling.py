"""The endpoints that read content: manifests and blobs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

from aiohttp import web

from cache.oci import media_types
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest, NotFound
from cache.oci.manifest import Index, parse_manifest
from proxy.auth.rights import Right
from proxy.errors import Unknown
from proxy.hosting.fall_through import wider
from proxy.requests.call import Call
from proxy.requests.negotiation import instead_of, parse_accept, wants_no_index
from proxy.requests.outcome import HIT, Outcome
from proxy.requests.request import ReadBlob, ReadManifest
from proxy.requests.routing import Hosted, Proxied
from proxy.requests.serving import serve_blob
from proxy.services import Services
from proxy.transfer.blobs import FoundBlob
from proxy.upstream.manifests import FoundDescriptor, FoundManifest

IMMUTABLE = "private, max-age=31536000, immutable"
T = TypeVar("T")
_ETAG = re.compile(r'(?:W/)?"?([^",\s]+)"?')


async def read_manifest(services: Services, call: Call, request: ReadManifest) -> web.StreamResponse:
    """A manifest's exact bytes, or on HEAD what it is."""
    found = await _find_manifest(services, call, request.reference, request.head)
    services.usage.note(call.route.namespace, call.route.repository, request.reference)
    more = {}
    if isinstance(request.reference, str) and found.descriptor.media_type in media_types.INDEXES:
        found = await _negotiated(services, call, found, request.head)
        more["Vary"] = "Accept"
    descriptor = found.descriptor
    more |= {"Content-Type": descriptor.media_type, "ETag": f'"{descriptor.digest}"'}
    if isinstance(found, FoundDescriptor):
        more["Content-Length"] = str(descriptor.size)
        return web.Response(headers=call.headers(found.outcome, descriptor.digest, more))
    headers = call.headers(found.outcome, descriptor.digest, more)
    if _is_known(call, descriptor.digest):
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.raw, headers=headers)


async def _find_manifest(
    services: Services, call: Call, reference: str | Digest, head: bool
) -> FoundManifest | FoundDescriptor:
    match call.route:
        case Hosted() if head:
            found = await in_either(services, call, lambda place: services.hosted.stat_manifest(place, reference))
            return FoundDescriptor(found, HIT)
        case Hosted():
            return await in_either(services, call, lambda place: services.hosted.find_manifest(place, reference))
        case Proxied() as proxied if head:
            return await services.manifests.stat(proxied, reference, call.caller)
        case Proxied() as proxied:
            return await services.manifests.find(proxied, reference, call.caller)
        case _:
            assert_never(call.route)


async def in_either(services: Services, call: Call, find: Callable[[Hosted], Awaitable[T]]) -> T:
    """What is found in the hosted repository, or in the wider one that it reads from too. Raises Unknown."""
    assert isinstance(call.route, Hosted)
    try:
        return await find(call.route)
    except Unknown as unknown:
        wide = wider_place(services, call)
        if wide is None:
            raise
        try:
            return await find(wide)
        except Unknown:
            raise unknown from None


def wider_place(services: Services, call: Call) -> Hosted | None:
    """The repository that this one reads from too; None where there is none, or the caller may not read it."""
    config = services.config
    wide = wider(config.fall_throughs, call.route.repository) if isinstance(call.route, Hosted) else None
    return Hosted(wide) if wide is not None and config.rules.allow(call.caller.who, wide, Right.READ) else None


async def _negotiated(
    services: Services, call: Call, found: FoundManifest | FoundDescriptor, head: bool
) -> FoundManifest | FoundDescriptor:
    """The index that a tag points to, or what a client that takes none gets (``proxy.requests.negotiation``)."""
    descriptor = found.descriptor
    accept = parse_accept(*call.http.headers.getall("Accept", ()))
    if not wants_no_index(accept, descriptor.media_type):
        return found
    whole = await _find_manifest(services, call, descriptor.digest, False) if head else found
    assert isinstance(whole, FoundManifest)
    try:
        index = parse_manifest(whole.raw, descriptor.media_type)
        child = instead_of(index, accept) if isinstance(index, Index) else None
        return await _find_manifest(services, call, child.digest, head) if child is not None else found
    except (InvalidManifest, Unknown, NotFound):
        return found


async def read_blob(services: Services, call: Call, request: ReadBlob) -> web.StreamResponse:
    """A blob or a range of it, or on HEAD its size."""
    more = {
        "Content-Type": "application/octet-stream",
        "ETag": f'"{request.digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": IMMUTABLE,
    }
    if request.head:
        size_bytes, outcome = await _blob_size(services, call, request.digest)
        services.sightings.note(call.route, request.digest)
        more["Content-Length"] = str(size_bytes)
        return web.Response(headers=call.headers(outcome, request.digest, more))
    found = await _find_blob(services, call, request.digest)
    services.sightings.note(call.route, request.digest)
    headers = call.headers(found.outcome, request.digest, more)
    if _is_known(call, request.digest):
        return web.Response(status=304, headers=headers)
    if (url := await services.redirects.url(call.http, found)) is not None:
        more = {"Location": url, "Cache-Control": "no-store"}
        return web.Response(status=307, headers=call.headers(found.outcome, request.digest, more))
    return await serve_blob(call.http, services.store, found, headers)


async def _find_blob(services: Services, call: Call, digest: Digest) -> FoundBlob:
    if isinstance(call.route, Hosted):
        return await in_either(services, call, lambda place: services.hosted.find_blob(place, digest))
    return await services.blobs.find(call.route, digest, call.caller)


async def _blob_size(services: Services, call: Call, digest: Digest) -> tuple[int, Outcome]:
    if isinstance(call.route, Hosted):
        # Not in a wider one: who pushes asks this, and takes it for a reason not to upload.
        return (await services.hosted.find_blob(call.route, digest)).size_bytes, HIT
    return await services.blobs.stat(call.route, digest, call.caller)


def _is_known(call: Call, digest: Digest) -> bool:
    """True when the client says that it has this content already (If-None-Match, quoted or bare)."""
    known = call.http.headers.get("If-None-Match", "")
    return known.strip() == "*" or str(digest) in _ETAG.findall(known)
