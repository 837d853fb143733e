"""Caches that trust each other one way, as pipelines use them: by our builder, and by tags as Kaniko keeps its steps.

``cache/main`` is what CI builds; a pull request reads it through ``cache/pr-7``, and writes there alone.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from proxy.auth.rights import Rule, Rules
from proxy.hosting.fall_through import FallThrough
from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry
from tests.programs import write_docker_config
from tests.proxy.clients import Skopeo, layout_manifest, make_layout
from tests.proxy.running import Proxy, get, head, running_proxy

pytestmark = pytest.mark.peers

RULES = ("* cache read", "ci cache/main all", "pr cache/pr-7 read,write")
MAIN, PULL_REQUEST, ANOTHER = "cache/main", "cache/pr-7", "cache/pr-8"
KEY, OWN_KEY = "a" * 64, "b" * 64
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
RUN echo shared > /shared
COPY file /file
"""


def token(who: str) -> str:
    return f"{who}-has-a-long-token"


@dataclass(frozen=True)
class Pipelines:
    """A proxy with two users' prefixes, and each user's ``config.json``."""

    proxy: Proxy
    tmp: Path

    def login(self, who: str) -> Path:
        return write_docker_config(self.tmp / who, {self.proxy.host: f"{who}:{token(who)}"})

    async def tags(self, repository: str) -> dict[str, str]:
        """The tags that a repository has itself, and what they point to."""
        place = f"{self.proxy.url}/v2/{repository}"
        login = {"Authorization": aiohttp.encode_basic_auth("ci", token("ci"))}
        status, _, body = await get(f"{place}/tags/list", **login)
        assert status in (200, 404), body
        names = json.loads(body)["tags"] if status == 200 else []
        return {name: (await head(f"{place}/manifests/{name}", **login))[1]["Docker-Content-Digest"] for name in names}


@pytest.fixture
async def pipelines(tmp_path: Path) -> AsyncIterator[Pipelines]:
    (tmp_path / "tokens").write_text("".join(f"{who}:{token(who)}\n" for who in ("ci", "pr")))
    async with running_proxy(
        tmp_path,
        {},
        tokens_file=tmp_path / "tokens",
        rules=Rules(tuple(map(Rule.parse, RULES))),
        fall_throughs=(FallThrough.parse("cache/pr-* cache/main"),),
    ) as proxy:
        yield Pipelines(proxy, tmp_path)


async def test_a_pull_requests_builds_take_from_main_and_give_it_nothing(
    pipelines: Pipelines, registry: Registry, busybox_layout: Path, tmp_path: Path
) -> None:
    base = f"{registry.host}/{await asyncio.to_thread(push_base, busybox_layout, registry)}"
    contexts = {who: write_files(tmp_path / f"context-{who}", {"Dockerfile": DOCKERFILE, "file": who}) for who in "mp"}
    flags = (f"--build-arg=BASE={base}", "--no-push", "--cache")
    flags += tuple(f"--insecure-registry={host}" for host in (registry.host, pipelines.proxy.host))

    async def build(who: str, repository: str, context: str) -> list[bool]:
        """Which steps were cached."""
        builder = Builder(Path(tempfile.mkdtemp(dir=tmp_path)), {"DOCKER_CONFIG": str(pipelines.login(who))})
        cache = f"--cache-repo={pipelines.proxy.host}/{repository}"
        ended = await asyncio.to_thread(builder.must, contexts[context], cache, *flags)
        return [outcome == "CACHED" for outcome in ended.outcomes]

    assert await build("ci", MAIN, "m") == [False, False]
    of_main = await pipelines.tags(MAIN)
    assert of_main
    assert await build("pr", PULL_REQUEST, "p") == [True, False]
    assert await build("pr", PULL_REQUEST, "p") == [True, True]
    assert await pipelines.tags(PULL_REQUEST)
    assert await pipelines.tags(MAIN) == of_main
    assert await pipelines.tags(ANOTHER) == {}


async def test_tags_as_kaniko_keeps_its_steps(pipelines: Pipelines, tmp_path: Path) -> None:
    """Kaniko pulls ``REPO:KEY`` with GETs, and pushes a step's layer as an image of that name; so does skopeo here."""
    skopeo, (ci, pr) = Skopeo(tmp_path), (pipelines.login(who) for who in ("ci", "pr"))
    shared, own = make_layout(tmp_path / "shared"), make_layout(tmp_path / "own")
    digests = {layout: str(layout_manifest(layout).digest) for layout in (shared, own)}

    def step(repository: str, key: str = KEY) -> str:
        return f"{pipelines.proxy.host}/{repository}:{key}"

    assert await skopeo.push(shared, step(MAIN), ci)
    assert await skopeo.pull(step(PULL_REQUEST), pr) == digests[shared]
    assert await skopeo.pull(step(ANOTHER), pr) == digests[shared]

    assert await skopeo.push(own, step(PULL_REQUEST, OWN_KEY), pr)
    assert await skopeo.push(own, step(PULL_REQUEST), pr), "its own content under main's key"
    assert await skopeo.pull(step(PULL_REQUEST), pr) == digests[own]
    assert await skopeo.pull(step(MAIN), ci) == await skopeo.pull(step(ANOTHER), pr) == digests[shared]

    assert not await skopeo.push(own, step(MAIN, OWN_KEY), pr)
    assert not await skopeo.push(own, step(ANOTHER, OWN_KEY), pr)
    assert await pipelines.tags(MAIN) == {KEY: digests[shared]}
    assert await pipelines.tags(ANOTHER) == {}
    assert await pipelines.tags(PULL_REQUEST) == dict.fromkeys((KEY, OWN_KEY), digests[own])
