"""The registry client: manifests and blobs (distribution-spec 1.1); pushing blobs is in ``cache.oci.uploads``, tags and
referrers are in ``cache.oci.discovery``.

Bytes are checked against the digest they were asked by where they are small (manifests); blobs stream, and who stores
them verifies them (``cache.verify``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import ClientResponse

from cache.oci import media_types
from cache.oci.challenge import repository_scope
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.discovery import Discovery
from cache.oci.download import BlobReply, Download
from cache.oci.errors import InvalidDigest, InvalidManifest, InvalidReply, NotFound
from cache.oci.replies import content_length, listed
from cache.oci.transport import check_plain, read_limited
from cache.oci.uploads import Uploads, push_scopes

MANIFEST_BYTES = 8 * 1024 * 1024

__all__ = ["BlobReply", "ManifestReply", "PutReply", "RegistryClient"]


@dataclass(frozen=True, slots=True)
class ManifestReply:
    """A manifest as the registry sent it; ``digest`` is of the bytes, ``media_type`` what the registry called them."""

    raw: bytes
    media_type: str
    digest: Digest
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))


@dataclass(frozen=True, slots=True)
class PutReply:
    """What a registry said of a manifest that it took: the subject and the tags that it has taken note of."""

    digest: Digest
    subject: str = ""
    tags: tuple[str, ...] = ()


class RegistryClient(Uploads, Discovery):
    """One registry as one identity. Holds no connection of its own: the transport does.

    Everything raises NotFound, Denied, RateLimited, Unreachable or another RegistryError unless it says otherwise.
    Reads are tried again after temporary failures.
    """

    async def ping(self) -> Mapping[str, str]:
        """The headers of ``GET /v2/``, after authorization."""

        async def ask() -> Mapping[str, str]:
            async with self.request("GET", "/v2/") as response:
                await self.expect(response, "GET", f"{self.base_url}/v2/", 200)
                return response.headers.copy()

        return await self.retrying(ask)

    async def get_manifest(
        self, repository: str, identifier: str, accept: str = media_types.ACCEPT_MANIFESTS
    ) -> ManifestReply:
        """The manifest at a tag or digest. Raises InvalidReply when it is too long, has another digest, or is none."""
        found = await self.retrying(lambda: self._get_manifest(repository, identifier, accept))
        assert isinstance(found, ManifestReply)  # nothing was said to be known
        return found

    async def head_manifest(self, repository: str, identifier: str) -> Descriptor | None:
        """What a tag or digest points to; None when it is not there. Falls back as ``check_manifest`` does."""
        found = await self.check_manifest(repository, identifier)
        return found.descriptor if isinstance(found, ManifestReply) else found

    async def check_manifest(
        self, repository: str, identifier: str, known: Descriptor | None = None
    ) -> Descriptor | ManifestReply | None:
        """What a tag or digest points to, asked with HEAD: ``known`` itself when it still points there (304).

        None when it is not there. The manifest whole where it had to be fetched for that: where HEAD is refused or
        does not say type, length and digest. The registry's profile keeps that, and the next time GET comes first.
        """
        try:
            if self.profile.heads_manifests:
                found = await self.retrying(lambda: self._head_manifest(repository, identifier, known))
                if found is not None:
                    return found
                self.profile.heads_manifests = False
            return await self.retrying(
                lambda: self._get_manifest(repository, identifier, media_types.ACCEPT_MANIFESTS, known)
            )
        except NotFound:
            return None

    async def _head_manifest(self, repository: str, identifier: str, known: Descriptor | None) -> Descriptor | None:
        """What the reply's headers say; None when the registry does not answer such questions."""
        path = self._manifest_path(repository, identifier)
        headers = _accepting(media_types.ACCEPT_MANIFESTS, known)
        scopes = (repository_scope(repository, "pull"),)
        async with self.request("HEAD", path, headers=headers, scopes=scopes) as response:
            if response.status == 304 and known is not None:
                return known
            if response.status == 405:
                return None
            await self.expect(response, "HEAD", self.base_url + path, 200)
            return _stated_descriptor(response)

    async def _get_manifest(
        self, repository: str, identifier: str, accept: str, known: Descriptor | None = None
    ) -> ManifestReply | Descriptor:
        path = self._manifest_path(repository, identifier)
        scopes = (repository_scope(repository, "pull"),)
        async with self.request("GET", path, headers=_accepting(accept, known), scopes=scopes) as response:
            if response.status == 304 and known is not None:
                return known
            await self.expect(response, "GET", self.base_url + path, 200)
            check_plain(response)
            what = f"manifest {self.name}/{repository} {identifier}"
            raw = await read_limited(response, MANIFEST_BYTES, what)
            try:
                digest = _stated_digest(raw, response) if ":" not in identifier else None
                digest = digest or _checked_digest(raw, identifier, what)
                media_type = _manifest_type(response, raw, what)
            except InvalidManifest as error:
                raise InvalidReply("GET", self.base_url + path, 200, reason=str(error)) from error
            return ManifestReply(raw, media_type, digest, response.headers.copy())

    def _manifest_path(self, repository: str, identifier: str) -> str:
        return f"/v2/{repository}/manifests/{identifier}{self.pull_query}"

    async def put_manifest(
        self, repository: str, identifier: str, raw: bytes, media_type: str, *, tags: Sequence[str] = ()
    ) -> PutReply:
        """Stores the manifest under a tag or its digest.

        ``tags`` asks to have these point to it as well; a registry that does not know how says nothing of them.
        """
        query = "?" + "&".join(f"tag={tag}" for tag in tags) if tags else ""
        path = f"/v2/{repository}/manifests/{identifier}{query}"
        digest = _checked_digest(raw, identifier, f"manifest {self.name}/{repository} {identifier}")

        async def send() -> PutReply:
            headers = {"Content-Type": media_type}
            async with self.request("PUT", path, headers=headers, data=raw, scopes=push_scopes(repository)) as response:
                await self.expect(response, "PUT", self.base_url + path, 201, 200)
                subject = response.headers.get("OCI-Subject", "")
                return PutReply(digest, subject, listed(response.headers.getall("OCI-Tag", [])))

        return await self.retrying(send)

    async def head_blob(self, repository: str, digest: Digest) -> int | None:
        """The blob's size in bytes; None when it is not there."""
        path = f"/v2/{repository}/blobs/{digest}{self.pull_query}"
        scopes = (repository_scope(repository, "pull"),)

        async def ask() -> int | None:
            async with self.request("HEAD", path, scopes=scopes) as response:
                if response.status == 404:
                    return None
                await self.expect(response, "HEAD", self.base_url + path, 200)
                length = content_length(response.headers)
                if length is None:
                    raise InvalidReply("HEAD", self.base_url + path, 200, reason="the reply does not say a length")
                return length

        return await self.retrying(ask)

    def open_blob(
        self, repository: str, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobReply]:
        """The bytes ``start`` to ``stop`` (exclusive; None = to the end) of a blob, not verified.

        A body that breaks off is taken up again where it broke, by the back-off schedule. Raises RegistryError with
        status 416 when the range lies outside the blob.
        """
        return self._open_blob(repository, digest, start, stop)

    @asynccontextmanager
    async def _open_blob(
        self, repository: str, digest: Digest, start: int, stop: int | None
    ) -> AsyncIterator[BlobReply]:
        async with Download(self, repository, digest, start, stop) as download:
            yield download.reply()

    async def delete_manifest(self, repository: str, digest: Digest) -> None:
        """Removes a manifest and every tag that points to it."""
        await self._delete(repository, f"/v2/{repository}/manifests/{digest}")

    async def delete_tag(self, repository: str, tag: str) -> None:
        """Removes a tag; many registries refuse."""
        await self._delete(repository, f"/v2/{repository}/manifests/{tag}")

    async def delete_blob(self, repository: str, digest: Digest) -> None:
        """Removes a blob from a repository."""
        await self._delete(repository, f"/v2/{repository}/blobs/{digest}")

    async def _delete(self, repository: str, path: str) -> None:
        async with self.request("DELETE", path, scopes=(repository_scope(repository, "delete"),)) as response:
            await self.expect(response, "DELETE", self.base_url + path, 202, 200, 204)


def _accepting(accept: str, known: Descriptor | None) -> dict[str, str]:
    """The headers of a question for a manifest; ``known`` is what need not be sent again."""
    return {"Accept": accept} | ({"If-None-Match": f'"{known.digest}"'} if known is not None else {})


def _media_type(response: ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _checked_digest(raw: bytes, identifier: str, what: str) -> Digest:
    """The digest of the bytes, by the algorithm that they were asked by."""
    if ":" not in identifier:
        return Digest.of(raw)
    asked = Digest.parse(identifier)
    actual = Digest.of(raw, asked.algorithm)
    if actual != asked:
        raise InvalidManifest(f"{what}: {len(raw)} bytes with {actual}")
    return actual


def _manifest_type(response: ClientResponse, raw: bytes, what: str) -> str:
    """What the registry calls the manifest. Raises InvalidManifest for half of one, or a page in its place."""
    media_type = _media_type(response)
    try:
        msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        called = media_type or "something without a type"
        raise InvalidManifest(f"{what}: expected a JSON object, got {len(raw)} bytes of {called}") from error
    return media_type


def _stated_digest(raw: bytes, response: ClientResponse) -> Digest | None:
    """The digest by which the registry itself keeps the manifest, perhaps no SHA-256; None unless it is right."""
    try:
        stated = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except InvalidDigest:
        return None
    return stated if Digest.of(raw, stated.algorithm) == stated else None


def _stated_descriptor(response: ClientResponse) -> Descriptor | None:
    """What the headers of a HEAD say, when they say all of it."""
    length, media_type = content_length(response.headers), _media_type(response)
    try:
        digest = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except InvalidDigest:
        return None
    return Descriptor(media_type=media_type, digest=digest, size=length) if length and media_type else None
