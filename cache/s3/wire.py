"""Objects' bytes on the wire: signed requests on aiohttp, so that no thread carries them and memory stays bounded.

One attempt each; trying again is ``cache.s3.bucket``'s.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

import aiohttp
from yarl import URL

from cache.s3.answers import S3Answer, ServerFailed, answer, error_code
from cache.s3.session import CONNECT_TIMEOUT_S, Access, S3Session
from cache.tls import ABORTS_WHAT_IS_CLOSED

READ_TIMEOUT_S = 20.0
"""The longest silence of a server that is to send something."""

READ_BUFFER_BYTES = 1 << 18
ERROR_BODY_BYTES = 64 * 1024


class Body(Protocol):
    """What a request sends, as often as it is asked for."""

    @property
    def size_bytes(self) -> int:
        """The length."""

    @property
    def sha256(self) -> bytes:
        """The digest."""

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes, from the first on."""


class Bytes:
    """A small body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.sha256 = hashlib.sha256(data).digest()

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes, at once."""
        if self._data:
            yield self._data


NOTHING = Bytes(b"")


def checksum(sha256: bytes) -> str:
    """A SHA-256 in the form of ``x-amz-checksum-sha256``."""
    return base64.b64encode(sha256).decode("ascii")


class S3Reply:
    """A successful reply whose body is still to be read; to be closed."""

    def __init__(self, response: aiohttp.ClientResponse, host: str) -> None:
        self._response = response
        self._host = host
        self.status = response.status
        self.headers = response.headers

    async def read(self) -> bytes:
        """The next bytes; none at the end. Raises ServerFailed."""
        with _translated(self._host):
            return await self._response.content.readany()

    async def whole(self) -> bytes:
        """All that is left. Raises ServerFailed."""
        with _translated(self._host):
            return await self._response.content.read()

    def close(self) -> None:
        """Gives the connection back, or up when the body has not been read to its end."""
        self._response.release()


class S3Wire:
    """Requests for the objects of one bucket."""

    def __init__(self, session: S3Session) -> None:
        self._session = session
        self._opened: aiohttp.ClientSession | None = None

    async def send(self, method: str, key: str, query: str, headers: dict[str, str], body: Body) -> S3Reply:
        """The reply, if it is a success. Raises S3Answer. ``query`` is quoted already, the key "" the bucket."""
        access = await self._session.access()
        url = access.url(key) + (f"?{query}" if query else "")
        signed = access.sign(method, url, headers, body.sha256.hex())
        if method in ("PUT", "POST"):
            signed["Content-Length"] = str(body.size_bytes)
        with _translated(access.host):
            response = await self._http(access).request(
                method,
                URL(url, encoded=True),
                headers=signed,
                data=body.chunks() if body.size_bytes else None,
                allow_redirects=False,
            )
            if response.status < 300:
                return S3Reply(response, access.host)
            try:
                raise await _answer(response)
            finally:
                response.release()

    async def close(self) -> None:
        """Closes the connections."""
        if self._opened is not None:
            await self._opened.close()

    def _http(self, access: Access) -> aiohttp.ClientSession:
        if self._opened is None:
            trusted = ssl.create_default_context(cafile=access.ca_bundle) if access.ca_bundle else True
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ttl_dns_cache=30, ssl=trusted, enable_cleanup_closed=ABORTS_WHAT_IS_CLOSED
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
                headers={"Accept-Encoding": "identity", "User-Agent": "crossdock"},
                skip_auto_headers=("Content-Type",),
                trust_env=True,  # as boto3 does
            )
        return self._opened


async def _answer(response: aiohttp.ClientResponse) -> S3Answer:
    """The error that a reply stands for."""
    short = response.content_length is not None and response.content_length <= ERROR_BODY_BYTES
    # Read to its end, if that is near, the connection can be used again: most misses are such replies.
    body = await response.content.read() if short else await response.content.read(ERROR_BODY_BYTES)
    return answer(response.status, error_code(body))


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """Turns failures of the connection into ours."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        raise ServerFailed(0, f"no usable answer from {host} ({type(error).__name__})") from error
