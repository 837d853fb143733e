"""The page at /: what it says, and what it must not."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from proxy.observe.status_page import Status, UpstreamStatus, render_status
from tests.proxy.running import UPSTREAM, Proxy, get, make_image, running_proxy, scripted_upstream

HUB = UpstreamStatus("docker.io", True, requests=1234, last=200, is_failing=False, remaining=76)
STATUS = Status(
    version="1.2",
    up_s=90.0,
    draining=False,
    upstreams=(HUB,),
    hosted=("cache", "team/x"),
    fetches=2,
    uploads=3,
    served=8,
    hits=6,
    maintenance="last 3 h ago",
)


class Cells(HTMLParser):
    """The texts of a page's table cells, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells[-1] += data


def test_what_it_says():
    cells = Cells(render_status(STATUS)).cells
    assert dict(zip(cells[:12:2], cells[1:12:2], strict=True)) == {
        "State": "serving, for 90 s",
        "Manifests and blobs served from the cache": "75% of 8",
        "Blobs being fetched": "2",
        "Uploads open": "3",
        "Maintenance of the store": "last 3 h ago",
        "Hosted here": "cache/, team/x/",
    }
    assert cells[16:] == ["docker.io (default)", "answers", "1,234", "76"]


@pytest.mark.parametrize(
    ("upstream", "state"),
    [
        (replace(HUB, last=0), "not asked yet"),
        (replace(HUB, last=None), "did not answer the last request"),
        (replace(HUB, last=503), "answered 503 to the last request"),
        (replace(HUB, last=429), "answered 429 to the last request"),
        (replace(HUB, last=404), "answers"),
        (replace(HUB, last=None, is_failing=True), "failing: asked now and then, to see whether it is back"),
    ],
)
def test_how_an_upstream_is(upstream: UpstreamStatus, state: str):
    assert Cells(render_status(replace(STATUS, upstreams=(upstream,)))).cells[17] == state


def test_everything_is_escaped():
    nasty = replace(STATUS, version="<b>", hosted=("<script>",), upstreams=(replace(HUB, name='"><img src=x>'),))
    assert not Cells(render_status(nasty)).tags & {"script", "img", "b"}


async def page(proxy: Proxy) -> str:
    status, headers, body = await get(f"{proxy.url}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    return body.decode()


async def test_it_counts_and_names_no_repository(tmp_path: Path):
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.manifests["1"] = make_image().manifest.raw
        assert "not asked yet" in await page(proxy)
        for _ in range(4):
            await get(f"{proxy.url}/v2/private/secret-app/manifests/1")
        said = await page(proxy)
    assert f"{UPSTREAM} (default)" in said
    assert "75% of 4" in said
    assert "secret-app" not in said
    assert not re.search(r"(src|href)=\"?(https?:)?//", said)


async def test_an_upstream_that_fails(tmp_path: Path):
    async with running_proxy(tmp_path, {UPSTREAM: "http://127.0.0.1:1"}) as proxy:
        for tag in ("1", "2", "3", "4"):
            await get(f"{proxy.url}/v2/org/app/manifests/{tag}")
        assert "failing: asked now and then" in await page(proxy)
