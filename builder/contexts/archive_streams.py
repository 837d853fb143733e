"""The bytes of a context that is a tar somewhere, as a stream that a thread can read while it unpacks.

Whatever they come from, ``abort`` ends a read that waits, so that an interrupted build leaves no thread behind.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any, cast

import aiohttp

from builder.contexts.cloud_storage import azure_target, google_target
from builder.contexts.download import Temporary, opened, web_target
from builder.contexts.locations import ArchiveContext, AzureBlob, GoogleObject, S3Object, TarFile, WebArchive
from builder.errors import BuildError, ContextError
from builder.layer.chunk_stream import Abortable, streamed
from cache.oci.google_credentials import google_token
from cache.oci.redirect import Target

_POLL_S = 0.2
_S3_READ_BYTES = 1 << 18


@asynccontextmanager
async def open_archive(place: ArchiveContext, environ: Mapping[str, str]) -> AsyncIterator[Abortable]:
    """The tar at ``place``. Raises ContextError for what stays wrong; Temporary, also from reads, for what may pass."""
    match place:
        case TarFile():
            with _open_file(place) as file:
                yield _File(file)
        case S3Object():
            body = await asyncio.to_thread(_s3_body, place, environ)
            try:
                yield _S3Body(body)
            finally:
                await asyncio.to_thread(body.close)
        case WebArchive() | GoogleObject() | AzureBlob():
            async with (
                opened(await _target(place, environ), place) as response,
                streamed(_received(response.content)) as stream,
            ):
                yield stream


async def _target(place: WebArchive | GoogleObject | AzureBlob, environ: Mapping[str, str]) -> Target:
    match place:
        case WebArchive(url):
            return web_target(url, place)
        case AzureBlob():
            try:
                return azure_target(place, environ, formatdate(usegmt=True))
            except ValueError as error:
                raise ContextError(f"cannot fetch {place}: {error}") from error
        case GoogleObject():
            emulator = environ.get("STORAGE_EMULATOR_HOST", "")
            return google_target(place, emulator, "" if emulator else await google_token(environ))


def _open_file(place: TarFile) -> Any:
    if place.path is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise ContextError("the context shall come from the standard input, which is a terminal: pipe a tar to it")
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    try:
        if not place.path.is_file():
            raise ContextError(f"the context {place} is not a file")
        return place.path.open("rb", buffering=0)
    except OSError as error:
        raise ContextError(f"cannot read the context {place}: {error.strerror or error}") from error


class _File:
    """A file, or a pipe that may keep silent."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._aborted = False

    def read(self, size: int, /) -> bytes:
        while not self._aborted:
            if select.select([self._file], [], [], _POLL_S)[0]:
                return cast(bytes, self._file.read(size))
        raise BuildError("interrupted")

    def abort(self) -> None:
        self._aborted = True


async def _received(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """What comes, until it ends. Raises Temporary when the connection breaks off."""
    try:
        async for data in content.iter_any():
            yield data
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Temporary(f"the connection broke off: {type(error).__name__}") from error


class _S3Body:
    """An object's body, as boto3 gives it; its reads time out by themselves."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._aborted = False

    def read(self, size: int, /) -> bytes:
        if self._aborted:
            raise BuildError("interrupted")
        from botocore.exceptions import BotoCoreError

        try:
            return cast(bytes, self._body.read(min(size, _S3_READ_BYTES)))
        except (BotoCoreError, OSError) as error:
            raise Temporary(f"the connection broke off: {type(error).__name__}") from error

    def abort(self) -> None:
        self._aborted = True


def _s3_body(place: S3Object, environ: Mapping[str, str]) -> Any:
    """The object's body. boto3 is imported only here, as that takes longer than a build whose every step hits."""
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    path_style = environ.get("S3_FORCE_PATH_STYLE", "").lower() in ("true", "1")
    endpoint = environ.get("S3_ENDPOINT") or None
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"total_max_attempts": 3},
        s3={"addressing_style": "path"} if path_style else {},
    )
    try:
        client = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
        return client.get_object(Bucket=place.bucket, Key=place.key)["Body"]
    except ClientError as error:
        told = error.response.get("Error", {})
        raise ContextError(f"cannot fetch {place}: {told.get('Code')} {told.get('Message', '')}".rstrip()) from error
    except (BotoCoreError, ValueError) as error:
        hint = (
            "; credentials come from AWS' variables and files"
            if isinstance(error, NoCredentialsError | PartialCredentialsError)
            else ""
        )
        raise ContextError(f"cannot fetch {place}: {error}{hint}") from error
