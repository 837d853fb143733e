"""What is sent to a URL: one that may have been signed beforehand, so its query is a secret."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import aiohttp
from yarl import URL

from builder.errors import BuildError

TRIES = 4
_FIRST_WAIT_S = 0.2
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=300)


@dataclass(frozen=True, slots=True)
class Sending:
    """A request whose body is ``what`` messages call it, opened anew for every try."""

    method: str
    url: str
    media_type: str
    what: str
    open_body: Callable[[], bytes | BinaryIO]


def shown(url: str) -> str:
    """The URL as people may see it: without credentials and query."""
    return str(URL(url).with_user(None).with_query(None))


async def send(sending: Sending, tries: int = TRIES) -> None:
    """Sends it, again after a temporary failure. Raises BuildError, which does not show what may be secret."""
    wait_s = _FIRST_WAIT_S
    for number in range(1, tries + 1):
        failure = await _try(sending)
        if failure is None:
            return
        reason, temporary = failure
        if number == tries or not temporary:
            raise BuildError(f"cannot {sending.method} {sending.what} to {shown(sending.url)}: {reason}")
        await asyncio.sleep(wait_s)
        wait_s *= 2


async def _try(sending: Sending) -> tuple[str, bool] | None:
    """Why it failed, and whether another try may help; None when it did not fail."""
    headers = {"Content-Type": sending.media_type, "User-Agent": "crossdock"}
    url = URL(sending.url, encoded=True)
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
            session.request(
                sending.method, url, data=sending.open_body(), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status // 100 == 2:
                return None
            said = f"the server answered {response.status} {response.reason or ''}".strip()
            return said, response.status in _TEMPORARY
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__, True
