"""What holds for every request: errors become replies, and one line is logged. Neither ever holds a secret."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cache.errors import CacheError
from cache.oci.errors import OCIError
from proxy.auth.admission import absent
from proxy.auth.hosts import KnownHosts
from proxy.auth.identity import make_challenge
from proxy.auth.rights import Right
from proxy.cluster.gate import SIGNATURE
from proxy.drain import Drain
from proxy.errors import InvalidRequest, Misdirected, Refused, Unknown
from proxy.observe.audit import Done, audit_line, push_outcome
from proxy.observe.log import REQUEST_ID
from proxy.observe.metrics import Answered, Metrics
from proxy.requests.call import (
    API_HEADERS,
    ASKED,
    ERROR,
    PASSED_ON,
    REQUEST_ID_HEADER,
    SCOPE,
    SENT_BYTES,
    UPSTREAM,
    WANTED,
    WHO,
)
from proxy.requests.replies import ErrorReply, error_reply
from proxy.requests.request import UploadChunk, UploadStatus

QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: worth a line only when they fail."""
PATH_CHARACTERS = 200
_NO_HEADERS: Mapping[str, str] = {}
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
        done = _done(request, response)
        headers = response.headers if response is not None else _NO_HEADERS
        sent_bytes = request.get(SENT_BYTES)
        if sent_bytes is None:
            sent_bytes = _body_bytes(response)
        outcome = _outcome(done.status, headers.get("X-Cache", ""))
        self._count(done, Answered(done.kind, outcome, seconds, sent_bytes))
        if done.asked is None and done.status < 500 and request.path in QUIET_PATHS:
            return
        log.info(
            "request_served",
            who=done.who,
            method=done.method,
            kind=done.kind,
            repository=done.where or request.raw_path.partition("?")[0][:PATH_CHARACTERS],
            reference=done.reference,
            status=done.status,
            outcome=outcome,
            bytes=sent_bytes,
            duration_s=round(seconds, 4),
            upstream=done.upstream,
        )
        line = audit_line(done, headers.get("Docker-Content-Digest", ""), headers.get("OCI-Tag", ""))
        if line is not None:
            log.warning(line[0], **line[1]) if done.status >= 400 else log.info(line[0], **line[1])

    def _count(self, done: Done, answered: Answered) -> None:
        self._metrics.request(answered)
        if done.refused_by is not None:
            self._metrics.refused(done.refused_by)
        if (pushed := push_outcome(done)) is not None:
            self._metrics.pushed(*pushed)
        if isinstance(done.error, CacheError):
            self._metrics.store_failed()


def _done(request: web.Request, response: web.StreamResponse | None) -> Done:
    wanted = request.get(WANTED)
    return Done(
        asked=request.get(ASKED) if PASSED_ON not in request else None,
        method=request.method,
        who=request.get(WHO, ""),
        where=wanted.place if wanted is not None else "",
        right=wanted.right.value if wanted is not None else "",
        upstream=request.get(UPSTREAM, ""),
        status=response.status if response is not None else 500,
        error=request.get(ERROR),
    )


def _body_bytes(response: web.StreamResponse | None) -> int:
    """How long the body of a reply is that is whole in memory, and not sent yet."""
    return len(response.body) if isinstance(response, web.Response) and isinstance(response.body, bytes) else 0


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
        # aiohttp keeps the request until the next one on its connection: not with all that was at work on it.
        request[ERROR] = error.with_traceback(None)
        return _response(
            request, error_reply(error, request.get(UPSTREAM, ""), request.get(SCOPE, ""), _absent(request))
        )


def _absent(request: web.Request) -> Unknown | None:
    """What a client that reads is told of what is not there; None for others."""
    wanted = request.get(WANTED)
    return absent(wanted.place, request.get(ASKED)) if wanted is not None and wanted.right is Right.READ else None


def refuse_unknown_hosts(known: Callable[[], KnownHosts]) -> Middleware:
    """Refuses requests whose ``Host`` is no name of ours (``proxy.auth.hosts``), whatever they are for.

    What another replica passes on has its client's ``Host``, and was let in there.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Host" not in request.headers:
            raise InvalidRequest("UNSUPPORTED", "the request has no Host header")
        place = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if SIGNATURE not in request and not known().accept(request.host, place[0] if place else ""):
            raise Misdirected("this proxy is not known by that host name: if it should be, start it with --host NAME")
        return await handler(request)

    return check


def _response(request: web.Request, reply: ErrorReply) -> web.Response:
    headers = {**API_HEADERS, **reply.headers}
    if UPSTREAM in request:
        headers["OCI-Namespace"] = request[UPSTREAM]
    if reply.scope is not None:
        headers["WWW-Authenticate"] = str(make_challenge(request.scheme, request.host, reply.scope))
    return web.Response(status=reply.status, body=reply.body, content_type="application/json", headers=headers)
