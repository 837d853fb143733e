"""Tags of upstreams' repositories, a page at a time.

A page is passed on as the upstream gave it where the upstream pages as distribution-spec says. Where it does not (it
ignores ``n`` or ``last``, or its order is its own), all tags are fetched and the page is cut here.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from yarl import URL

from cache.oci.client import RegistryClient
from cache.oci.discovery import TagsPage, tags_path
from cache.oci.errors import RegistryError
from proxy.auth.caller import Caller
from proxy.requests.request import ListTags
from proxy.requests.routing import Proxied
from proxy.upstream.upstreams import Upstreams

COMMON_LIMIT = 1000
"""The longest page that every known registry gives."""
_ORDERS: tuple[Callable[[str], str], ...] = (str, str.casefold)


@dataclass(frozen=True, slots=True)
class Tags:
    """A page of tags in order; ``following`` is the query of the next page, None on the last one."""

    names: tuple[str, ...]
    following: dict[str, str] | None


class UpstreamTags:
    """Lists tags of upstreams' repositories; remembers how long a page each upstream gives."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._limits: dict[str, int] = {}

    async def page(self, route: Proxied, asked: ListTags, caller: Caller) -> Tags:
        """The page that is asked for. Raises RegistryError as the upstream does."""
        client = self._upstreams.client(route.upstream, caller)
        if asked.count == 0:
            await self._ask(client, route, ListTags(asked.name, 1, ""))  # is there such a repository, for them?
            return Tags((), None)
        page = await self._ask(client, route, asked)
        names = tuple(dict.fromkeys(page.tags))
        following = next_query(page, route.repository)
        passable = following is not None or page.next_url is None
        if passable and (asked.cursor or pages_right(names, asked.count, asked.last)):
            return Tags(names, _plain(following, names) if following is not None else None)
        names = names if is_whole(page, asked.last) else await client.tags(route.repository)
        return cut_page(names, asked.count, asked.last)

    async def _ask(self, client: RegistryClient, route: Proxied, asked: ListTags) -> TagsPage:
        """The upstream's page; asked for again by a length that all take when the upstream refuses a longer one."""
        count, upstream = asked.count, route.upstream.name
        if count is not None:
            count = min(count, self._limits.get(upstream, count))
        try:
            return await client.tags_page(route.repository, tags_path(route.repository, _query(asked, count)))
        except RegistryError as error:
            if asked.cursor or count is None or count <= COMMON_LIMIT or error.status not in (400, 405, 422):
                raise
        page = await client.tags_page(route.repository, tags_path(route.repository, _query(asked, COMMON_LIMIT)))
        self._limits[upstream] = COMMON_LIMIT
        return page


def _query(asked: ListTags, count: int | None) -> str:
    if asked.cursor:
        return asked.cursor
    parts = {"n": str(count)} if count is not None else {}
    return urlencode(parts | ({"last": asked.last} if asked.last else {}))


def next_query(page: TagsPage, repository: str) -> str | None:
    """The query of the upstream's next page; None when there is none, or when it is somewhere else than the first."""
    if page.next_url is None:
        return None
    url = URL(page.next_url, encoded=True)
    return url.raw_query_string if url.raw_path == tags_path(repository) else None


def _plain(query: str, names: Sequence[str]) -> dict[str, str]:
    """The next page's query for our clients: in distribution-spec's terms if it is, else the upstream's as a cursor."""
    parts = parse_qsl(query)
    if names and {key for key, _ in parts} <= {"n", "last"} and dict(parts).get("last") == names[-1]:
        return dict(parts)
    return {"cursor": query}


def pages_right(names: Sequence[str], count: int | None, last: str) -> bool:
    """Whether these can be what was asked for: not more than that, after ``last``, and in order."""
    if count is not None and len(names) > count:
        return False
    line = [last, *names] if last else names
    return any(all(order(before) < order(after) for before, after in itertools.pairwise(line)) for order in _ORDERS)


def is_whole(page: TagsPage, last: str) -> bool:
    """Whether the page holds all tags there are, asked for those after ``last`` or not."""
    return page.next_url is None and (not last or any(name <= last for name in page.tags))


def cut_page(names: Sequence[str], count: int | None, last: str) -> Tags:
    """The page out of all names."""
    ordered = sorted(set(names))
    rest = ordered[bisect_right(ordered, last) :] if last else ordered
    page = rest if count is None else rest[:count]
    more = bool(page) and len(page) < len(rest)
    return Tags(tuple(page), {"n": str(len(page)), "last": page[-1]} if more else None)
