"""A program that adds one to a record of the store at argv[1], argv[2] times, against others that do the same."""

import asyncio
import sys
from pathlib import Path

from cache.disk.filesystem import FilesystemStore
from cache.errors import RecordConflict
from cache.store import ABSENT


async def main():
    store = FilesystemStore(Path(sys.argv[1]))
    left = int(sys.argv[2])
    while left:
        record = await store.get("layers/ab/count")
        value = int(record.value) + 1 if record else 1
        try:
            await store.put("layers/ab/count", b"%d" % value, record.version if record else ABSENT)
        except RecordConflict:
            continue
        left -= 1
    await store.close()


asyncio.run(main())
