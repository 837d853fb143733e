"""A store with images for gc, and runs of it without waiting."""

import time

from cache import paths
from cache.catalog import Catalog, TagEntry
from cache.oci import codec, media_types
from cache.oci.descriptor import Descriptor
from cache.oci.digest import Digest
from cache.oci.manifest import make_index, make_manifest
from cache.upkeep.collect import Collection, collect
from cache.upkeep.condemned import Condemned
from cache.upkeep.retention import Retention
from cache.upkeep.uses import write_uses

DAY = 86400.0
GRACE_S = 3600.0


class World:
    """Pushes as the proxy does, and collects at a time of its own."""

    def __init__(self, store, namespace=paths.HOSTED):
        self.store = store
        self.catalog = Catalog(store)
        self.namespace = namespace
        self.now = time.time()

    def replica(self, clock=time.monotonic):
        """What one replica knows of what is condemned."""
        return Condemned(self.store, self.store.url, clock)

    async def blob(self, repository, data):
        """Pushes a blob, and returns its descriptor."""
        descriptor = Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=Digest.of(data), size=len(data))
        await self.catalog.put_blob_bytes(self.namespace, repository, descriptor, data)
        return descriptor

    async def image(self, repository, tag, *layers, annotations=None, subject=None):
        """Pushes an image under a tag (None = by digest alone); returns the manifest and its blobs' digests."""
        config = await self.blob(repository, f"config of {[Digest.of(layer) for layer in layers]}".encode())
        descriptors = tuple([await self.blob(repository, layer) for layer in layers])
        manifest = make_manifest(config, descriptors, annotations=annotations or {})
        if subject is not None:
            raw = manifest.raw[:-1] + b',"subject":' + codec.encode(subject) + b"}"
            manifest = type(manifest)(raw, manifest.media_type, config, descriptors, {}, "", subject)
        await self.put(repository, tag, manifest)
        return manifest, [descriptor.digest for descriptor in (config, *descriptors)]

    async def put(self, repository, tag, manifest):
        await self.catalog.put_manifest(self.namespace, repository, manifest)
        if tag is not None:
            await self.point(repository, tag, manifest.descriptor)

    async def point(self, repository, tag, descriptor):
        await self.catalog.set_tag(self.namespace, repository, tag, TagEntry(descriptor, self.now))

    async def index(self, repository, tag, *manifests):
        made = make_index(tuple(manifest.descriptor for manifest in manifests))
        await self.put(repository, tag, made)
        return made

    async def used(self, repository, tag, hits=1):
        await write_uses(self.store, {paths.tag(self.namespace, repository, tag): hits}, self.now)

    async def collect(self, *retentions, **how):
        """One run of gc now."""
        how = Collection(tuple(map(Retention.parse, retentions)), **({"grace_s": GRACE_S, "abandoned_s": 0.0} | how))
        return await collect(self.store, how, lambda: self.now)

    async def collect_twice(self, *retentions):
        """A run that condemns, and the one after the grace that deletes."""
        await self.collect(*retentions)
        self.now += GRACE_S + 1
        return await self.collect(*retentions)

    async def has(self, *digests):
        """Which of these the store holds."""
        return [await self.store.stat(digest) is not None for digest in digests]

    async def everything(self):
        """All that the store holds: blobs, and records with their values."""
        records = {}
        for prefix in ("repositories/", "gc/", "usage/", "layers/", "names/"):
            async for name in self.store.names(prefix):
                records[name] = (await self.store.get(name)).value
        return {digest async for digest, _ in self.store.blobs()}, records
