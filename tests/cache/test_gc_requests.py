"""The bench of gc counts a directory's requests as a bucket gets them."""

from __future__ import annotations

from collections import Counter

from cache.upkeep.collect import Collection, collect
from cache.upkeep.retention import Retention
from tests.bench import collecting
from tests.s3_servers import BUCKET

ENTRIES, KEPT = 1010, 1000
HOW = Collection((Retention("cache", max_entries=KEPT),))
NOW = collecting.BEGUN_AT + ENTRIES


async def test_it_counts_as_a_bucket_does(tmp_path, fake, fake_store):
    """More entries than a page of a listing holds, of which some go."""
    filler = collecting.Filler(tmp_path)
    for number in range(ENTRIES):
        filler.add(number)
    found = ((path.relative_to(tmp_path), path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    # A record that is empty in S3 is a removed one.
    fake.objects = {f"/{BUCKET}/some/prefix/{name}": content or b"x" for name, content in found}
    fake.modified = dict.fromkeys(fake.objects, fake.now)
    await collect(fake_store, HOW, lambda: NOW)
    store = collecting.CountingStore(tmp_path)
    await collect(store, HOW, lambda: NOW)
    await store.close()
    of_the_bucket = Counter("LIST" if "?list-type" in kind else kind for kind in fake.kinds)
    assert store.requests == of_the_bucket
    assert of_the_bucket["DELETE"] == ENTRIES - KEPT
