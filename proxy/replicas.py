"""The other replicas of the cluster: where an upload is under way, and requests to who has it.

A client's requests may each come to another replica. Its upload is at the one that began it: whoever gets a request
for it passes that on, as it comes, and the reply back. An owner that is gone has lost the upload; clients then begin
the blob anew. Replicas share nothing but the store, where their key lies. A proxy that was not told where others can
reach it is alone: it names uploads without a place, and passes nothing on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from yarl import URL

from cache import paths
from cache.errors import RecordConflict
from cache.store import ABSENT, Store
from proxy.errors import BodyBroken
from proxy.replica_key import KEY_BYTES, ReplicaKey

REPLICA_HEADER = "Crossdock-Replica"
CONNECT_S = 3.0
SILENCE_S = 900.0
"""An owner says nothing while an upstream takes the last of a large blob."""
_REPLY_BYTES = 1 << 20
_OF_A_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
"""Headers that say how one connection is used (RFC 9110, section 7.6.1)."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Passed:
    """A replica's whole reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Replicas:
    """This replica, at ``url`` for the others (None: it is alone), and its way to them."""

    def __init__(self, store: Store, url: str | None) -> None:
        self._store = store
        self._url = url
        self._key: ReplicaKey | None = None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes the connections to the others."""
        if self._session is not None:
            await self._session.close()

    async def upload_name(self, upload: str) -> str:
        """What clients call the upload. Raises StoreUnavailable when the key cannot be read."""
        return upload if self._url is None else (await self.key()).upload_name(upload, self._url)

    async def owner_of(self, upload_name: str) -> str | None:
        """Another replica at which the upload is under way; None when that is none.

        Raises StoreUnavailable.
        """
        if self._url is None:
            return None
        owner = (await self.key()).upload_owner(upload_name)
        return owner if owner != self._url else None

    async def is_replica(self, signature: str, method: str, target: str) -> bool:
        """Whether a request with this ``Crossdock-Replica`` header comes from a replica. Raises StoreUnavailable."""
        return self._url is not None and (await self.key()).accepts(signature, method, target, time.time())

    async def key(self) -> ReplicaKey:
        """The key, made by the first replica that needs it. Raises StoreUnavailable."""
        if self._key is None:
            self._key = ReplicaKey(await self._shared_secret())
        return self._key

    async def _shared_secret(self) -> bytes:
        name = paths.replica_key()
        while (record := await self._store.get(name)) is None:
            try:
                await self._store.put(name, secrets.token_bytes(KEY_BYTES), ABSENT)
            except RecordConflict:
                continue  # another replica was first
        return record.value

    async def pass_on(
        self, owner: str, method: str, target: str, headers: Mapping[str, str], body: AsyncIterator[bytes] | None
    ) -> Passed | None:
        """The owner's reply to a client's request; None when the owner is gone.

        The client's own headers go along, those of its connection excepted. Raises BodyBroken when ``body`` does.
        """
        sent = {name: value for name, value in headers.items() if name.lower() not in _OF_A_CONNECTION}
        try:
            async with self.ask(owner, method, target, sent, body) as reply:
                content = await reply.content.read(_REPLY_BYTES)
                left_out = _OF_A_CONNECTION | {"content-length"}
                kept = {name: value for name, value in reply.headers.items() if name.lower() not in left_out}
                return Passed(reply.status, kept, content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, BodyBroken):
                raise error.__cause__ from error
            log.warning("replica_gone", replica=owner, reason=str(error) or type(error).__name__)
            return None

    @asynccontextmanager
    async def ask(
        self,
        replica: str,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None = None,
        silence_s: float = SILENCE_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A replica's reply to a signed request. Raises aiohttp.ClientError, TimeoutError, StoreUnavailable."""
        signed = {**headers, REPLICA_HEADER: (await self.key()).sign(method, target, time.time())}
        url = URL(replica.rstrip("/") + target, encoded=True)
        session = self._open_session()
        patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        async with session.request(
            method, url, headers=signed, data=body, allow_redirects=False, timeout=patience
        ) as reply:
            yield reply

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session
