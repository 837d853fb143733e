"""gc over a generated store of cache entries: its time, memory and requests, and what a look-up costs beside it."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import time
from collections import Counter

from cache import paths
from cache.catalog import Catalog, TagEntry
from cache.memory import MemoryStore
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import make_manifest
from cache.store import Record
from cache.upkeep.collect import Collection, collect
from cache.upkeep.retention import Retention
from tests.bench.report import Results, machine

FULL, QUICK = (1_000, 1_000_000), (100, 1_000)
PAGE = 1000
LOOKUPS = 2_000


class GeneratedStore(MemoryStore):
    """Entries whose layers and configs exist by name alone; counts requests as a bucket would bill them."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.sizes: dict[Digest, int] = {}
        for number in range(entries):
            self._add(number)

    def _add(self, number: int) -> None:
        key = hashlib.sha256(b"%d" % number).hexdigest()
        config, layer = (_descriptor(f"{kind} {number}", size) for kind, size in (("config", 300), ("layer", 1 << 20)))
        manifest = make_manifest(config, (layer,), annotations={"io.crossdock.cache.seconds": f"{number % 60}.0"})
        self._blobs[manifest.digest] = manifest.raw
        for descriptor in (config, layer):
            self.sizes[descriptor.digest] = descriptor.size
        for descriptor in (config, layer, manifest.descriptor):
            name = paths.member(paths.HOSTED, "cache", descriptor.digest)
            self._records[name] = Record(codec.encode(descriptor), "1")
        entry = TagEntry(manifest.descriptor, 1e9 + number)
        self._records[paths.tag(paths.HOSTED, "cache", key)] = Record(codec.encode(entry), "1")

    async def get(self, name):
        self.requests["GET"] += 1
        return await super().get(name)

    async def put(self, name, value, expected=None):
        self.requests["PUT"] += 1
        return await super().put(name, value, expected)

    async def remove(self, name, expected=None):
        self.requests["DELETE"] += 1
        await super().remove(name, expected)

    def open(self, digest, start=0, stop=None):
        self.requests["GET"] += 1
        return super().open(digest, start, stop)

    async def names(self, prefix):
        found = 0
        async for name in super().names(prefix):
            found += 1
            yield name
        self.requests["LIST"] += found // PAGE + 1

    async def blobs(self):
        found = 0
        async for blob in super().blobs():
            found += 1
            yield blob
        for blob in self.sizes.items():
            found += 1
            yield blob
        self.requests["LIST"] += found // PAGE + 1


def _descriptor(what: str, size: int) -> Descriptor:
    return Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=Digest.of(what.encode()), size=size)


async def measure_store(entries: int, results: Results) -> None:
    """Two runs of gc, of which the first has all manifests to read, and lookups."""
    store, column = GeneratedStore(entries), f"{entries:,} entries"
    how = Collection((Retention("cache", max_entries=entries),))
    for run in ("first run", "next run"):
        store.requests.clear()
        began = time.perf_counter()
        await collect(store, how, lambda: 1e9 + entries)
        results.add(f"{run}, seconds", column, time.perf_counter() - began)
        for kind in ("LIST", "GET", "PUT"):
            results.add(f"{run}, {kind} requests", column, store.requests[kind])
    results.add("most memory with the store itself, MB", column, _peak_mb())
    catalog = Catalog(store)
    key = hashlib.sha256(b"7").hexdigest()
    began = time.perf_counter()
    for _ in range(LOOKUPS):
        await catalog.tag(paths.HOSTED, "cache", key)
    results.add("look-up of a tag, microseconds", column, (time.perf_counter() - began) / LOOKUPS * 1e6)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def measure(sizes: tuple[int, ...]) -> str:
    """The table with its conditions."""
    results = Results([f"{entries:,} entries" for entries in sizes])
    for entries in sizes:
        asyncio.run(measure_store(entries, results))
    return f"{results.table('Garbage collection')}\n\n{machine()} A store in memory that counts requests; records only."
