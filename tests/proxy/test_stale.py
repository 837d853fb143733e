"""Fresh, stale or asked for: what clients get, and what the upstream hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cache.oci import media_types
from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from cache.oci.retry import Backoff
from cache.priority import PRIORITY_HEADER, WARM_PRIORITY
from proxy.auth.rights import Rule, Rules
from proxy.config import Freshness, Patience, Upstream
from proxy.upstream.circuit import Pace
from tests.fakes import faulty
from tests.fakes.faulty import Script, scripted_upstream
from tests.peers import Registry
from tests.proxy.leaks import until
from tests.proxy.running import AT_ONCE, UPSTREAM, Proxy, client_of, get, head, make_image, push, running_proxy
from tests.proxy.test_private import basic

OLD, NEW = make_image(1), make_image(2)
TAG, OTHER_TAG = "/v2/org/app/manifests/1", "/v2/org/app/manifests/2"
ALICE = basic(Credential("alice", "secret"))
WARM = {PRIORITY_HEADER: WARM_PRIORITY}
ALWAYS = 1000
HOUR_S = 3600.0
NEVER_AGAIN = Patience(reply_s=0.3, backoff=Backoff(tries=1), pace=Pace(HOUR_S, HOUR_S, HOUR_S))
"""Leaves an upstream alone for good once it has failed."""

Start = Callable[..., AbstractAsyncContextManager[Proxy]]


@pytest.fixture
async def upstream() -> AsyncIterator[Script]:
    async with scripted_upstream() as script:
        script.manifests = {"1": OLD.manifest.raw}
        script.blobs = {str(digest): data for digest, data in OLD.blobs.items()}
        yield script


@pytest.fixture
def start(upstream: Script, tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(patience: Patience = AT_ONCE, rules: Rules | None = None, **freshness: float):
        named = Upstream(UPSTREAM, upstream.url, freshness=Freshness(**freshness))
        more = {"rules": rules} if rules is not None else {}
        async with running_proxy(tmp_path, {UPSTREAM: named}, patience=patience, **more) as proxy:
            yield proxy

    return started


# Stale while it is asked


async def test_a_tag_is_served_while_it_is_asked_for_once(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0, revalidate_s=HOUR_S) as proxy:
        assert (await get(proxy.url + TAG))[1]["X-Cache"] == "miss"
        upstream.manifests["1"] = NEW.manifest.raw
        upstream.plan(faulty.hold, "HEAD", times=ALWAYS)
        for answer in await asyncio.gather(*(get(proxy.url + TAG) for _ in range(10))):
            assert (answer[0], answer[1]["X-Cache"], answer[2]) == (200, "hit", OLD.manifest.raw)
            assert answer[1]["Age"].isdigit()
        await until(lambda: upstream.count("HEAD", TAG))
        assert upstream.count("HEAD", TAG) == 1
        upstream.go_on.set()
        await until(lambda: upstream.count("GET", TAG) == 2)
        async with asyncio.timeout(10):
            while (await get(proxy.url + TAG))[2] != NEW.manifest.raw:
                await asyncio.sleep(0.01)


async def test_what_is_asked_in_the_background_ends_with_the_proxy(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0, revalidate_s=HOUR_S) as proxy:
        await get(proxy.url + TAG)
        upstream.plan(faulty.hold, "HEAD")
        await get(proxy.url + TAG)
        await until(lambda: upstream.count("HEAD", TAG))
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("refresh")]


async def test_a_tag_that_is_gone_or_closed_is_not_served_for_long(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0, revalidate_s=HOUR_S, negative_ttl_s=0.0) as proxy:
        for status in (404, 403):
            upstream.status = None
            assert (await get(proxy.url + TAG))[0] == 200
            upstream.status = status
            async with asyncio.timeout(10):
                while (await get(proxy.url + TAG))[0] == 200:
                    await asyncio.sleep(0.01)
            assert (await get(proxy.url + TAG))[0] == status


# Stale when it cannot be asked


async def test_stale_answers_say_so(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0) as proxy:
        await get(proxy.url + TAG)
        upstream.status = 503
        status, headers, raw = await get(proxy.url + TAG)
        assert (status, raw, headers["X-Cache"]) == (200, OLD.manifest.raw, "stale")
        assert headers["Warning"] == f'110 - "{UPSTREAM} answers with errors"'
        assert headers["Age"].isdigit()


async def test_stale_answers_have_an_end(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0, max_stale_s=0.0) as proxy:
        await get(proxy.url + TAG)
        upstream.status = 503
        assert (await get(proxy.url + TAG))[0] == (await head(proxy.url + TAG))[0] == 502


async def test_a_permission_has_the_same_end(upstream: Script, start: Start):
    async with start(access_ttl_s=0.0, max_stale_s=0.0) as proxy:
        assert (await get(proxy.url + TAG))[0] == 200
        assert (await get(f"{proxy.url}/v2/org/app/blobs/{OLD.layer}"))[0] == 200
        upstream.status = 503
        for path in (TAG, f"/v2/org/app/manifests/{OLD.manifest.digest}", f"/v2/org/app/blobs/{OLD.layer}"):
            assert (await get(proxy.url + path))[0] == 502


async def test_nobody_is_served_stale_whom_the_upstream_never_let_in(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0) as proxy:
        await get(proxy.url + TAG, **ALICE)
        upstream.status = 503
        assert (await get(proxy.url + TAG))[0] == 502
        assert (await get(proxy.url + TAG, **basic(Credential("alice", "guessed"))))[0] == 502
        assert (await get(proxy.url + TAG, **ALICE))[1]["X-Cache"] == "stale"


async def test_an_upstream_that_does_not_answer_is_left_alone(upstream: Script, start: Start):
    async with start(NEVER_AGAIN, tag_ttl_s=0.0) as proxy:
        await get(proxy.url + TAG)
        upstream.plan(faulty.stall, times=ALWAYS)
        assert (await get(proxy.url + TAG))[1]["X-Cache"] == "stale"
        asked = len(upstream.seen)
        assert (await get(proxy.url + TAG))[1]["Warning"] == f'110 - "{UPSTREAM} is unreachable"'
        status, headers, body = await get(proxy.url + OTHER_TAG)
        assert (status, b"left alone" in body) == (503, True)
        assert 0 < int(headers["Retry-After"]) <= HOUR_S
        assert len(upstream.seen) == asked


# Conditional questions


async def test_a_tag_is_checked_with_what_is_known_of_it(registry: Registry, tmp_path: Path):
    async with client_of(registry.url) as client:
        await push(client, "org/app", "1", OLD)
    async with running_proxy(tmp_path, {UPSTREAM: registry.url}, tag_ttl_s=0) as proxy:
        for outcome in ("miss", "hit", "hit"):
            status, headers, raw = await get(proxy.url + TAG)
            assert (status, raw, headers["X-Cache"]) == (200, OLD.manifest.raw, outcome)
        assert (await head(proxy.url + TAG))[0] == 200
    asked = [(request.method, request.status) for request in registry.requests() if request.path == TAG]
    assert asked == [("PUT", 201), ("GET", 200), ("HEAD", 304), ("HEAD", 304), ("HEAD", 304)]


# What is not there


async def test_what_is_not_there_is_asked_for_once(upstream: Script, start: Start):
    absent = f"/v2/org/app/blobs/{Digest.of(b'absent')}"
    async with start(negative_ttl_s=HOUR_S) as proxy:
        for _ in range(3):
            for path in (OTHER_TAG, absent):
                assert (await get(proxy.url + path))[0] == (await head(proxy.url + path))[0] == 404
        assert len(upstream.seen) == 2
        assert (await get(proxy.url + OTHER_TAG, **ALICE))[0] == 404
        assert len(upstream.seen) == 3  # to another identity it may be shown


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_other_refusals_are_not_remembered(upstream: Script, start: Start, status: int):
    async with start(negative_ttl_s=HOUR_S) as proxy:
        upstream.status = status
        assert (await get(proxy.url + TAG))[0] in (401, 403, 502)
        upstream.status = None
        assert (await get(proxy.url + TAG))[0] == 200


async def test_a_push_ends_what_was_not_there(registry: Registry, tmp_path: Path):
    named = Upstream(UPSTREAM, registry.url, freshness=Freshness(negative_ttl_s=HOUR_S))
    paths = (TAG, f"/v2/org/app/manifests/{OLD.manifest.digest}", f"/v2/org/app/blobs/{OLD.layer}")
    async with running_proxy(tmp_path, {UPSTREAM: named}) as proxy, client_of(proxy.url) as client:
        for path in paths:
            assert (await get(proxy.url + path))[0] == (await head(proxy.url + path))[0] == 404
        await push(client, "org/app", "1", OLD)
        for path in paths:
            assert (await head(proxy.url + path))[0] == (await get(proxy.url + path))[0] == 200


async def test_an_answer_from_before_a_push_is_not_given_after_it(upstream: Script, start: Start):
    async with start(negative_ttl_s=HOUR_S) as proxy, aiohttp.ClientSession() as session:
        upstream.plan(faulty.hold, "GET", OTHER_TAG)
        early = asyncio.create_task(get(proxy.url + OTHER_TAG))
        await until(lambda: upstream.count("GET", OTHER_TAG))
        headers = {"Content-Type": media_types.OCI_MANIFEST}
        async with session.put(proxy.url + OTHER_TAG, data=NEW.manifest.raw, headers=headers) as response:
            assert response.status == 201
        assert (await get(proxy.url + OTHER_TAG))[2] == NEW.manifest.raw
        upstream.go_on.set()
        assert (await early)[0] == 404
        assert (await get(proxy.url + OTHER_TAG))[2] == NEW.manifest.raw


# Rate limits


async def test_who_can_wait_leaves_a_reserve_to_the_others(upstream: Script, start: Start):
    upstream.manifests["2"] = NEW.manifest.raw
    upstream.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "24;w=21600"}
    async with start() as proxy:
        assert (await get(proxy.url + TAG, **WARM))[0] == 200  # nothing was known of a limit
        assert (await get(proxy.url + TAG, **WARM))[0] == 200  # held: it costs nothing
        status, headers, body = await get(proxy.url + OTHER_TAG, **WARM)
        assert (status, b"kept for those who wait" in body) == (429, True)
        assert int(headers["Retry-After"]) > 0
        assert upstream.count("GET", OTHER_TAG) == 0
        assert (await head(proxy.url + OTHER_TAG, **WARM))[0] == 200  # and neither does this
        assert (await get(proxy.url + OTHER_TAG))[0] == 200


async def test_a_limit_that_is_used_up_is_not_tried(upstream: Script, start: Start):
    upstream.manifests["2"] = NEW.manifest.raw
    upstream.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    async with start(tag_ttl_s=0.0) as proxy:
        assert (await get(proxy.url + TAG))[0] == 200
        status, headers, _ = await get(proxy.url + OTHER_TAG)
        assert (status, int(headers["Retry-After"]) > 0) == (429, True)
        assert (await get(proxy.url + TAG))[1]["X-Cache"] == "hit"  # a HEAD is free
        assert upstream.count("GET", "/manifests/") == 1
        assert (await get(proxy.url + OTHER_TAG, **ALICE))[0] == 200  # another account's limit


async def test_a_refusal_closes_the_account_for_as_long_as_it_says(upstream: Script, start: Start):
    async with start(tag_ttl_s=0.0) as proxy:
        await get(proxy.url + TAG)
        upstream.plan(faulty.status(429, Retry_After="1000"))
        for _ in range(2):
            status, headers, raw = await get(proxy.url + TAG)
            assert (status, raw, headers["X-Cache"]) == (200, OLD.manifest.raw, "stale")
            assert headers["Warning"] == f'110 - "{UPSTREAM} is rate limited"'
        status, headers, _ = await get(proxy.url + OTHER_TAG)
        assert (status, 900 < int(headers["Retry-After"]) <= 1000) == (429, True)
        assert len(upstream.seen) == 2


# Who may not have anything fetched


async def test_who_may_only_read_what_is_held(upstream: Script, start: Start):
    rules = Rules((Rule.parse("anonymous * read"), Rule.parse("guest * all")))
    blob = f"/v2/org/app/blobs/{OLD.layer}"
    async with start(rules=rules) as proxy:
        for path, code in ((TAG, b"MANIFEST_UNKNOWN"), (blob, b"BLOB_UNKNOWN")):
            status, _, body = await get(proxy.url + path)
            assert (status, code in body, b"not held here" in body) == (404, True, True)
        assert upstream.count("GET", "") == 0
        assert (await head(proxy.url + TAG))[0] == 200  # what it is may be asked
        for path in (TAG, blob):
            assert (await get(proxy.url + path, **ALICE))[0] == 200
            assert (await get(proxy.url + path))[0] == 200


async def test_a_question_that_takes_a_whole_manifest_keeps_it(upstream: Script, start: Start):
    upstream.plan(faulty.status(405), "HEAD", times=ALWAYS)
    async with start() as proxy:
        assert (await head(proxy.url + TAG))[0] == 200
        assert (await get(proxy.url + TAG))[1]["X-Cache"] == "hit"
    assert upstream.count("GET", TAG) == 1
