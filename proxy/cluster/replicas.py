"""The other replicas of the cluster: where an upload is under way, and requests to who has it.

A client's requests may each come to another replica. Its upload is at the one that began it: whoever gets a request
for it passes that on, as it comes, and the reply back (``proxy.cluster.passing``). An owner that is gone has lost the
upload; clients then begin the blob anew. Replicas share nothing but the store, where their key lies. A proxy that was
not told where others can reach it is alone: it names uploads without a place, and passes nothing on.

To add an endpoint that only replicas may use, give it a path under ``INTERNAL_PATH`` and route it as
``app.router.add_get(path, replicas_only(services.replicas, handler))`` (``proxy.cluster.gate``): others get 403, and
everybody 404 from a proxy that is alone. It needs no credentials of a client and asks for none.

To ask another replica: ``async with services.replicas.ask(url, "GET", path, {...}) as reply``. ``path`` has its query
with it, percent-encoded as it is to be sent. The body of ``reply`` is still to be read; inside the context
``ReplicaGone`` is raised when it breaks off, and leaving early gives the connection up. What another replica answers is
a reply, whatever its status: only silence raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from cache import paths
from cache.errors import DamagedRecord, RecordConflict
from cache.store import ABSENT, Records
from proxy.cluster.replica_key import KEY_BYTES, ReplicaKey
from proxy.errors import ReplicaGone

REPLICA_HEADER = "Crossdock-Replica"
INTERNAL_PATH = "/_crossdock/v1/"
CONNECT_S = 3.0
SILENCE_S = 900.0
"""An owner says nothing while an upstream takes the last of a large blob."""
CHECKED_EACH_S = 10.0
"""So often, while an owner says nothing, it is asked whether it runs at all."""
ALIVE_WITHIN_S = 5.0
MAX_CONNECTIONS = 2048
"""To all other replicas: each carries one request, and whoever comes later waits."""
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
"""A machine that is gone answers nothing, not even with a refusal: the kernel notices within half a minute."""


class Replicas:
    """This replica, at ``url`` for the others (None: it is alone), and its way to them. Usable once opened."""

    def __init__(self, records: Records, url: str | None) -> None:
        self._records = records
        self._url = url
        self._key: ReplicaKey | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Gets the key, made by the first replica that comes. Raises StoreUnavailable, DamagedRecord."""
        if self._url is not None:
            self._key = await load_key(self._records)

    async def close(self) -> None:
        """Closes the connections to the others."""
        if self._session is not None:
            await self._session.close()

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self._url is None

    def upload_name(self, upload: str) -> str:
        """What clients call the upload that is begun here."""
        return upload if self._url is None else self._used_key.upload_name(upload, self._url)

    def owner_of(self, upload_name: str) -> str | None:
        """Another replica at which the upload is under way; None when that is none."""
        owner = self._used_key.upload_owner(upload_name) if self._url is not None else None
        return owner if owner != self._url else None

    def is_replica(self, signature: str, method: str, target: str) -> bool:
        """Whether a request with this ``Crossdock-Replica`` header comes from a replica."""
        return self._url is not None and self._used_key.accepts(signature, method, target, time.time())

    def sign_reply(self, signature: str) -> str:
        """The ``Crossdock-Replica`` header of a reply, by which the asking replica knows that a replica gave it."""
        return self._used_key.sign_reply(signature)

    @property
    def _used_key(self) -> ReplicaKey:
        if self._key is None:
            raise RuntimeError("the replicas' key is not loaded: open them first")
        return self._key

    @asynccontextmanager
    async def ask(
        self,
        replica: str,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply of ``replica``, a URL that came from a replica and from nobody else, to a signed request.

        Raises ReplicaGone when none comes, none of a replica, or nothing more for SILENCE_S seconds, much sooner from a
        replica that stands still; and what ``body`` raises.
        """
        signature = self._used_key.sign(method, target, time.time())
        url = URL(replica + target, encoded=True)
        source = _Source(body) if body is not None else None
        try:
            asked = self._opened().request(
                method,
                url,
                headers={**headers, REPLICA_HEADER: signature},
                data=source.chunks() if source is not None else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            )
            reply = await _while_it_runs(replica, asked)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if source is not None and source.error is not None:
                raise source.error from error
            raise _gone(replica, error) from error
        async with reply:
            if not hmac.compare_digest(reply.headers.get(REPLICA_HEADER, "").encode(), self._proof(signature)):
                raise ReplicaGone(replica, "what answers there now is no replica")
            try:
                yield reply
            except (aiohttp.ClientPayloadError, aiohttp.ServerTimeoutError) as error:
                raise _gone(replica, error) from error

    def _proof(self, signature: str) -> bytes:
        return self.sign_reply(signature).encode()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS,
                    force_close=True,  # one that is closed as it is used again would look like a replica that is gone
                    socket_factory=_socket,
                ),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session


async def _while_it_runs(replica: str, asked: Awaitable[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
    """The reply of the replica, waited for as long as it answers another connection in time. Raises ReplicaGone."""
    waiting = asyncio.ensure_future(asked)
    limit = aiohttp.ClientTimeout(total=ALIVE_WITHIN_S)
    try:
        while not (await asyncio.wait([waiting], timeout=CHECKED_EACH_S))[0]:
            try:
                async with aiohttp.request("GET", f"{replica}/healthz", timeout=limit):
                    pass
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _gone(replica, error) from error
        return waiting.result()
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait([waiting])


class _Source:
    """A body on its way to another replica, and what went wrong with it on our side."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.error: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body."""
        try:
            async for chunk in self._body:
                yield chunk
        except Exception as error:
            self.error = error
            raise


async def load_key(records: Records) -> ReplicaKey:
    """The key of the store's replicas, made if there is none. Raises StoreUnavailable, DamagedRecord."""
    name = paths.replica_key()
    record = await records.get(name)
    if record is None:
        with contextlib.suppress(RecordConflict):  # another was first
            await records.put(name, secrets.token_bytes(KEY_BYTES), ABSENT)
        record = await records.get(name)
    try:
        return ReplicaKey(record.value if record is not None else b"")
    except ValueError as error:
        raise DamagedRecord(name, str(error)) from error


def _gone(replica: str, error: Exception) -> ReplicaGone:
    return ReplicaGone(replica, str(error) or type(error).__name__)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices when its other end is gone, however long nothing is said."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (number := getattr(socket, name, None)) is not None:  # they differ between systems
            made.setsockopt(socket.IPPROTO_TCP, number, value)
    return made
