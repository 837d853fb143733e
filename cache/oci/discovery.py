"""Asking a registry what it has (distribution-spec, "Content Discovery"): tags, and what refers to a manifest."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from cache.oci import codec
from cache.oci.challenge import repository_scope
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import InvalidManifest, InvalidReply, NotFound, RegistryError
from cache.oci.referrers import of_type
from cache.oci.replies import listed, next_page
from cache.oci.session import RegistrySession
from cache.oci.transport import read_limited

PAGE_BYTES = 8 * 1024 * 1024
MAX_TAG_PAGES = 10_000
REFERRERS_BYTES = 16 * 1024 * 1024
MAX_REFERRER_PAGES = 1000
FILTERS_HEADER = "OCI-Filters-Applied"


class _Tags(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = None


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[Descriptor, ...]


class TagsPage(msgspec.Struct, frozen=True):
    """Some tags in the registry's order, and the URL of the next page, None on the last one."""

    tags: tuple[str, ...]
    next_url: str | None


class _Page(msgspec.Struct, frozen=True):
    url: str
    body: bytes
    filters: tuple[str, ...]
    next_url: str | None


class _ReferrersPage(msgspec.Struct, frozen=True):
    manifests: tuple[Descriptor, ...]
    size_bytes: int
    filtered: bool
    next_url: str | None


class Discovery(RegistrySession):
    """The part of the registry client that asks for lists."""

    async def tags(self, repository: str) -> tuple[str, ...]:
        """All tags of a repository, every page of them, in the registry's order."""
        found: list[str] = []
        url: str | None = tags_path(repository)
        for _ in range(MAX_TAG_PAGES):
            if url is None:
                return tuple(found)
            page = await self.tags_page(repository, url)
            found += page.tags
            url = page.next_url
        raise InvalidReply("GET", self.base_url + tags_path(repository), 200, reason="the pages do not end")

    async def tags_page(self, repository: str, path: str) -> TagsPage:
        """One page of a repository's tags: at ``tags_path`` with a query, or at a page's ``next_url``."""
        page = await self._page(repository, path)
        try:
            tags = msgspec.json.decode(page.body, type=_Tags).tags
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidReply("GET", page.url, 200, reason="not a tag list") from error
        return TagsPage(tags or (), page.next_url)

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str = ""
    ) -> tuple[Descriptor, ...] | None:
        """What refers to a manifest, every page of it; only what is of ``artifact_type`` unless that is "".

        None when the registry has no API for that: whoever pushed referrers keeps them under the fallback tag then.
        """
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        path = f"/v2/{repository}/referrers/{subject}"
        url = path + query
        found: list[Descriptor] = []
        size_bytes = 0
        for number in range(MAX_REFERRER_PAGES):
            try:
                page = await self._referrers_page(repository, url)
            except RegistryError as error:
                if number == 0 and _has_no_referrers(error):
                    return None
                raise
            found += page.manifests if page.filtered else of_type(page.manifests, artifact_type)
            size_bytes += page.size_bytes
            if page.next_url is None:
                return tuple(found)
            if size_bytes > REFERRERS_BYTES:
                break
            url = page.next_url
        raise InvalidReply("GET", self.base_url + path, 200, reason="the list of referrers does not end")

    async def _referrers_page(self, repository: str, path: str) -> _ReferrersPage:
        page = await self._page(repository, path)
        try:
            index = codec.decode(page.body, _Index, "list of referrers")
        except InvalidManifest as error:
            raise InvalidReply("GET", page.url, 200, reason=str(error)) from error
        return _ReferrersPage(index.manifests, len(page.body), "artifactType" in page.filters, page.next_url)

    async def _page(self, repository: str, path: str) -> _Page:
        """One page of a list; ``path`` begins with ``/``, or is a page's ``next_url``."""
        url = path if "://" in path else self.base_url + path

        async def ask() -> _Page:
            async with self.request("GET", path, scopes=(repository_scope(repository, "pull"),)) as response:
                await self.expect(response, "GET", url, 200)
                body = await read_limited(response, PAGE_BYTES, f"list of {self.name}/{repository}")
                filters = listed(response.headers.getall(FILTERS_HEADER, []))
                return _Page(url, body, filters, next_page(response.url, response.headers.get("Link", "")))

        return await self.retrying(ask)


def tags_path(repository: str, query: str = "") -> str:
    """Where a repository's tags are listed; ``query`` is encoded already."""
    return f"/v2/{repository}/tags/list" + (f"?{query}" if query else "")


def _has_no_referrers(error: RegistryError) -> bool:
    """Whether a refusal means that the registry does not know the API; registries that do never say 404."""
    unsupported = any(detail.code == "UNSUPPORTED" for detail in error.details)
    return isinstance(error, NotFound) or error.status == 405 or (error.status == 400 and unsupported)
