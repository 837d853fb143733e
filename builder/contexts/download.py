"""A file of ADD from the web: streamed to disk, digested as it passes, bounded, and taken up again after a fault."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import aiohttp
from yarl import URL

from builder.contexts.remote import UrlSource
from builder.errors import ContextError
from builder.options import DEFAULT_LIMITS
from cache.oci.digest import Digest
from cache.oci.redirect import RefusedRedirect, Target, follow, parse_url

T = TypeVar("T")

MAX_BYTES = DEFAULT_LIMITS.download_bytes
TRIES = 4
_MOST_REDIRECTS = 10
_FIRST_WAIT_S = 0.2
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file on this machine; ``mtime_s`` is when the server says it was changed, 0 when it says nothing."""

    path: Path
    digest: Digest
    size_bytes: int
    mtime_s: int


class Temporary(Exception):
    """Worth another try."""


async def download(source: UrlSource, path: Path, max_bytes: int = MAX_BYTES) -> Downloaded:
    """Fetches the file to ``path``. Raises ContextError, which shows the URL without what may be secret in it."""

    async def attempt() -> Downloaded:
        async with opened(web_target(source.url, source), source) as response:
            return await _receive(response, source, path, max_bytes)

    return await with_tries(source, attempt)


async def with_tries(what: object, attempt: Callable[[], Awaitable[T]]) -> T:
    """What ``attempt`` returns, tried again after faults that may pass. Raises ContextError, and all that it raises."""
    wait_s = _FIRST_WAIT_S
    for number in range(1, TRIES + 1):
        try:
            return await attempt()
        except (aiohttp.ClientError, TimeoutError, Temporary) as error:
            if isinstance(error, aiohttp.ClientHttpProxyError) and error.status not in _TEMPORARY:
                raise ContextError(f"cannot fetch {what}: the proxy answered {error.status} {error.message}") from error
            if number == TRIES:
                reason = str(error) if isinstance(error, Temporary) else type(error).__name__
                raise ContextError(f"cannot fetch {what} after {TRIES} tries: {reason}") from error
        await asyncio.sleep(wait_s)
        wait_s *= 4
    raise AssertionError("the last try either returns or raises")


@asynccontextmanager
async def opened(target: Target, what: object) -> AsyncIterator[aiohttp.ClientResponse]:
    """The reply with the content, redirects followed, credentials sent to the first server only.

    Raises ContextError for what stays wrong, Temporary and aiohttp.ClientError for what may pass; ``what`` is how the
    source is called in messages.
    """
    target = Target(target.url, {"Accept-Encoding": "identity", "User-Agent": "crossdock", **target.headers})
    async with aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False, trust_env=True) as session:
        for _ in range(_MOST_REDIRECTS):
            async with session.get(target.url, headers=target.headers, allow_redirects=False) as response:
                try:
                    following = follow(target, "GET", response.status, response.headers.get("Location"))
                except RefusedRedirect as error:
                    raise ContextError(f"cannot fetch {what}: it {error}") from error
                if following is None:
                    _check_status(response, what)
                    yield response
                    return
                target = following
    raise ContextError(f"cannot fetch {what}: more than {_MOST_REDIRECTS} redirects")


def _check_status(response: aiohttp.ClientResponse, what: object) -> None:
    if response.status in _TEMPORARY:
        raise Temporary(f"the server answered {response.status}")
    if response.status != 200:
        raise ContextError(
            f"cannot fetch {what}: the server answered {response.status} {response.reason or ''}".rstrip()
        )


def web_target(text: str, what: object) -> Target:
    """The URL without its credentials, which become a header. Raises ContextError."""
    try:
        url = parse_url(text)
    except ValueError as error:
        raise ContextError(f"{what} is not a URL") from error
    headers = {}
    if url.user is not None:
        pair = f"{url.user}:{url.password or ''}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        url = URL(str(url.with_user(None)), encoded=True)
    return Target(url.with_fragment(None), headers)


async def _receive(response: aiohttp.ClientResponse, source: UrlSource, path: Path, max_bytes: int) -> Downloaded:
    algorithm = source.checksum.algorithm if source.checksum else "sha256"
    digest = hashlib.new(algorithm)
    size_bytes = 0
    with path.open("wb") as file:
        async for chunk in response.content.iter_chunked(1 << 18):
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise ContextError(f"cannot fetch {source}: it has more than {max_bytes} bytes (--max-download-bytes)")
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
    found = Digest(algorithm, digest.hexdigest())
    if source.checksum is not None and found != source.checksum:
        raise ContextError(f"{source} has not the checksum that was asked for: expected {source.checksum}, got {found}")
    return Downloaded(path, found, size_bytes, _modified_s(response.headers.get("Last-Modified", "")))


def _modified_s(text: str) -> int:
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp()))
    except (ValueError, TypeError):
        return 0
