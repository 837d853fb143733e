"""Requests for uploads that are under way at another replica: passed on as they come, and the replies back."""

from __future__ import annotations

import structlog
from aiohttp import web

from proxy.cluster.gate import SIGNATURE
from proxy.cluster.replicas import REPLICA_HEADER
from proxy.errors import ReplicaGone, no_upload
from proxy.observe.log import REQUEST_ID
from proxy.requests.call import PASSED_ON, REQUEST_ID_HEADER, Call
from proxy.requests.pushing import body_chunks
from proxy.services import Services

_OF_A_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
"""Headers that say how one connection is used (RFC 9110, section 7.6.1)."""
_OURS = frozenset({REPLICA_HEADER.lower(), REQUEST_ID_HEADER.lower()})
_NOT_SENT = _OF_A_CONNECTION | _OURS
_NOT_PASSED_BACK = _OF_A_CONNECTION | _OURS | {"content-length", "date", "server"}

log = structlog.get_logger()


async def passed_on(services: Services, call: Call, upload_id: str) -> web.Response | None:
    """The reply of the replica at which the upload is under way; None where that is this one, or none.

    The client's own headers go along, those of its connection excepted. What another replica has passed on is not
    passed on again. Raises Unknown when the owner is gone, and BodyBroken when the client leaves.
    """
    http = call.http
    if upload_id in services.uploads or SIGNATURE in http:
        return None
    owner = services.replicas.owner_of(upload_id)
    if owner is None:
        return None
    headers = {name: value for name, value in http.headers.items() if name.lower() not in _NOT_SENT}
    headers[REQUEST_ID_HEADER] = REQUEST_ID.get()
    body = body_chunks(http) if http.can_read_body else None
    http[PASSED_ON] = True
    try:
        async with services.replicas.ask(owner, http.method, http.raw_path, headers, body) as reply:
            content = await reply.read()
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in _NOT_PASSED_BACK}
            return web.Response(status=reply.status, headers=kept, body=content)
    except ReplicaGone as error:
        log.warning("replica_gone", replica=owner, reason=str(error))
        del http[PASSED_ON]  # nobody else accounts for it
        raise no_upload() from error
