"""gc over a generated store of cache entries: its time, memory and requests, and what a look-up costs beside it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from cache import paths, record_format
from cache.catalog import Catalog, TagEntry
from cache.disk.filesystem import FilesystemStore
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import make_manifest
from cache.upkeep.collect import Collection, collect
from cache.upkeep.retention import Retention
from tests.bench.report import Results, machine

HERE = Path(__file__).parent.parent.parent
FULL, QUICK = (1_000, 1_000_000), (100, 1_000)
PAGE = 1000
LOOKUPS = 500
ROUNDS = 5
LINKS = 60_000
"""ext4 links one file as often as this, and a little more."""
BEGUN_AT = 1e9
DAY_S = 86_400.0
CONDITIONS = """\
Each entry is a tag, a manifest with its config and one layer, and the records of these three, in a directory; layers
and members exist by name alone, as gc reads neither. Each run is a process of its own, and its memory the most that it
had resident; requests are counted as a bucket would bill them: a page of a listing, or of deletions, has a thousand
names. A test compares these counts with what a fake S3 is asked for. As many tags are looked up in either store, each
for the second time."""


class CountingStore(FilesystemStore):
    """Counts requests."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests: Counter[str] = Counter()

    async def get(self, name):
        self.requests["GET"] += 1
        return await super().get(name)

    async def get_all(self, names):
        self.requests["GET"] += len(names)
        return await super().get_all(names)

    async def read_all(self, digests, limit_bytes):
        self.requests["GET"] += len(digests)
        return await super().read_all(digests, limit_bytes)

    async def put(self, name, value, expected=None):
        self.requests["PUT"] += 1
        return await super().put(name, value, expected)

    async def remove(self, name, expected=None):
        self.requests["DELETE"] += 1
        await super().remove(name, expected)

    async def remove_all(self, names):
        self.requests["DELETE"] += math.ceil(len(names) / PAGE)
        await super().remove_all(names)

    async def delete_all(self, digests):
        self.requests["DELETE"] += math.ceil(len(digests) / PAGE)
        await super().delete_all(digests)

    async def names(self, prefix):
        found = 0
        async for name in super().names(prefix):
            found += 1
            yield name
        self.requests["LIST"] += found // PAGE + 1

    async def blobs(self, under="", after=None):
        found = 0
        async for blob in super().blobs(under, after):
            found += 1
            yield blob
        self.requests["LIST"] += found // PAGE + 1


class Filler:
    """Puts entries into a directory as a store would have them, without the time that it takes to sync them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: set[str] = set()
        self._empty = ""
        self._links = LINKS

    def add(self, number: int) -> None:
        """Adds an entry."""
        config, layer = (_descriptor(f"{kind} {number}") for kind in ("config", "layer"))
        manifest = make_manifest(config, (layer,), annotations={"io.crossdock.cache.seconds": f"{number % 60}.0"})
        self._write(paths.blob(manifest.digest), manifest.raw)
        for descriptor in (config, layer):
            self._touch(paths.blob(descriptor.digest))
        for descriptor in (config, layer, manifest.descriptor):
            self._touch(paths.record(paths.member(paths.HOSTED, "cache", descriptor.digest)))
        entry = codec.encode(TagEntry(manifest.descriptor, BEGUN_AT + number))
        tag = paths.record(paths.tag(paths.HOSTED, "cache", key_of(number)))
        self._write(tag, record_format.encode("0" * 32, entry))

    def _write(self, name: str, content: bytes) -> None:
        with open(self._place(name), "wb", buffering=0) as file:
            file.write(content)

    def _touch(self, name: str) -> None:
        place = self._place(name)
        if self._links == LINKS:
            self._write(name, b"")
            self._empty, self._links = place, 0
        else:
            os.link(self._empty, place)
            self._links += 1

    def _place(self, name: str) -> str:
        directory = name.rpartition("/")[0]
        if directory not in self._made:
            (self._root / directory).mkdir(parents=True, exist_ok=True)
            self._made.add(directory)
        return f"{self._root}/{name}"


def _descriptor(what: str) -> Descriptor:
    return Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=Digest.of(what.encode()), size=1000)


def key_of(number: int) -> str:
    """The cache key of an entry."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def collect_once(root: Path, max_entries: int, now: float) -> dict[str, float]:
    """What a run of gc costs."""

    async def run() -> dict[str, float]:
        store = CountingStore(root)
        how = Collection((Retention("cache", max_entries=max_entries),))
        began = time.perf_counter()
        await collect(store, how, lambda: now)
        seconds, cpu_s = time.perf_counter() - began, time.process_time()
        await store.close()
        requests = {f"{kind} requests": store.requests[kind] for kind in ("LIST", "GET", "PUT", "DELETE")}
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        return {"seconds": seconds, "of the processor": cpu_s, "memory, MB": peak_mb, **requests}

    return asyncio.run(run())


def look_up(root: Path, entries: int) -> tuple[float, float]:
    """How many microseconds and requests it takes to look a tag up, of some all over the store."""

    async def run() -> tuple[float, float]:
        store = CountingStore(root)
        catalog = Catalog(store)
        keys = [key_of(number) for number in range(0, entries, max(1, entries // LOOKUPS))]
        for key in keys:
            await catalog.tag(paths.HOSTED, "cache", key)
        store.requests.clear()
        began = time.perf_counter()
        for key in keys:
            await catalog.tag(paths.HOSTED, "cache", key)
        seconds = time.perf_counter() - began
        await store.close()
        return seconds / len(keys) * 1e6, store.requests.total() / len(keys)

    return asyncio.run(run())


def measure_runs(root: Path, entries: int, results: Results) -> None:
    """A first run, which has all manifests to read; a next one; one that takes a hundredth; and the one after that."""
    now, kept = BEGUN_AT + entries, entries - entries // 100
    runs = (("first run", entries, now), ("next run", entries, now), ("a hundredth goes", kept, now))
    for run, max_entries, at in (*runs, ("its blobs go", kept, now + 2 * DAY_S)):
        command = [sys.executable, "-m", __name__, str(root), str(max_entries), str(at)]
        said = subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE).stdout
        for row, value in json.loads(said).items():
            results.add(f"{run}, {row}", _column(entries), value)


def measure(sizes: tuple[int, ...]) -> str:
    """The table with its conditions."""
    results = Results([_column(entries) for entries in sizes])
    with tempfile.TemporaryDirectory(prefix="crossdock-bench-gc-") as tmp:
        roots = {entries: Path(tmp) / str(entries) for entries in sizes}
        for entries, root in roots.items():
            filler = Filler(root)
            for number in range(entries):
                filler.add(number)
            measure_runs(root, entries, results)
        for _ in range(ROUNDS):
            for entries, root in roots.items():
                microseconds, requests = look_up(root, entries // 2)
                results.add("look-up of a tag, microseconds", _column(entries), microseconds)
                results.add("look-up of a tag, requests", _column(entries), requests)
    return f"{results.table('Garbage collection')}\n\n{machine()} {CONDITIONS}"


def _column(entries: int) -> str:
    return f"{entries:,} entries"


if __name__ == "__main__":
    print(json.dumps(collect_once(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
