"""A program that fills the store at argv[1] until it is killed; it says ``ready`` when it begins."""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from cache.disk.filesystem import FilesystemStore
from cache.oci.digest import Digest


async def write_blobs(store, number):
    for _ in itertools.count():
        data = os.urandom(number * 400_000 + os.getpid() % 1000)
        async with store.writer() as writer:
            for start in range(0, len(data), 300_000):
                await writer.write(data[start : start + 300_000])
            await writer.commit(Digest.of(data))


def adopt_blobs(store):
    while True:
        data = os.urandom(700_000)
        path = store.incoming()
        path.write_bytes(data)
        store.adopt(path, Digest.of(data), len(data))


async def write_records(store):
    for number in itertools.count():
        await store.put(f"layers/ab/{os.getpid() % 3}", b"%d" % number * 10_000)


async def main():
    store = FilesystemStore(Path(sys.argv[1]))
    print("ready", flush=True)
    await asyncio.gather(
        *(write_blobs(store, number) for number in range(4)),
        write_records(store),
        asyncio.to_thread(adopt_blobs, store),
    )


asyncio.run(main())
