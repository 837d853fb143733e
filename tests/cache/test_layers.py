"""The build-layer cache in a real registry, behind our proxy, and in a store."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cache import entry, paths
from cache.disk.filesystem import FilesystemStore
from cache.entry import CachedStep
from cache.errors import DigestMismatch, SizeMismatch, StoreUnavailable
from cache.keys import CacheKey
from cache.layers import RegistryLayerCache, StoreLayerCache
from cache.memory import MemoryStore
from cache.oci import media_types
from cache.oci.client import RegistryClient
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.errors import RegistryError, Unreachable
from cache.oci.layer import Layer
from cache.oci.retry import Backoff
from cache.oci.transport import Transport
from cache.oci.uploads import bytes_source
from cache.together import together
from tests.fakes.registry import fake_registry
from tests.peers import free_port
from tests.proxy.running import running_proxy

BLOB = b"a layer" * 10_000
LAYER = Layer(
    Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=Digest.of(BLOB), size=len(BLOB)), Digest.of(b"its tar")
)
ONCE = Backoff(tries=1)


def key(number: int) -> CacheKey:
    return CacheKey(f"{number:064x}")


STEP = CachedStep(key(1), LAYER, 1.25, "2026-08-01T12:00:00Z")
EMPTY = CachedStep(key(2), None, 0.5)


@pytest.fixture
async def transport():
    async with Transport() as opened:
        yield opened


@pytest.fixture
async def in_registry(transport, registry):
    return RegistryLayerCache(RegistryClient(transport, registry.url, backoff=ONCE), "app/cache")


@pytest.fixture
async def in_proxy(transport, tmp_path):
    async with running_proxy(tmp_path, {}) as proxy:
        yield RegistryLayerCache(RegistryClient(transport, proxy.url, backoff=ONCE), "cache/app")


@pytest.fixture
async def in_memory():
    return StoreLayerCache(MemoryStore())


@pytest.fixture
async def on_disk(tmp_path):
    return StoreLayerCache(FilesystemStore(tmp_path / "layers"))


@pytest.fixture(params=["in_registry", "in_proxy", "in_memory", "on_disk"])
def cache(request):
    return request.getfixturevalue(request.param)


async def read_layer(cache):
    async with cache.open(LAYER) as chunks:
        return b"".join([chunk async for chunk in chunks])


def not_to_be_opened():
    raise AssertionError("the layer is there already")


async def test_steps_are_saved_and_found(cache):
    await cache.save(STEP, bytes_source(BLOB))
    await cache.save(EMPTY, None)
    assert await cache.lookup([key(1), key(2), key(3), key(1)]) == {key(1): STEP, key(2): EMPTY}
    assert await read_layer(cache) == BLOB


async def test_a_note_is_recalled(cache):
    noted = CachedStep(key(3), None, note='[{"a": "é"}]')
    await cache.save(noted, None)
    assert await cache.recall(key(3)) == noted
    assert await cache.recall(key(4)) is None


async def test_nothing_is_found_in_an_empty_cache(cache):
    assert await cache.lookup([key(1)]) == {}
    assert await cache.lookup([]) == {}


async def test_a_layer_that_is_there_is_not_read_again(cache):
    await cache.save(STEP, bytes_source(BLOB))
    again = CachedStep(key(9), LAYER, 2.0)
    await cache.save(again, not_to_be_opened)
    assert await cache.lookup([key(9)]) == {key(9): again}


async def test_a_step_with_a_layer_needs_its_bytes(cache):
    with pytest.raises(ValueError, match="source"):
        await cache.save(STEP, None)
    assert await cache.lookup([key(1)]) == {}


async def test_a_layer_with_other_bytes_is_not_stored(cache):
    with pytest.raises((DigestMismatch, RegistryError)):
        await cache.save(STEP, bytes_source(BLOB[::-1]))
    assert await cache.lookup([key(1)]) == {}


async def test_a_layer_of_another_length_is_not_stored(cache):
    with pytest.raises(SizeMismatch):
        await cache.save(STEP, bytes_source(BLOB + b"more"))
    assert await cache.lookup([key(1)]) == {}


async def test_an_ordinary_registry_is_asked_key_by_key(in_registry, registry):
    await in_registry.save(STEP, bytes_source(BLOB))
    before = len(registry.requests())
    await in_registry.lookup([key(number) for number in range(40)])
    await in_registry.lookup([key(1)])
    asked = registry.requests()[before:]
    assert [request.path for request in asked].count("/v2/") == 1
    assert sum("/manifests/" in request.path for request in asked) == 41
    assert all(request.method == "GET" for request in asked)


async def test_our_proxy_is_asked_once_for_all(in_proxy, monkeypatch):
    await in_proxy.save(STEP, bytes_source(BLOB))
    paths_asked = []
    whole = in_proxy.client.request

    def noted(method, path, **more):
        paths_asked.append((method, path))
        return whole(method, path, **more)

    monkeypatch.setattr(in_proxy.client, "request", noted)
    assert await in_proxy.lookup([key(number) for number in range(40)]) == {key(1): STEP}
    assert paths_asked == [("GET", "/v2/"), ("POST", "/_crossdock/v1/lookup")]


async def test_more_keys_than_one_lookup_takes(in_proxy):
    await in_proxy.save(EMPTY, None)
    assert await in_proxy.lookup([key(number) for number in range(entry.MAX_LOOKUP_KEYS + 5, 0, -1)]) == {key(2): EMPTY}


async def test_other_images_under_a_keys_tag_are_misses_with_a_warning(in_registry, caplog):
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    client = in_registry.client
    await client.upload_blob("app/cache", Digest.of(config), len(config), bytes_source(config))
    raw = b'{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","size":%d,"digest":"%s"},"layers":[]}' % (
        media_types.DOCKER_MANIFEST.encode(),
        media_types.DOCKER_CONFIG.encode(),
        len(config),
        str(Digest.of(config)).encode(),
    )
    await client.put_manifest("app/cache", key(5).hex, raw, media_types.DOCKER_MANIFEST)
    await in_registry.save(EMPTY, None)
    assert await in_registry.lookup([key(5), key(2)]) == {key(2): EMPTY}
    assert "not a cache entry of Crossdock" in caplog.text


async def test_a_registry_that_is_down_is_not_a_miss(transport):
    client = RegistryClient(transport, f"http://127.0.0.1:{free_port()}", backoff=ONCE)
    with pytest.raises(Unreachable):
        await RegistryLayerCache(client, "app/cache").lookup([key(1)])


@pytest.mark.parametrize("features", ["", "lookup"])
async def test_a_registry_that_fails_is_not_a_miss(transport, features):
    async def handle(request):
        return web.Response(status=200 if request.path == "/v2/" else 500, headers={"Crossdock-Features": features})

    async with fake_registry(handle) as fake:
        cache = RegistryLayerCache(RegistryClient(transport, fake.url, backoff=ONCE), "app/cache")
        with pytest.raises(RegistryError) as caught:
            await cache.lookup([key(1), key(2)])
    assert caught.value.status == 500


async def test_a_store_that_fails_is_not_a_miss(tmp_path):
    class Broken(MemoryStore):
        async def get(self, name):
            raise StoreUnavailable("memory:", "read")

    with pytest.raises(StoreUnavailable):
        await StoreLayerCache(Broken()).lookup([key(1)])


async def test_an_entry_whose_blob_is_gone_is_a_miss():
    store = MemoryStore()
    cache = StoreLayerCache(store)
    await cache.save(STEP, bytes_source(BLOB))
    await store.delete(LAYER.descriptor.digest)
    assert await cache.lookup([key(1)]) == {}


async def test_a_record_that_is_no_entry_is_a_miss_until_it_is_saved_anew(caplog):
    store = MemoryStore()
    cache = StoreLayerCache(store)
    await store.put(paths.layer(key(2).hex), b'{"schemaVersion": 2, "of": "another time"}')
    assert await cache.lookup([key(2)]) == {}
    assert "cache entry ignored" in caplog.text
    await cache.save(EMPTY, None)
    assert await cache.lookup([key(2)]) == {key(2): EMPTY}


async def test_bytes_that_rot_are_noticed_on_the_way(transport):
    async def handle(request):
        return web.Response(body=b"rotten" + BLOB[6:])

    async with fake_registry(handle) as fake:
        cache = RegistryLayerCache(RegistryClient(transport, fake.url, backoff=ONCE), "app/cache")
        with pytest.raises(DigestMismatch):
            await read_layer(cache)


async def test_together_keeps_order_and_limit():
    running = peak = 0

    async def piece(number):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    assert await together([lambda n=n: piece(n) for n in range(10)], 3) == list(range(10))
    assert peak == 3


async def test_together_ends_the_rest_with_the_first_failure():
    ended = []

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await together([waits, fails], 2)
    assert ended == ["waits"]


async def test_a_failed_save_leaves_no_entry_behind(in_memory):
    @asynccontextmanager
    async def breaks():
        async def chunks():
            yield BLOB[:100]
            raise OSError("the disk broke")

        yield chunks()

    with pytest.raises(OSError, match="the disk broke"):
        await in_memory.save(STEP, breaks)
    assert await in_memory.lookup([key(1)]) == {}
