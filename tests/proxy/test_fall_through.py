"""Caches that trust each other one way: what a narrow prefix reads from a wide one, and never the other way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from cache.entry import CachedStep
from cache.keys import CacheKey
from cache.layers import RegistryLayerCache
from cache.oci import media_types
from cache.oci.credentials import Credential
from cache.oci.digest import Digest
from cache.oci.errors import RegistryError
from cache.oci.layer import Layer
from cache.oci.uploads import bytes_source
from proxy.auth.rights import Rule, Rules
from proxy.errors import ConfigError
from proxy.hosting.fall_through import FallThrough, wider
from proxy.settings import make_config
from tests.proxy.running import Proxy, client_of, descriptor, make_image, push, running_proxy

OpenCache = Callable[[str, str], AbstractAsyncContextManager[RegistryLayerCache]]
LAYERS = {name: name.encode() * 1000 for name in ("main", "pull request")}
WHO_MAY = ("ci cache/main all", "pr cache/pr-1 read,write", "pr cache/main read", "stranger cache/pr-1 read")

RULES = (FallThrough.parse("cache/pr-* cache/main"), FallThrough.parse("cache/try/ cache/main"))


@pytest.mark.parametrize(
    ("repository", "place"),
    [
        ("cache/pr-12/app", "cache/main/app"),
        ("cache/pr-12/app/deep", "cache/main/app/deep"),
        ("cache/pr-12", "cache/main"),
        ("cache/try/app", "cache/main/app"),
        ("cache/try-not/app", None),
        ("cache/main/app", None),
        ("cache/prx/app", None),
        ("other/pr-12/app", None),
    ],
)
def test_where_a_repository_reads_on(repository: str, place: str | None):
    assert wider(RULES, repository) == place


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (("cache/pr-*",), "expected NARROW WIDE"),
        (("cache/p*r cache/main",), "expected NARROW WIDE"),
        (("cache/pr CACHE",), "expected NARROW WIDE"),
        (("cache/pr elsewhere/main",), "elsewhere/main is not hosted here"),
        (("cache/a cache/b", "cache/b cache/a"), "cache/b reads from elsewhere itself"),
        (("cache/main cache/main",), "cache/main reads from elsewhere itself"),
        (("cache/main/pr cache/main",), "or holds what does"),
        (("cache/* cache/main",), "cache/main reads from elsewhere itself"),
    ],
)
def test_what_makes_no_sense_is_refused(said: tuple[str, ...], fault: str):
    with pytest.raises(ConfigError, match=fault.replace("*", r"\*")):
        make_config({"fall-through": said}, "memory:")


def step(number: int, name: str) -> CachedStep:
    blob = LAYERS[name]
    layer = Layer(descriptor(blob, media_types.OCI_LAYER_GZIP), Digest.of(b"its tar"))
    return CachedStep(CacheKey(f"{number:064x}"), layer, 1.0, "2026-08-01T12:00:00Z")


@asynccontextmanager
async def caches(
    tmp_path: Path,
) -> AsyncIterator[Callable[[str, str], AbstractAsyncContextManager[RegistryLayerCache]]]:
    """A proxy with rules; gives the cache of a repository for a user."""
    names = ("ci", "pr", "stranger")
    (tmp_path / "tokens").write_text("".join(f"{name}:{name}-has-a-long-token\n" for name in names))
    rules = Rules(tuple(map(Rule.parse, WHO_MAY)))
    async with running_proxy(tmp_path, {}, tokens_file=tmp_path / "tokens", rules=rules, fall_throughs=RULES) as proxy:
        yield partial(cache_of, proxy)


@asynccontextmanager
async def cache_of(proxy: Proxy, who: str, repository: str) -> AsyncIterator[RegistryLayerCache]:
    async with client_of(proxy.url, Credential(who, f"{who}-has-a-long-token")) as client:
        yield RegistryLayerCache(client, repository)


async def read(cache: RegistryLayerCache, layer: Layer | None) -> bytes:
    assert layer is not None
    async with cache.open(layer) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_pull_request_finds_what_main_has_made_and_writes_its_own(tmp_path: Path):
    shared, own = step(1, "main"), step(2, "pull request")
    async with caches(tmp_path) as of, of("ci", "cache/main/app") as main, of("pr", "cache/pr-1/app") as narrow:
        await main.save(shared, bytes_source(LAYERS["main"]))
        assert await narrow.lookup([shared.key, own.key]) == {shared.key: shared}
        assert await read(narrow, shared.layer) == LAYERS["main"]
        await narrow.save(own, bytes_source(LAYERS["pull request"]))
        assert await narrow.lookup([shared.key, own.key]) == {shared.key: shared, own.key: own}
        assert await main.lookup([shared.key, own.key]) == {shared.key: shared}
        with pytest.raises(RegistryError):
            await read(main, own.layer)
        found = await narrow.client.get_manifest("cache/pr-1/app", shared.key.hex)
        assert found.digest == (await main.client.get_manifest("cache/main/app", shared.key.hex)).digest
        async with of("pr", "cache/main/app") as main:
            with pytest.raises(RegistryError):
                await main.save(own, bytes_source(LAYERS["pull request"]))


async def test_who_may_not_read_the_wide_prefix_gets_nothing_from_it(tmp_path: Path):
    shared = step(1, "main")
    async with caches(tmp_path) as of, of("ci", "cache/main/app") as main, of("stranger", "cache/pr-1/app") as narrow:
        await main.save(shared, bytes_source(LAYERS["main"]))
        assert await narrow.lookup([shared.key]) == {}
        with pytest.raises(RegistryError):
            await read(narrow, shared.layer)


async def test_a_manifests_blobs_must_be_in_its_own_repository(tmp_path: Path):
    image = make_image(1, 1000)
    async with caches(tmp_path) as of, of("ci", "cache/main/app") as main, of("pr", "cache/pr-1/app") as narrow:
        await push(main.client, "cache/main/app", "1", image)
        with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
            await narrow.client.put_manifest("cache/pr-1/app", "1", image.manifest.raw, image.manifest.media_type)
        await push(narrow.client, "cache/pr-1/app", "1", image)
