"""Which requests come from another replica, and what only they may ask for."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.cluster.replicas import REPLICA_HEADER, Replicas
from proxy.errors import Forbidden, Unknown

SIGNATURE = web.RequestKey("signature", str)
"""What another replica has signed its request with; absent on what comes from clients."""


class ReplicaGate:
    """Tells replicas from clients."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    @web.middleware
    async def know(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Notes which requests other replicas have signed.

        A signature that is wrong or old is none: who sends it is a client like any other.
        """
        signature = request.headers.get(REPLICA_HEADER)
        if signature is not None and self._replicas.is_replica(signature, request.method, request.raw_path):
            request[SIGNATURE] = signature
        return await handler(request)

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Shows a replica that a replica answers."""
        if SIGNATURE in request:
            response.headers[REPLICA_HEADER] = self._replicas.sign_reply(request[SIGNATURE])


def replicas_only(replicas: Replicas, handler: Handler) -> Handler:
    """``handler`` for other replicas: 403 for everybody else, 404 where there are no others."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if replicas.alone:
            raise Unknown("UNSUPPORTED", "this proxy has no other replicas")
        if SIGNATURE not in request:
            raise Forbidden("only replicas of this proxy may ask for this")
        return await handler(request)

    return guarded
