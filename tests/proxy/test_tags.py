"""Tags of upstreams that page in their own ways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.fakes.registry import Fake, fake_registry
from tests.proxy.running import UPSTREAM, Proxy, get, running_proxy

ALL = [f"t{number:02}" for number in range(10)]
Pager = Callable[[web.Request], web.Response]


@asynccontextmanager
async def behind(tmp: Path, pager: Pager) -> AsyncIterator[tuple[Proxy, Fake]]:
    async def handle(request: web.Request) -> web.Response:
        return pager(request)

    async with fake_registry(handle) as fake, running_proxy(tmp, {UPSTREAM: fake.url}) as proxy:
        yield proxy, fake


def page(tags: list[str] | None, link: str = "") -> web.Response:
    headers = {"Link": f'<{link}>; rel="next"'} if link else {}
    return web.json_response({"name": "a/b", "tags": tags}, headers=headers)


def right(request: web.Request) -> web.Response:
    """As distribution-spec says, with an absolute Link, and at most 4 at a time."""
    count, last = min(int(request.query.get("n", "4")), 4), request.query.get("last", "")
    rest = [tag for tag in ALL if tag > last]
    more = len(rest) > count
    return page(
        rest[:count], f"{request.url.origin()}/v2/a/b/tags/list?last={rest[count - 1]}&n={count}" if more else ""
    )


def with_tokens(request: web.Request) -> web.Response:
    """Goes on by a token of its own, as ECR does."""
    start = int(request.query.get("last", "token=0").removeprefix("token="))
    count = int(request.query.get("n", "4"))
    more = start + count < len(ALL)
    return page(ALL[start : start + count], f"/v2/a/b/tags/list?last=token%3D{start + count}&n={count}" if more else "")


def deaf(request: web.Request) -> web.Response:
    """Hears neither n nor last."""
    return page(ALL)


def unordered(request: web.Request) -> web.Response:
    """Newest first, in pages, some twice."""
    if "before" in request.query:
        return page(ALL[5::-1])
    return page(ALL[:4:-1], "/v2/a/b/tags/list?before=t05")


def elsewhere(request: web.Request) -> web.Response:
    """The next page is at another path."""
    return page(ALL[5:]) if request.path.endswith("/more") else page(ALL[:5], "/v2/a/b/tags/list/more")


async def walk(proxy: Proxy, query: str) -> tuple[list[str], int]:
    """All tags from there on, and the number of pages."""
    found: list[str] = []
    link: str | None = f"/v2/a/b/tags/list{query}"
    pages = 0
    while link is not None:
        status, headers, body = await get(proxy.url + link)
        assert status == 200
        found += json.loads(body)["tags"]
        pages += 1
        link = headers["Link"].partition(">")[0].lstrip("<") if "Link" in headers else None
        assert link is None or link.startswith("/v2/a/b/tags/list?")
    return found, pages


@pytest.mark.parametrize("pager", [right, with_tokens, deaf, unordered, elsewhere])
async def test_however_the_upstream_pages_ours_are_right(tmp_path: Path, pager: Pager):
    async with behind(tmp_path, pager) as (proxy, _):
        assert (await walk(proxy, ""))[0] == ALL
        assert await walk(proxy, "?n=3") == (ALL, 4)
        assert (await walk(proxy, "?n=10"))[0] == ALL
        assert await walk(proxy, "?n=0") == ([], 1)
        if pager is not with_tokens:
            assert (await walk(proxy, "?last=t06"))[0] == ALL[7:]
            assert (await walk(proxy, "?n=2&last=t06"))[0] == ALL[7:]
            assert await walk(proxy, "?last=t09") == ([], 1)


async def test_a_page_costs_the_upstream_a_page(tmp_path: Path):
    async with behind(tmp_path, right) as (proxy, fake):
        await get(f"{proxy.url}/v2/a/b/tags/list?n=2&last=t03")
        assert [seen.query for seen in fake.seen] == ["n=2&last=t03"]


async def test_the_longest_page_that_an_upstream_takes_is_learnt(tmp_path: Path):
    def limited(request: web.Request) -> web.Response:
        if int(request.query["n"]) > 1000:
            return web.json_response({"errors": [{"code": "UNSUPPORTED", "message": "maxResults"}]}, status=405)
        return page(ALL)

    async with behind(tmp_path, limited) as (proxy, fake):
        for _ in range(2):
            assert await walk(proxy, "?n=5000") == (ALL, 1)
        assert [seen.query for seen in fake.seen] == ["n=5000", "n=1000", "n=1000"]


async def test_null_is_an_empty_list(tmp_path: Path):
    async with behind(tmp_path, lambda _: page(None)) as (proxy, _):
        assert (await get(f"{proxy.url}/v2/a/b/tags/list"))[2] == b'{"name":"a/b","tags":[]}'


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"status": 404}, 404),
        ({"status": 400}, 400),
        ({"status": 500}, 502),
        ({"text": "<html>", "content_type": "text/html"}, 502),
    ],
)
@pytest.mark.parametrize("query", ["", "?n=0", "?n=5000"])
async def test_failure_is_no_empty_list(tmp_path: Path, reply: dict[str, object], status: int, query: str):
    async with behind(tmp_path, lambda _: web.Response(**reply)) as (proxy, _):
        got, _, body = await get(f"{proxy.url}/v2/a/b/tags/list{query}")
        assert got == status
        assert UPSTREAM in json.loads(body)["errors"][0]["message"]
