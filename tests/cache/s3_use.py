"""Using a store in a bucket, and looking behind its back."""

from cache.oci.digest import Digest
from tests.s3_servers import BUCKET

MIB = 1 << 20
NAME = "repositories/docker.io/library/debian/_tags/stable"


async def put(store, data, digest=None, expected=None):
    digest = digest or Digest.of(data)
    async with store.writer(expected) as writer:
        for start in range(0, len(data), MIB):
            await writer.write(data[start : start + MIB])
        await writer.commit(digest)
    return digest


async def read(store, digest, start=0, stop=None):
    async with store.open(digest, start, stop) as chunks:
        return b"".join([chunk async for chunk in chunks])


def keys(server, store):
    listed = server.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix_of(store))
    return [found["Key"] for found in listed.get("Contents", [])]


def prefix_of(store):
    return store.url.removeprefix(f"s3://{BUCKET}/")


def uploads(server, store):
    found = server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [upload for upload in found if upload["Key"].startswith(prefix_of(store))]


async def names(store, prefix):
    return sorted([name async for name in store.names(prefix)])
