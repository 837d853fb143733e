"""Digests → a file, or by HTTP PUT to a URL."""

from __future__ import annotations

import asyncio
from pathlib import Path

from builder.outputs import web
from builder.outputs.whole_files import write_text


def is_url(place: str) -> bool:
    """Whether it is written by PUT."""
    return place.startswith(("http://", "https://"))


def shown(place: str) -> str:
    """The place as people may see it: without credentials and query."""
    return web.shown(place) if is_url(place) else place


async def write(place: str, text: str) -> None:
    """Writes the text there, as text/plain. Raises BuildError."""
    if is_url(place):
        await web.send(web.Sending("PUT", place, "text/plain", "the digest", text.encode))
    else:
        await asyncio.to_thread(write_text, Path(place), text)
