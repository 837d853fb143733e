"""The endpoints that write: uploads, manifests, deletion."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

import structlog
from aiohttp import web

from cache.oci.client import PutReply
from cache.oci.digest import Digest
from cache.oci.errors import RegistryError
from cache.oci.manifest import parse_manifest
from proxy.auth.rights import Right
from proxy.errors import BodyBroken, InvalidRequest, TooLarge, Unknown
from proxy.requests.call import Call
from proxy.requests.outcome import BYPASS
from proxy.requests.ranges import parse_chunk
from proxy.requests.request import (
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    PutManifest,
    StartUpload,
    UploadChunk,
    UploadStatus,
)
from proxy.requests.routing import Hosted, Route, is_under, route
from proxy.services import Services
from proxy.transfer.forwarded import ForwardedUpload
from proxy.transfer.uploads import Body, HostedUpload, Upload

PushRequest = (
    PutManifest | DeleteManifest | DeleteBlob | StartUpload | UploadChunk | FinishUpload | UploadStatus | CancelUpload
)
MAX_MANIFEST_BYTES = 8 << 20
CHUNK_BYTES = 256 * 1024
SPARED_BYTES = 256 * 1024
"""A blob of this size is worth looking for where it may be already, although the client is about to send it."""

log = structlog.get_logger()


async def start_upload(services: Services, call: Call, request: StartUpload) -> web.Response:
    """A new upload; or the blob whole in this request; or mounted from where it is."""
    if request.mount is not None and await _mounted(services, call, request.mount, request.source):
        return _blob_created(services, call, request.mount)
    if request.digest is not None and await _spared(services, call, request.digest):
        return _blob_created(services, call, request.digest)
    upload_id = await services.uploads.add(await _new_upload(services, call), call.route, call.owner)
    if request.digest is not None:
        try:
            await services.uploads.finish(upload_id, call.route, call.owner, request.digest, _body(call))
        finally:
            await services.uploads.end(upload_id)  # they do not know it, and cannot come back to it
        return _blob_created(services, call, request.digest)
    return _upload_reply(call, 202, upload_id, 0)


async def _mounted(services: Services, call: Call, digest: Digest, source: str | None) -> bool:
    """Whether the blob could be taken from ``source``, or, when that is None, from wherever it was seen lately.

    A name that leads nowhere, or nowhere that they may read, is no reason to refuse the upload.
    """

    def is_readable(place: Route) -> bool:
        return services.config.rules.allow(call.caller.who, str(place), Right.READ)

    async def mounted_from(place: Route) -> bool:
        return is_readable(place) and await services.mounts.mount(call.route, place, digest, call.caller)

    if source is not None:
        try:
            return await mounted_from(route(services.config, source, call.http.query.get("ns")))
        except Unknown:
            return False
    brought = services.sightings.brought(digest, call.owner)
    if brought is not None and brought != call.route and await mounted_from(brought):
        return True
    own = (call.route,) if isinstance(call.route, Hosted) else ()
    places = filter(is_readable, dict.fromkeys((*own, *services.sightings.places(digest))))
    return await services.mounts.mount_from_any(call.route, tuple(places), digest, call.caller)


async def _spared(services: Services, call: Call, digest: Digest) -> bool:
    """Whether the repository has got the blob without the body of this request, which is the whole blob.

    The body is read to its end all the same: few clients understand a reply that comes before.
    """
    size_bytes = call.http.content_length
    if size_bytes is None or size_bytes < SPARED_BYTES:
        return False
    try:
        if not await _mounted(services, call, digest, None):
            return False
    except RegistryError as error:
        log.info("upload_not_spared", repository=str(call.route), digest=str(digest), reason=str(error))
        return False
    with contextlib.suppress(BodyBroken):
        async for _ in body_chunks(call.http):
            pass
    return True


async def _new_upload(services: Services, call: Call) -> Upload:
    if isinstance(call.route, Hosted):
        return HostedUpload(services.store, services.hosted, call.route)
    client = services.upstreams.pusher(call.route.upstream, call.caller)
    upload = ForwardedUpload(client, services.intakes, services.blobs, call.route)
    await upload.open()
    return upload


async def upload_chunk(services: Services, call: Call, request: UploadChunk) -> web.Response:
    """Takes more bytes of an upload."""
    received = await services.uploads.append(request.upload, call.route, call.owner, _body(call))
    return _upload_reply(call, 202, request.upload, received)


async def finish_upload(services: Services, call: Call, request: FinishUpload) -> web.Response:
    """Takes the last bytes of an upload; says so when the blob is where it belongs."""
    is_first = services.uploads.received_bytes(request.upload, call.route, call.owner) == 0
    if is_first and await _spared(services, call, request.digest):
        await services.uploads.cancel(request.upload, call.route, call.owner)
    else:
        await services.uploads.finish(request.upload, call.route, call.owner, request.digest, _body(call))
    return _blob_created(services, call, request.digest)


async def upload_status(services: Services, call: Call, request: UploadStatus) -> web.Response:
    """How much of an upload is here."""
    received = services.uploads.received_bytes(request.upload, call.route, call.owner)
    return _upload_reply(call, 204, request.upload, received)


async def cancel_upload(services: Services, call: Call, request: CancelUpload) -> web.Response:
    """Gives an upload up."""
    await services.uploads.cancel(request.upload, call.route, call.owner)
    return web.Response(status=204, headers=call.headers(BYPASS))


async def put_manifest(services: Services, call: Call, request: PutManifest) -> web.Response:
    """Takes a manifest; for an upstream's repository that is so when the upstream has taken it.

    The reply names the subject and the tags that have been taken note of: a client looks after all others itself.
    """
    raw = await _read_manifest_body(call.http)
    digest = _manifest_digest(raw, request.reference)
    media_type = call.http.headers.get("Content-Type", "").partition(";")[0].strip()
    if isinstance(call.route, Hosted):
        manifest = parse_manifest(raw, media_type)
        first_wins = is_under(call.route.repository, services.config.first_writer)
        await services.hosted.put_manifest(
            call.route, request.reference, manifest, request.tags, call.caller.who, first_wins=first_wins
        )
        subject = str(manifest.subject.digest) if manifest.subject is not None else ""
        taken = PutReply(digest, subject, request.tags)
    else:
        taken = await services.manifest_pushes.push(call.route, request, raw, media_type, call.caller)
    services.usage.note(call.route.namespace, call.route.repository, request.reference)
    more = {"OCI-Subject": taken.subject, "OCI-Tag": ", ".join(taken.tags)}
    said = {name: value for name, value in more.items() if value}
    return _created(call, f"manifests/{request.reference}", digest, said)


async def _read_manifest_body(http: web.Request) -> bytes:
    parts: list[bytes] = []
    total = 0
    async for part in http.content.iter_any():
        total += len(part)
        if total > MAX_MANIFEST_BYTES:
            raise TooLarge(f"the manifest is longer than {MAX_MANIFEST_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _manifest_digest(raw: bytes, reference: str | Digest) -> Digest:
    if isinstance(reference, str):
        return Digest.of(raw)
    actual = Digest.of(raw, reference.algorithm)
    if actual != reference:
        raise InvalidRequest("DIGEST_INVALID", f"expected {reference}, but the manifest came with {actual}")
    return actual


async def delete_manifest(services: Services, call: Call, request: DeleteManifest) -> web.Response:
    """Removes a tag, or a manifest with all tags that point to it."""
    if isinstance(call.route, Hosted):
        await services.hosted.remove_manifest(call.route, request.reference)
    else:
        client = services.upstreams.client(call.route.upstream, call.caller)
        if isinstance(request.reference, Digest):
            await client.delete_manifest(call.route.repository, request.reference)
        else:
            await client.delete_tag(call.route.repository, request.reference)
        await services.manifests.forget(call.route, request.reference)
    return web.Response(status=202, headers=call.headers(BYPASS))


async def delete_blob(services: Services, call: Call, request: DeleteBlob) -> web.Response:
    """Removes a blob from its repository."""
    if isinstance(call.route, Hosted):
        await services.hosted.remove_blob(call.route, request.digest)
    else:
        client = services.upstreams.client(call.route.upstream, call.caller)
        await client.delete_blob(call.route.repository, request.digest)
        await services.blobs.remove(call.route, request.digest)
    return web.Response(status=202, headers=call.headers(BYPASS))


def _body(call: Call) -> Body:
    place = parse_chunk(call.http.headers.get("Content-Range"))
    return Body(body_chunks(call.http), call.http.content_length if call.http.can_read_body else 0, place)


async def body_chunks(http: web.Request) -> AsyncIterator[bytes]:
    """What the client sends. Raises BodyBroken when it leaves before the end."""
    try:
        async for chunk in http.content.iter_chunked(CHUNK_BYTES):
            yield chunk
    except (OSError, web.RequestPayloadError) as error:
        raise BodyBroken("the body ended before it was complete") from error


def _blob_created(services: Services, call: Call, digest: Digest) -> web.Response:
    services.sightings.note_push(call.route, digest, call.owner)
    return _created(call, f"blobs/{digest}", digest)


def _created(call: Call, rest: str, digest: Digest, more: Mapping[str, str] | None = None) -> web.Response:
    said = {"Location": call.path(rest), **(more or {})}
    return web.Response(status=201, headers=call.headers(BYPASS, digest, said))


def _upload_reply(call: Call, status: int, upload_id: str, received_bytes: int) -> web.Response:
    more = {
        "Location": call.path(f"blobs/uploads/{upload_id}"),
        "Range": f"0-{max(0, received_bytes - 1)}",
        "Docker-Upload-UUID": upload_id,
    }
    return web.Response(status=status, headers=call.headers(BYPASS, None, more))
