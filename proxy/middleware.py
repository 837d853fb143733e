"""What holds for every request: errors become replies, and one line is logged. Neither ever holds a secret."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cache.errors import CacheError
from cache.oci.errors import OCIError
from proxy.admission import absent
from proxy.call import API_HEADERS, ASKED, SCOPE, UPSTREAM, WANTED, WHO
from proxy.drain import Drain
from proxy.errors import CredentialsNeeded, Hidden, InvalidRequest, Misdirected, Refused, Unknown
from proxy.hosts import KnownHosts
from proxy.identity import make_challenge
from proxy.log import REQUEST_ID
from proxy.metrics import Answered, Metrics
from proxy.replies import ErrorReply, error_reply
from proxy.request import UploadChunk, UploadStatus
from proxy.rights import Right

REQUEST_ID_HEADER = "X-Request-Id"
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: worth a line only when they fail."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")

log = structlog.get_logger()


class RequestWatch:
    """Names, counts and logs every request."""

    def __init__(self, metrics: Metrics, drain: Drain) -> None:
        self._metrics = metrics
        self._drain = drain
        self._prefix = secrets.token_hex(6) + "-"
        self._numbers = itertools.count(1)

    @web.middleware
    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers the request, and notes how that went."""
        started_at = time.monotonic()
        REQUEST_ID.set(self._request_id(request.headers.get(REQUEST_ID_HEADER)))
        self._drain.requests += 1
        response: web.StreamResponse | None = None
        try:
            response = await handler(request)
            return response
        except web.HTTPException as answer:
            response = answer
            raise
        finally:
            self._drain.requests -= 1
            self._note(request, response, time.monotonic() - started_at)

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Adds what every reply says; an ending proxy lets go of connections, but not within an upload."""
        response.headers[REQUEST_ID_HEADER] = REQUEST_ID.get()
        if self._drain.draining and not isinstance(request.get(ASKED), UploadChunk | UploadStatus):
            response.headers["Connection"] = "close"
            response.force_close()

    def _request_id(self, given: str | None) -> str:
        if given is not None and _SANE_ID.fullmatch(given):
            return given
        return self._prefix + str(next(self._numbers))

    def _note(self, request: web.Request, response: web.StreamResponse | None, seconds: float) -> None:
        status = response.status if response is not None else 500
        outcome = _outcome(status, response.headers.get("X-Cache", "") if response is not None else "")
        asked = request.get(ASKED)
        kind = type(asked).__name__ if asked is not None else "Other"
        self._metrics.request(Answered(kind, outcome, seconds))
        if status >= 500 or request.path not in QUIET_PATHS:
            log.info(
                "request_served",
                method=request.method,
                path=request.path,
                status=status,
                outcome=outcome,
                duration_s=round(seconds, 4),
            )


def _outcome(status: int, cached: str) -> str:
    """What became of a request, in one word."""
    if status >= 500:
        return "failed"
    return "refused" if status >= 400 else cached or "done"


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns the errors of the domain into distribution-spec's replies."""
    try:
        return await handler(request)
    except (Refused, OCIError, CacheError) as error:
        if isinstance(error, CacheError):
            log.warning("store_failed", error=str(error))
        reply = error_reply(error, request.get(UPSTREAM, ""), request.get(SCOPE, ""), _absent(request))
        _note_refusal(request, error, reply.status)
        return _response(request, reply)


def _absent(request: web.Request) -> Unknown | None:
    """What a client that reads is told of what is not there; None for others."""
    wanted = request.get(WANTED)
    return absent(wanted.place, request.get(ASKED)) if wanted is not None and wanted.right is Right.READ else None


def refuse_unknown_hosts(known: Callable[[], KnownHosts]) -> Middleware:
    """Refuses requests whose ``Host`` is no name of ours (``proxy.hosts``), whatever they are for."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Host" not in request.headers:
            raise InvalidRequest("UNSUPPORTED", "the request has no Host header")
        place = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if not known().accept(request.host, place[0] if place else ""):
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
