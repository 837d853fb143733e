"""What holds for every request: errors become replies, and one line is logged. Neither ever holds a secret."""

from __future__ import annotations

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cache.errors import CacheError
from cache.oci.errors import OCIError
from proxy.call import API_HEADERS, SCOPE, UPSTREAM, WANTED, WHO
from proxy.errors import CredentialsNeeded, Hidden, InvalidRequest, Misdirected, Refused
from proxy.hosts import KnownHosts
from proxy.identity import make_challenge
from proxy.replies import ErrorReply, error_reply

log = structlog.get_logger()


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns the errors of the domain into distribution-spec's replies."""
    try:
        return await handler(request)
    except (Refused, OCIError, CacheError) as error:
        if isinstance(error, CacheError):
            log.warning("store_failed", error=str(error))
        reply = error_reply(error, request.get(UPSTREAM, ""), request.get(SCOPE, ""))
        _note_refusal(request, error, reply.status)
        return _response(request, reply)


def refuse_unknown_hosts(known: KnownHosts) -> Middleware:
    """Refuses requests whose ``Host`` is no name of ours (``proxy.hosts``), whatever they are for."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Host" not in request.headers:
            raise InvalidRequest("UNSUPPORTED", "the request has no Host header")
        place = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if not known.accept(request.host, place[0] if place else ""):
            raise Misdirected("this proxy is not known by that host name: if it should be, start it with --host NAME")
        return await handler(request)

    return check


def _note_refusal(request: web.Request, error: Exception, status: int) -> None:
    """Logs that somebody was refused, by a rule, for a wrong password or by the upstream.

    Asking for credentials where none came yet is no refusal.
    """
    wanted = request.get(WANTED)
    wrong = error.who if isinstance(error, CredentialsNeeded) else ""
    if wrong or (wanted is not None and (status in (401, 403) or isinstance(error, Hidden))):
        log.warning(
            "access_refused",
            who=wrong or request.get(WHO, ""),
            repository=wanted.place if wanted is not None else "",
            right=wanted.right.value if wanted is not None else "",
            status=status,
        )


def _response(request: web.Request, reply: ErrorReply) -> web.Response:
    headers = {**API_HEADERS, **reply.headers}
    if UPSTREAM in request:
        headers["OCI-Namespace"] = request[UPSTREAM]
    if reply.scope is not None:
        headers["WWW-Authenticate"] = str(make_challenge(request.scheme, request.host, reply.scope))
    return web.Response(status=reply.status, body=reply.body, content_type="application/json", headers=headers)


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Logs each request when it has been answered; health checks only when they fail."""
    started_at = time.monotonic()
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        return response
    finally:
        status = response.status if response is not None else 500
        if status >= 500 or not request.path.endswith("z"):
            log.info(
                "request_served",
                method=request.method,
                path=request.path,
                status=status,
                outcome=response.headers.get("X-Cache", "") if response is not None else "",
                duration_s=round(time.monotonic() - started_at, 4),
            )
