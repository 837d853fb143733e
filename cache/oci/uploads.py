"""Pushing blobs (distribution-spec, "Pushing blobs"): mount, monolithic and chunked upload."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import ClientResponse

from cache.errors import SizeMismatch
from cache.oci.challenge import repository_scope
from cache.oci.digest import Digest
from cache.oci.errors import Denied, NotFound, RegistryError
from cache.oci.replies import least_chunk_bytes, received_bytes, upload_location, with_query
from cache.oci.session import RegistrySession
from cache.oci.transport import Body

Source = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens a blob's bytes anew, from the first one, each time it is called."""

_REPOSITORY = re.compile(r"://[^/]+/v2/(.+?)/blobs/uploads/")


class Uploads(RegistrySession):
    """The part of the registry client that pushes blobs.

    Locations of uploads are absolute URLs, to be passed back as they are; they name their repository.
    """

    async def mount_blob(self, repository: str, digest: Digest, source: str) -> bool:
        """True when the registry took the blob from its repository ``source``; False when it must be uploaded.

        Registries refuse a mount in many ways (no such blob, no right to the source, not supported), so every answer of
        theirs but 429 and 5xx means False. One that has refused some in succession is not asked any more.
        """
        if not self.profile.mounts:
            return False
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        scopes = (repository_scope(repository, "pull", "push"), repository_scope(source, "pull"))
        try:
            async with self.request("POST", path, data=b"", scopes=scopes) as response:
                if response.status == 201:
                    self.profile.refused_mounts = 0
                    return True
                await self.expect(response, "POST", self.base_url + path, 202)
                started = self._location(response, "POST")
        except RegistryError as error:
            if error.temporary:
                raise
            if not isinstance(error, Denied | NotFound):  # those speak of the source, or of who asks
                self.profile.refused_mounts += 1
            return False
        await self._abandon(started)
        return False

    async def start_upload(self, repository: str) -> str:
        """The location of a new upload."""
        path = f"/v2/{repository}/blobs/uploads/"
        async with self.request("POST", path, data=b"", scopes=push_scopes(repository)) as response:
            await self.expect(response, "POST", self.base_url + path, 202)
            self.profile.least_chunk_bytes = least_chunk_bytes(response.headers)
            return self._location(response, "POST")

    async def put_upload(
        self, location: str, digest: Digest, chunks: AsyncIterator[bytes] | None = None, size_bytes: int | None = None
    ) -> None:
        """Closes the upload, with the last (or only) bytes in the same request when there are ``chunks``.

        Raises SizeMismatch when ``chunks`` are not ``size_bytes`` in all; what the source raises comes through.
        """
        url = with_query(location, f"digest={digest}")
        headers, data = _body(chunks, size_bytes, digest)
        async with self.request("PUT", url, headers=headers, data=data, scopes=_push_to(location)) as response:
            await self.expect(response, "PUT", url, 201, 200, 204)

    async def patch_upload(
        self, location: str, chunks: AsyncIterator[bytes], start: int | None = None, size: int | None = None
    ) -> str:
        """Adds bytes to the upload and returns its next location.

        One stream of any length when ``start`` is None; else the chunk of ``size`` bytes that begins at ``start``, and
        a registry that holds another number of bytes answers 416.
        """
        headers, data = _body(chunks, size)
        if start is not None:
            if not size:
                raise ValueError(f"a chunk at byte {start} needs its size, got {size}")
            headers["Content-Range"] = f"{start}-{start + size - 1}"
        async with self.request("PATCH", location, headers=headers, data=data, scopes=_push_to(location)) as response:
            await self.expect(response, "PATCH", location, 202, 201, 204)
            return self._location(response, "PATCH")

    async def upload_status(self, location: str) -> tuple[str, int]:
        """Where the upload goes on, and how many bytes the registry holds of it."""
        async with self.request("GET", location, scopes=_push_to(location)) as response:
            await self.expect(response, "GET", location, 204, 200, 202)
            held = received_bytes(response.headers)
            if held is None:
                raise RegistryError(
                    "GET", location, response.status, reason="the reply does not say how far the upload is"
                )
            return self._location(response, "GET") if "Location" in response.headers else location, held

    async def cancel_upload(self, location: str) -> None:
        """Gives the upload up. Raises NotFound when there is none any more."""
        async with self.request("DELETE", location, scopes=_push_to(location)) as response:
            await self.expect(response, "DELETE", location, 204, 200, 202)

    async def upload_blob(self, repository: str, digest: Digest, size_bytes: int, source: Source) -> None:
        """Uploads a blob in one piece.

        After a temporary failure, where the upload is gone with the one of several registries that had it, and once
        after a 401 on the way (a token may end during a long upload), ``source`` is opened again and all is sent anew.
        Raises SizeMismatch and what ``source`` raises.
        """
        failed, refused = 0, False
        while True:
            location = await self.retrying(lambda: self.start_upload(repository))
            try:
                async with source() as chunks:
                    return await self.put_upload(location, digest, chunks, size_bytes)
            except RegistryError as error:
                await self._abandon(location)
                if isinstance(error, Denied) and error.status == 401 and not refused:
                    refused = True
                    continue
                failed += 1
                await (self.wait if isinstance(error, NotFound) else self.pause)(error, failed)
            except SizeMismatch:
                await self._abandon(location)
                raise

    async def _abandon(self, location: str) -> None:
        """Cancels an upload as a courtesy: registries drop what is left over by themselves."""
        with contextlib.suppress(RegistryError):
            await self.cancel_upload(location)

    def _location(self, response: ClientResponse, method: str) -> str:
        try:
            return upload_location(self.base, response.url, response.headers.get("Location", ""))
        except ValueError as error:
            reason = f"the reply does not say where the upload goes on: {error}"
            raise RegistryError(method, str(response.url), response.status, reason=reason) from error


def bytes_source(data: bytes) -> Source:
    """The source of a blob that is in memory."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield chunks()

    return opened


def _push_to(location: str) -> tuple[str, ...]:
    """The scope of an upload's repository; none when its location does not show it (the registry will say then)."""
    match = _REPOSITORY.search(location)
    return push_scopes(match[1]) if match else ()


def push_scopes(repository: str) -> tuple[str, ...]:
    """What a push to the repository needs."""
    return (repository_scope(repository, "pull", "push"),)


def _body(
    chunks: AsyncIterator[bytes] | None, size_bytes: int | None, digest: Digest | None = None
) -> tuple[dict[str, str], Body]:
    """Headers and body of an upload's request: with a length where it is known, chunked otherwise."""
    headers = {"Content-Type": "application/octet-stream"}
    if chunks is None or size_bytes == 0:
        return headers, b""
    if size_bytes is None:
        return headers, chunks
    return headers | {"Content-Length": str(size_bytes)}, _exactly(chunks, size_bytes, digest)


async def _exactly(chunks: AsyncIterator[bytes], size_bytes: int, digest: Digest | None) -> AsyncIterator[bytes]:
    """The chunks unchanged; fails at the first byte too many or at the end when some are missing."""
    seen = 0
    async for chunk in chunks:
        seen += len(chunk)
        if seen > size_bytes:
            break
        yield chunk
    if seen != size_bytes:
        raise (
            SizeMismatch(digest, size_bytes, seen) if digest else ValueError(f"expected {size_bytes} bytes, got {seen}")
        )
