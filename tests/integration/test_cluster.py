"""Three replicas over one bucket behind a balancer without stickiness, killed while clients push, pull and delete.

What must hold, whoever dies when: no served byte is wrong, and what was acknowledged, a push or a deletion, is so for
every replica. The store is reaped, scrubbed and marked for garbage meanwhile. It prints what it has counted;
``CROSSDOCK_CLUSTER_S`` makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cache.oci.digest import Digest
from cache.oci.errors import NotFound
from cache.store import Sweepable, Unfinished
from cache.stores import open_store
from tests.integration.building import push_base
from tests.integration.cluster_load import Load, Name, check
from tests.peers import Registry, start_balancer
from tests.proxy.cluster import Replica, bucket_of, replicas
from tests.proxy.running import client_of, make_image, push
from tests.s3_servers import BUCKET, run_seaweedfs

LOAD_S = float(os.environ.get("CROSSDOCK_CLUSTER_S", "8"))
SEED = int(os.environ.get("CROSSDOCK_CLUSTER_SEED", "4"))
STORE = f"s3://{BUCKET}/cluster"
UPSTREAM_IMAGES = 6
WORK = ("kills", "pushes", "pulls", "upstream pulls", "deletions", "skopeo pushes", "podman pushes", "first builds")
"""What must have happened at all before it ends."""


@contextmanager
def cluster(tmp: Path, upstream: Registry) -> Iterator[tuple[str, list[Replica]]]:
    """The balancer's URL, and the replicas behind it."""
    upkeep = ("--maintenance-interval=1s", "--scrub-rate=50MB", "--retain=cache/other idle=1d", "--gc-grace=91s")
    upstreams = (f"--upstream=up.test={upstream.url}", "--default-upstream=up.test")
    with ExitStack() as stack:
        stack.enter_context(bucket_of(stack.enter_context(run_seaweedfs())[0]))
        started = stack.enter_context(replicas(tmp, 3, f"--store={STORE}", *upstreams, *upkeep))
        targets = [replica.url.removeprefix("http://") for replica in started]
        yield f"http://{stack.enter_context(start_balancer(tmp, targets))}", started


async def leftovers() -> tuple[Unfinished, int]:
    """What a sweep finds that dead writers have left, and how many leases; raises AssertionError if it leaves any."""
    store = open_store(STORE, os.environ)
    try:
        assert isinstance(store, Sweepable)
        swept = await store.sweep(-1.0)
        assert await store.unfinished() == Unfinished()
        return swept, len([name async for name in store.names("leases/")])
    finally:
        await store.close()


async def keep_doing(work: Callable[[], Awaitable[None]], over: asyncio.Event) -> None:
    while not over.is_set():
        await work()
        await asyncio.sleep(0.1)  # programs are to have their share of the processor


async def keep_killing(members: list[Replica], load: Load, over: asyncio.Event) -> None:
    """Mostly one is down at a time, and back before the next; sometimes two."""
    while not over.is_set():
        await asyncio.sleep(load.chance.uniform(0.0, 2.0))
        victims = load.chance.sample(members, load.chance.choice((1, 1, 1, 2)))
        for victim in victims:
            victim.restart()
            load.counts["kills"] += 1
        for victim in victims:
            await asyncio.to_thread(victim.wait)


async def seed(registry: Registry, busybox: Path) -> dict[Name, Digest]:
    """The images of the upstream."""
    push_base(busybox, registry)
    images = {("team/app", f"{number}"): make_image(number, 2_000_000) for number in range(UPSTREAM_IMAGES)}
    async with client_of(registry.url) as client:
        for name, image in images.items():
            await push(client, *name, image)
    return {name: Digest.of(image.manifest.raw) for name, image in images.items()}


async def check_all(replica: Replica, load: Load) -> None:
    """Raises AssertionError when the replica lacks anything that was acknowledged."""
    async with client_of(replica.url) as client:
        for name, digest in (load.pushed | load.upstream).items():
            await check(client, name, digest)
        for name in load.deleted:
            with pytest.raises(NotFound):
                await client.get_manifest(*name)


async def test_whoever_dies_nothing_that_was_acknowledged_is_lost(
    tmp_path: Path, registry: Registry, busybox_layout: Path
) -> None:
    upstream = await seed(registry, busybox_layout)
    with cluster(tmp_path, registry) as (url, members):
        load = Load(url, tmp_path, random.Random(SEED), upstream)
        try:
            await bear(load, members)
        finally:
            print(f"\nseed {SEED}, {LOAD_S:g} s: {load}")


async def bear(load: Load, members: list[Replica]) -> None:
    """Kills the replicas under load, and then looks whether all holds."""
    over = asyncio.Event()
    workers = [load.push, load.pull, load.pull, load.delete, load.skopeo, load.podman, load.builder]
    async with asyncio.timeout(LOAD_S + 240), asyncio.TaskGroup() as group:
        for work in workers:
            group.create_task(keep_doing(work, over))
        group.create_task(keep_killing(members, load, over))
        await asyncio.sleep(LOAD_S)
        while not all(load.counts[what] for what in WORK):
            await asyncio.sleep(0.1)
        over.set()
    for replica in members:
        await check_all(replica, load)
        replica.kill()
        assert "Traceback" not in replica.log.read_text()
    swept, leases = await leftovers()
    load.counts["parts and files swept"] += swept.uploads + swept.files
    load.counts["leases of the dead"] += leases
