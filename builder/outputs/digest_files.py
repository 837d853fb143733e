"""Digests → a file, or by HTTP PUT to a URL: one that was signed beforehand, so its query is a secret."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
from yarl import URL

from builder.errors import BuildError
from builder.outputs.whole_files import write_text

TRIES = 4
_FIRST_WAIT_S = 0.2
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_TIMEOUT = aiohttp.ClientTimeout(total=60)


def is_url(place: str) -> bool:
    """Whether it is written by PUT."""
    return place.startswith(("http://", "https://"))


def shown(place: str) -> str:
    """The place as people may see it: without credentials and query."""
    return str(URL(place).with_user(None).with_query(None)) if is_url(place) else place


async def write(place: str, text: str) -> None:
    """Writes the text there, as text/plain; an HTTP server is tried again after a temporary failure.

    Raises BuildError, which does not show what may be secret in a URL.
    """
    if not is_url(place):
        await asyncio.to_thread(write_text, Path(place), text)
        return
    wait_s = _FIRST_WAIT_S
    for number in range(1, TRIES + 1):
        failure = await _put(place, text)
        if failure is None:
            return
        reason, temporary = failure
        if number == TRIES or not temporary:
            raise BuildError(f"cannot put the digest to {shown(place)}: {reason}")
        await asyncio.sleep(wait_s)
        wait_s *= 2


async def _put(place: str, text: str) -> tuple[str, bool] | None:
    """Why it failed, and whether another try may help; None when it did not fail."""
    headers = {"Content-Type": "text/plain", "User-Agent": "crossdock"}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
            session.put(
                URL(place, encoded=True), data=text.encode(), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status // 100 == 2:
                return None
            return f"the server answered {response.status} {response.reason or ''}".strip(), (
                response.status in _TEMPORARY
            )
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__, True
