"""Requests under ``/v2/`` to their endpoints, and our own endpoints beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import assert_never

import msgspec
import structlog
from aiohttp import web

from cache.entry import InvalidEntry, LookupRequest, decode_request, encode_reply
from cache.errors import CacheError
from cache.oci.digest import Digest
from cache.oci.errors import Denied
from cache.oci.reference import check_repository
from cache.priority import PRIORITY_HEADER, WARM_PRIORITY
from proxy.auth import identity
from proxy.auth.admission import needed_right, refusal
from proxy.auth.caller import Caller
from proxy.auth.rights import Right
from proxy.cluster.passing import passed_on
from proxy.errors import CredentialsNeeded, Draining, Forbidden, InvalidRequest, Unknown
from proxy.observe.metrics import CONTENT_TYPE
from proxy.observe.status import read_status
from proxy.observe.status_page import SECURITY_HEADERS, render_status
from proxy.requests import discovery, pulling, pushing
from proxy.requests.call import API_HEADERS, ASKED, SCOPE, UPSTREAM, WANTED, WHO, Call, Wanted
from proxy.requests.outcome import BYPASS
from proxy.requests.request import (
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    ListReferrers,
    ListRepositories,
    ListTags,
    Ping,
    PutManifest,
    ReadBlob,
    ReadManifest,
    RepositoryRequest,
    StartUpload,
    UploadChunk,
    UploadStatus,
    parse_request,
)
from proxy.requests.routing import Proxied, route
from proxy.requests.serving import serve_blob
from proxy.services import Services
from proxy.transfer.blobs import IncomingBlob

READY_TTL_S = 5.0
LOOKUP_BYTES = 1 << 20

log = structlog.get_logger()


class Endpoints:
    """What the proxy answers, over its services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ready_until = 0.0

    async def registry(self, http: web.Request) -> web.StreamResponse:
        """Everything under ``/v2/``."""
        request = parse_request(http.method, http.rel_url.raw_path, http.query)
        http[ASKED] = request
        if isinstance(request, Ping):
            return await self._ping(http)
        if isinstance(request, ListRepositories):
            return await discovery.list_repositories(self._services, await self._caller(http), request)
        call = await self._call(http, request.name, needed_right(request), request)
        if isinstance(request, UploadChunk | FinishUpload | UploadStatus | CancelUpload):
            passed = await passed_on(self._services, call, request.upload)
            if passed is not None:
                return passed
        with self._judged_fairly(call):
            return await self._answer(call, request)

    async def _call(self, http: web.Request, name: str, right: Right, request: RepositoryRequest | None = None) -> Call:
        """The request with its repository resolved, if the rules grant it. Raises Refused."""
        http[SCOPE] = f"repository:{name}:{'pull' if right is Right.READ else 'pull,push'}"
        resolved = route(self._services.config, name, http.query.get("ns"))
        if isinstance(resolved, Proxied):
            http[UPSTREAM] = resolved.upstream.name
        place, rules = str(resolved), self._services.config.rules
        http[WANTED] = Wanted(place, right)
        caller = await self._caller(http)
        if (refused := refusal(rules, caller.who, place, right, request)) is not None:
            raise refused
        if right is Right.READ:
            caller = self._services.accounts.reader(resolved, caller)
        may_fetch = rules.allow(caller.who, place, Right.FETCH)
        patient = http.headers.get(PRIORITY_HEADER) == WARM_PRIORITY
        if patient or not may_fetch:
            caller = replace(caller, may_fetch=may_fetch, patient=patient)
        return Call(http, name, resolved, caller)

    async def _caller(self, http: web.Request) -> Caller:
        """Who asks. Raises CredentialsNeeded."""
        authentication = self._services.authentication
        caller = await authentication.caller(authentication.credential(http.headers.get("Authorization")))
        http[WHO] = caller.who
        return caller

    async def _ping(self, http: web.Request) -> web.Response:
        """``GET /v2/``: asks for credentials, since clients bring none later when this needs none (``identity``)."""
        if "Authorization" not in http.headers:
            raise CredentialsNeeded("a local user's or an upstream's credentials, or an anonymous token, are wanted")
        await self._caller(http)
        return web.Response(body=b"{}", content_type="application/json", headers=API_HEADERS)

    @contextmanager
    def _judged_fairly(self, call: Call) -> Iterator[None]:
        """What an upstream refuses to the proxy's own account is not the client's fault: it is asked for nothing."""
        try:
            yield
        except Denied as error:
            if not call.caller.account or not isinstance(call.route, Proxied):
                raise
            self._services.accounts.doubt(call.route.upstream)
            raise Forbidden(f"{call.route.upstream.name} does not let the proxy's own account do this") from error

    async def _answer(self, call: Call, request: RepositoryRequest) -> web.StreamResponse:
        match request:
            case ReadManifest():
                return await pulling.read_manifest(self._services, call, request)
            case ReadBlob():
                return await pulling.read_blob(self._services, call, request)
            case ListTags():
                return await discovery.list_tags(self._services, call, request)
            case ListReferrers():
                return await discovery.list_referrers(self._services, call, request)
            case _:
                return await self._answer_push(call, request)

    async def _answer_push(self, call: Call, request: pushing.PushRequest) -> web.StreamResponse:
        match request:
            case PutManifest():
                return await pushing.put_manifest(self._services, call, request)
            case DeleteManifest():
                return await pushing.delete_manifest(self._services, call, request)
            case DeleteBlob():
                return await pushing.delete_blob(self._services, call, request)
            case StartUpload():
                if self._services.drain.draining:
                    raise Draining("this proxy is about to stop: begin the upload anew")
                return await pushing.start_upload(self._services, call, request)
            case UploadChunk():
                return await pushing.upload_chunk(self._services, call, request)
            case FinishUpload():
                return await pushing.finish_upload(self._services, call, request)
            case UploadStatus():
                return await pushing.upload_status(self._services, call, request)
            case CancelUpload():
                return await pushing.cancel_upload(self._services, call, request)
            case _:
                assert_never(request)

    async def lookup(self, http: web.Request) -> web.Response:
        """Many cache keys at once."""
        asked = _lookup_request(await _read(http, LOOKUP_BYTES))
        call = await self._call(http, check_repository(asked.repository), Right.READ)
        with self._judged_fairly(call):
            found = await self._services.lookup.find(call.route, asked.keys, call.caller)
            missing = [key for key, hit in found.items() if hit is None]
            if missing and (wide := pulling.wider_place(self._services, call)) is not None:
                found |= await self._services.lookup.find(wide, missing, call.caller)
        headers = call.headers(BYPASS)
        return web.Response(body=encode_reply(found), content_type="application/json", headers=headers)

    async def fill(self, http: web.Request) -> web.StreamResponse:
        """For another replica: a blob that is being fetched here, as far as it has come and as it grows."""
        digest = Digest.parse(http.match_info["digest"])
        fill = self._services.fills.running(digest)
        if fill is None:
            raise Unknown("BLOB_UNKNOWN", f"blob {digest} is not being fetched here")
        spool = await fill.opened()
        return await serve_blob(http, self._services.store, IncomingBlob(digest, spool), BYPASS.headers)

    async def token(self, http: web.Request) -> web.Response:
        """A token that carries the credential it is asked for with (``proxy.auth.identity``), unless that is wrong."""
        if http.method == "POST":
            form = await http.post()
            texts = {key: value for key, value in form.items() if isinstance(value, str)}
            credential = identity.read_token_form(texts)
        else:
            credential = self._services.authentication.credential(http.headers.get("Authorization"))
        await self._services.authentication.caller(credential)
        token = identity.issue_token(credential)
        body = {"token": token, "access_token": token, "expires_in": identity.TOKEN_LIFE_S}
        headers = {"Cache-Control": "no-store"}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json", headers=headers)

    async def health(self, http: web.Request) -> web.Response:
        """The process answers."""
        return web.Response(text="ok\n")

    async def ready(self, http: web.Request) -> web.Response:
        """The store can be read and written, and the proxy is not about to stop; upstreams do not count."""
        self._services.drain.probed()
        if self._services.drain.draining:
            return web.Response(status=503, text="draining\n")
        if time.monotonic() >= self._ready_until:
            try:
                await self._services.store.check()
            except CacheError as error:
                log.warning("store_failed", error=str(error))
                self._services.metrics.store_failed()
                return web.Response(status=503, text="the store does not work\n")
            self._ready_until = time.monotonic() + READY_TTL_S
        return web.Response(text="ready\n")

    async def status(self, http: web.Request) -> web.Response:
        """How the proxy is, as a page for people."""
        page = render_status(read_status(self._services))
        return web.Response(text=page, content_type="text/html", headers=SECURITY_HEADERS)

    async def metrics(self, http: web.Request) -> web.Response:
        """What the proxy counts, for Prometheus."""
        return web.Response(body=self._services.metrics.expose(), headers={"Content-Type": CONTENT_TYPE})


def _lookup_request(body: bytes) -> LookupRequest:
    try:
        return decode_request(body)
    except InvalidEntry as error:
        raise InvalidRequest("UNSUPPORTED", str(error)) from error


async def _read(http: web.Request, limit_bytes: int) -> bytes:
    """The whole body. Raises InvalidRequest when it is longer than ``limit_bytes``."""
    parts: list[bytes] = []
    async for part in http.content.iter_any():
        parts.append(part)
        if sum(map(len, parts)) > limit_bytes:
            raise InvalidRequest("SIZE_INVALID", f"the body is longer than {limit_bytes} bytes")
    return b"".join(parts)
