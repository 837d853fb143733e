"""The endpoints that read: manifests, blobs, tags."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import assert_never
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from cache.oci.digest import Digest
from proxy.blobs import FoundBlob
from proxy.call import Call
from proxy.manifests import FoundDescriptor
from proxy.outcome import BYPASS, HIT, Outcome
from proxy.request import ListTags, ReadBlob, ReadManifest
from proxy.routing import Hosted, Proxied
from proxy.services import Services
from proxy.serving import serve_blob

IMMUTABLE = "private, max-age=31536000, immutable"
_ETAG = re.compile(r'(?:W/)?"?([^",\s]+)"?')


async def read_manifest(services: Services, call: Call, request: ReadManifest) -> web.StreamResponse:
    """A manifest's exact bytes, or on HEAD what it is."""
    match call.route:
        case Hosted() as hosted:
            found = await services.hosted.find_manifest(hosted, request.reference)
        case Proxied() as proxied if request.head:
            return _manifest_head(call, await services.manifests.stat(proxied, request.reference, call.caller))
        case Proxied() as proxied:
            found = await services.manifests.find(proxied, request.reference, call.caller)
        case _:
            assert_never(call.route)
    if request.head:
        return _manifest_head(call, FoundDescriptor(found.descriptor, found.outcome))
    digest = found.descriptor.digest
    headers = call.headers(found.outcome, digest, {"Content-Type": found.descriptor.media_type, "ETag": f'"{digest}"'})
    if _is_known(call, digest):
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.raw, headers=headers)


def _manifest_head(call: Call, found: FoundDescriptor) -> web.Response:
    descriptor = found.descriptor
    more = {
        "Content-Type": descriptor.media_type,
        "Content-Length": str(descriptor.size),
        "ETag": f'"{descriptor.digest}"',
    }
    return web.Response(headers=call.headers(found.outcome, descriptor.digest, more))


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
        more["Content-Length"] = str(size_bytes)
        return web.Response(headers=call.headers(outcome, request.digest, more))
    found = await _find_blob(services, call, request.digest)
    headers = call.headers(found.outcome, request.digest, more)
    if _is_known(call, request.digest):
        return web.Response(status=304, headers=headers)
    return await serve_blob(call.http, services.store, found, headers)


async def _find_blob(services: Services, call: Call, digest: Digest) -> FoundBlob:
    if isinstance(call.route, Hosted):
        return await services.hosted.find_blob(call.route, digest)
    return await services.blobs.find(call.route, digest, call.caller)


async def _blob_size(services: Services, call: Call, digest: Digest) -> tuple[int, Outcome]:
    if isinstance(call.route, Hosted):
        return (await services.hosted.find_blob(call.route, digest)).size_bytes, HIT
    return await services.blobs.stat(call.route, digest, call.caller)


def _is_known(call: Call, digest: Digest) -> bool:
    """True when the client says that it has this content already (If-None-Match, quoted or bare)."""
    known = call.http.headers.get("If-None-Match", "")
    return known.strip() == "*" or str(digest) in _ETAG.findall(known)


async def list_tags(services: Services, call: Call, request: ListTags) -> web.Response:
    """The tags in order, a page of them where ``n`` asks for one."""
    if isinstance(call.route, Hosted):
        tags, outcome = await services.hosted.tags(call.route), HIT
    else:
        client = services.upstreams.client(call.route.upstream, call.caller)
        tags, outcome = sorted(await client.tags(call.route.repository)), BYPASS
    rest = tags[bisect_right(tags, request.last) :] if request.last else tags
    page = rest if request.count is None else rest[: request.count]
    headers = call.headers(outcome)
    if page and len(page) < len(rest):
        query = urlencode({"n": len(page), "last": page[-1]})
        path = call.path("tags/list")
        headers["Link"] = f'<{path}{"&" if "?" in path else "?"}{query}>; rel="next"'
    body = msgspec.json.encode({"name": call.name, "tags": page})
    return web.Response(body=body, content_type="application/json", headers=headers)
