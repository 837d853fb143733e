"""What the proxy counts, as Prometheus reads it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.observe.metrics import Metrics
from tests.proxy.running import UPSTREAM, Proxy, client_of, get, make_image, push, running_proxy, scripted_upstream


async def scraped(proxy: Proxy) -> dict[str, float]:
    """All samples of /metrics: ``name{label="value",...}`` and its number."""
    status, headers, body = await get(f"{proxy.url}/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return samples(body.decode())


def samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_requests_to_an_upstream(tmp_path: Path):
    image = make_image()
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.manifests["1"] = image.manifest.raw
        for _ in range(3):
            assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[0] == 200
        assert (await get(f"{proxy.url}/v2/org/app/manifests/none"))[0] == 404
        found = await scraped(proxy)
    assert found[f'proxy_upstream_requests_total{{status_class="2xx",upstream="{UPSTREAM}"}}'] == 1
    assert found[f'proxy_upstream_requests_total{{status_class="4xx",upstream="{UPSTREAM}"}}'] == 1
    assert found[f'proxy_upstream_seconds_count{{upstream="{UPSTREAM}"}}'] == 2
    assert found[f'proxy_upstream_received_bytes_total{{upstream="{UPSTREAM}"}}'] >= len(image.manifest.raw)
    assert (found["proxy_inflight_fetches"], found["proxy_uploads_open"]) == (0, 0)


async def test_an_upstream_that_does_not_answer(tmp_path: Path):
    async with running_proxy(tmp_path, {UPSTREAM: "http://127.0.0.1:1"}) as proxy:
        assert (await get(f"{proxy.url}/v2/org/app/manifests/1"))[0] == 503
        found = await scraped(proxy)
    assert found[f'proxy_upstream_requests_total{{status_class="none",upstream="{UPSTREAM}"}}'] >= 1


@pytest.mark.parametrize(("said", "remaining"), [("76;w=21600", 76), ("0", 0), ("many", None), ("", None), ("²", None)])
def test_what_an_upstream_says_of_its_rate_limit(said: str, remaining: int | None):
    metrics = Metrics()
    metrics.know(["up.test"])
    metrics.answered("up.test", 429, 0.1, {"ratelimit-remaining": said})
    found = samples(metrics.expose().decode())
    assert found.get('proxy_rate_limit_remaining{upstream="up.test"}') == remaining
    assert found['proxy_rate_limited_total{upstream="up.test"}'] == 1


def test_a_name_that_is_no_upstream_never_becomes_a_label():
    metrics = Metrics()
    metrics.know(["up.test"])
    before = metrics.expose()
    metrics.answered("evil.test", 200, 0.1, {"ratelimit-remaining": "1"})
    metrics.received("evil.test", 10)
    metrics.token_fetched("evil.test")
    metrics.stale_served("evil.test", "failed")
    assert metrics.expose() == before


async def test_requests_by_kind_and_outcome(tmp_path: Path):
    image = make_image()
    layer = str(image.layer)
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.manifests["1"], upstream.blobs = image.manifest.raw, {layer: image.blobs[image.layer]}
        for path in ("", "org/app/manifests/1", f"org/app/blobs/{layer}", "org/app/manifests/1", "org/app/manifests/2"):
            await get(f"{proxy.url}/v2/{path}")
        async with client_of(proxy.url) as client:
            await push(client, "cache/app", "1", image)
        await get(f"{proxy.url}/healthz")
        found = await scraped(proxy)
    served = len(image.manifest.raw)
    wanted = {
        'proxy_requests_total{kind="ping",outcome="refused"}': 1,
        'proxy_requests_total{kind="manifest",outcome="miss"}': 1,
        'proxy_requests_total{kind="manifest",outcome="hit"}': 1,
        'proxy_requests_total{kind="manifest",outcome="refused"}': 1,
        'proxy_requests_total{kind="blob",outcome="miss"}': 1,
        'proxy_requests_total{kind="other",outcome="done"}': 1,
        'proxy_request_duration_seconds_count{kind="manifest"}': 3,
        'proxy_served_bytes_total{source="cache"}': served,
        'proxy_served_bytes_total{source="upstream"}': served + len(image.blobs[image.layer]),
        'proxy_refused_total{reason="challenge"}': 1,
        'proxy_pushes_total{kind="blob_push",outcome="accepted"}': 2,
        'proxy_pushes_total{kind="manifest_push",outcome="accepted"}': 1,
    }
    assert {name: found.get(name) for name in wanted} == wanted


async def test_what_goes_on_now(tmp_path: Path):
    image = make_image(layer_bytes=400_000)
    async with scripted_upstream() as upstream, running_proxy(tmp_path, {UPSTREAM: upstream.url}) as proxy:
        upstream.blobs, upstream.pause_at = {str(image.layer): image.blobs[image.layer]}, 100_000
        async with aiohttp.ClientSession() as session:
            await session.post(f"{proxy.url}/v2/cache/app/blobs/uploads/")
            async with session.get(f"{proxy.url}/v2/org/app/blobs/{image.layer}") as following:
                await following.content.readexactly(1)
                found = await scraped(proxy)
    assert (found["proxy_inflight_fetches"], found["proxy_uploads_open"]) == (1, 1)
