"""An SSH agent for one step: a socket of its own that passes everything on to the agent of whoever builds."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from builder.sandbox.ids import give

_CHUNK_BYTES = 64 * 1024


@asynccontextmanager
async def forwarded_agent(agent: Path, directory: Path, owner: tuple[int, int], mode: int) -> AsyncIterator[Path]:
    """The path of the socket, in ``directory``, while the block runs. Raises OSError."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_pass_on(agent, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    try:
        # A socket's path is short: 108 bytes, so the directory goes by its descriptor.
        server = await asyncio.start_unix_server(connected, f"/proc/self/fd/{handle}/agent")
        path = directory / "agent"
        try:
            give(path, *owner)
            path.chmod(mode)
            yield path
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
    finally:
        os.close(handle)


async def _pass_on(agent: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both directions, until either side ends."""
    with contextlib.suppress(OSError):
        theirs, to_agent = await asyncio.open_unix_connection(str(agent))
        try:
            ways = [asyncio.ensure_future(_copy(reader, to_agent)), asyncio.ensure_future(_copy(theirs, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            to_agent.close()
    writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
