"""Blobs on the wire: all of one or a range, from the store's file, from the store, or from a spool that still grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import IO, BinaryIO, cast

import structlog
from aiohttp import web

from cache.errors import CacheError
from cache.oci.digest import Digest
from cache.oci.errors import OCIError
from cache.store import BlobStore, LocalPaths
from proxy.requests.call import SENT_BYTES
from proxy.requests.ranges import ByteRange, parse_range
from proxy.transfer.blobs import FoundBlob, IncomingBlob
from proxy.transfer.spool import Spool

Source = BinaryIO | Spool | AsyncIterator[bytes]
"""A blob's own file, a spool that still grows, or just the bytes that were asked for."""

log = structlog.get_logger()


async def serve_blob(
    http: web.Request, store: BlobStore, found: FoundBlob, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answers a GET with the blob, or the part of it that the request asks for.

    An error after the first byte cuts the connection: nothing is ever appended to a blob. Raises RangeNotSatisfiable,
    BlobNotFound and StoreUnavailable before that.
    """
    asked = parse_range(http.headers.get("Range"), found.size_bytes)
    part = asked or ByteRange(0, found.size_bytes)
    response = web.StreamResponse(status=200 if asked is None else 206, headers=headers)
    if asked is not None:
        response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{found.size_bytes}"
    response.content_length = part.length_bytes
    if isinstance(found, IncomingBlob) and found.size_bytes == 0:
        await found.spool.wait_sealed()  # its headers alone are a complete reply
    async with AsyncExitStack() as stack:
        source = await _open(stack, store, found, part)
        try:
            await response.prepare(http)
            http[SENT_BYTES] = 0
            await _send(http, response, part, source)
            await response.write_eof()
        except ConnectionError:
            log.info("client_left", digest=str(found.digest))
        except (OCIError, CacheError, OSError) as error:
            log.warning("blob_cut_short", digest=str(found.digest), error=str(error))
            if http.transport is not None:
                http.transport.abort()
    return response


async def _open(stack: AsyncExitStack, store: BlobStore, found: FoundBlob, part: ByteRange) -> Source:
    """Where the bytes come from: the store's own file, if it has one, which the kernel sends without us reading it."""
    if isinstance(found, IncomingBlob):
        return found.spool
    if isinstance(store, LocalPaths):
        file = await asyncio.to_thread(_open_local, store, found.digest)
        if file is not None:
            stack.callback(file.close)
            return file
    return await stack.enter_async_context(store.open(found.digest, part.start, part.stop))


def _open_local(store: LocalPaths, digest: Digest) -> BinaryIO | None:
    path = store.local_path(digest)
    try:
        return path.open("rb", buffering=0) if path is not None else None
    except FileNotFoundError:
        return None  # evicted this very moment


async def _send(http: web.Request, response: web.StreamResponse, part: ByteRange, source: Source) -> None:
    if isinstance(source, Spool):
        await _follow(http, response, source, part)
    elif isinstance(source, AsyncIterator):
        await _write(http, response, source)
    elif part.length_bytes and http.transport is not None:
        try:
            await asyncio.get_running_loop().sendfile(http.transport, source, part.start, part.length_bytes)
        finally:
            http[SENT_BYTES] = max(0, source.tell() - part.start)  # it is left where the sending stopped


async def _write(http: web.Request, response: web.StreamResponse, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await response.write(chunk)
        http[SENT_BYTES] += len(chunk)


async def _follow(http: web.Request, response: web.StreamResponse, spool: Spool, part: ByteRange) -> None:
    """Sends what comes as it comes; over plain HTTP the kernel sends what is on the disk, without us reading it."""
    if http.secure:
        await _write(http, response, spool.read(part.start, part.stop))
        return
    loop = asyncio.get_running_loop()
    async for piece in spool.parts(part.start, part.stop):
        if isinstance(piece, bytes):
            await response.write(piece)
            http[SENT_BYTES] += len(piece)
        elif http.transport is None:
            raise ConnectionResetError("the client has left")
        else:
            file = cast(IO[bytes], piece.file)  # its descriptor is all that is asked for over plain HTTP
            http[SENT_BYTES] += await loop.sendfile(http.transport, file, piece.start, piece.stop - piece.start)
