"""Three replicas over one bucket behind a balancer without stickiness, killed while clients push, pull and delete.

What must hold, whoever dies when: no served byte is wrong, and what was acknowledged, a push or a deletion, is so for
every replica. The store is reaped, scrubbed and marked for garbage meanwhile. It prints what it has counted;
``CROSSDOCK_CLUSTER_S`` makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from cache.oci.client import RegistryClient
from cache.oci.errors import NotFound, OCIError
from cache.store import Sweepable, Unfinished
from cache.stores import open_store
from tests.peers import Registry, free_port, start_balancer, wait_for_port
from tests.programs import proxy_command
from tests.proxy.running import Image, client_of, make_image, push
from tests.s3_servers import BUCKET, CREDENTIALS, run_seaweedfs

LOAD_S = float(os.environ.get("CROSSDOCK_CLUSTER_S", "12"))
SEED = int(os.environ.get("CROSSDOCK_CLUSTER_SEED", "4"))
STORE = f"s3://{BUCKET}/cluster"
UPSTREAM_IMAGES = 6
BROKEN = (OCIError, aiohttp.ClientError, OSError, TimeoutError)
"""What a client meets when its replica dies; it tries again."""


class Replica:
    """One replica, which can be killed and started again at its address."""

    def __init__(self, tmp: Path, number: int, options: tuple[str, ...]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tmp / f"{number}.log"
        self._command = proxy_command(tmp, self.port, f"--replica-url={self.url}", "--drain=0s", *options)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as out:
            return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait(self) -> None:
        wait_for_port(self.port, self.process, self._log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.process = self._start()


@contextmanager
def cluster(tmp: Path, upstream: Registry) -> Iterator[tuple[str, list[Replica]]]:
    """The balancer's URL, and the replicas behind it."""
    with ExitStack() as stack:
        server, _ = stack.enter_context(run_seaweedfs())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": server.endpoint_url}.items():
            patch.setenv(name, value)
        upkeep = ("--maintenance-interval=1s", "--scrub-rate=50MB", "--retain=cache/other idle=1d", "--gc-grace=91s")
        upstreams = (f"--upstream=up.test={upstream.url}", "--default-upstream=up.test")
        options = (f"--store={STORE}", *upstreams, *upkeep)
        started = [Replica(tmp, number, options) for number in range(3)]
        for replica in started:
            stack.callback(replica.kill)
        for replica in started:
            replica.wait()
        targets = [replica.url.removeprefix("http://") for replica in started]
        yield f"http://{stack.enter_context(start_balancer(tmp, targets))}", started


@dataclass
class Load:
    """What clients do, and what they were told."""

    url: str
    chance: random.Random
    upstream: list[Image]
    pushed: dict[str, Image] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    _numbers: int = 0

    async def try_once(self, what: str, work: Callable[[RegistryClient], Awaitable[None]]) -> bool:
        """Whether it was acknowledged. A new connection each time: the balancer chooses anew."""
        try:
            async with asyncio.timeout(20), client_of(self.url) as client:
                await work(client)
        except BROKEN:
            self.counts[f"{what} broken"] += 1
            return False
        self.counts[what] += 1
        return True

    async def push(self) -> None:
        """Pushes a new image until that is acknowledged."""
        self._numbers += 1
        name, image = f"{self._numbers}", make_image(1000 + self._numbers, self.chance.randint(1_000, 3_000_000))
        while not await self.try_once("pushes", lambda client: push(client, "cache/app", name, image)):
            await asyncio.sleep(0.05)
        self.pushed[name] = image

    async def pull(self) -> None:
        """Pulls an image that was acknowledged, or one of the upstream."""
        if self.pushed and self.chance.random() < 0.6:
            name, image = self.chance.choice(list(self.pushed.items()))
            await self.try_once("pulls", lambda client: check(client, "cache/app", name, image))
        else:
            number = self.chance.randrange(len(self.upstream))
            image = self.upstream[number]
            await self.try_once("upstream pulls", lambda client: check(client, "team/app", f"{number}", image))

    async def delete(self) -> None:
        """Deletes the tag of an image until that is acknowledged; nobody pulls it meanwhile."""
        if len(self.pushed) < 4:
            return await asyncio.sleep(0.05)
        name = self.chance.choice(list(self.pushed))
        del self.pushed[name]

        async def untag(client: RegistryClient) -> None:
            try:
                await client.delete_tag("cache/app", name)
            except NotFound:
                self.counts["deletions done before"] += 1  # acknowledged by one that died before it could say so

        while not await self.try_once("deletions", untag):
            await asyncio.sleep(0.05)
        self.deleted.add(name)


async def check(client: RegistryClient, repository: str, tag: str, image: Image) -> None:
    """Reads an image whole. Raises AssertionError for any byte that is wrong."""
    reply = await client.get_manifest(repository, tag)
    assert reply.raw == image.manifest.raw
    for digest, data in image.blobs.items():
        got = bytearray()
        async with client.open_blob(repository, digest) as blob:
            async for chunk in blob.chunks:
                got += chunk
        assert bytes(got) == data, f"{digest}: {len(got)} bytes, and not the right ones"


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


async def keep_killing(replicas: list[Replica], load: Load, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.sleep(load.chance.uniform(0.3, 2.0))
        load.chance.choice(replicas).restart()
        load.counts["kills"] += 1


async def test_whoever_dies_nothing_that_was_acknowledged_is_lost(tmp_path: Path, registry: Registry) -> None:
    upstream = [make_image(number, 2_000_000) for number in range(UPSTREAM_IMAGES)]
    async with client_of(registry.url) as client:
        for number, image in enumerate(upstream):
            await push(client, "team/app", f"{number}", image)
    with cluster(tmp_path, registry) as (url, replicas):
        load, over = Load(url, random.Random(SEED), upstream), asyncio.Event()
        workers = [load.push, load.push, load.pull, load.pull, load.pull, load.delete]
        tasks = [asyncio.create_task(keep_doing(work, over)) for work in workers]
        tasks.append(asyncio.create_task(keep_killing(replicas, load, over)))
        await asyncio.sleep(LOAD_S)
        over.set()
        async with asyncio.timeout(90):
            await asyncio.gather(*tasks)
        for replica in replicas:
            replica.wait()
        for replica in replicas:
            async with client_of(replica.url) as client:
                for name, image in load.pushed.items():
                    await check(client, "cache/app", name, image)
                for name in load.deleted:
                    with pytest.raises(NotFound):
                        await client.get_manifest("cache/app", name)
                for number, image in enumerate(upstream):
                    await check(client, "team/app", f"{number}", image)
        for replica in replicas:
            replica.kill()
        swept, leases = await leftovers()
        load.counts["parts and files swept"] += swept.uploads + swept.files
        load.counts["leases of the dead"] += leases
        print(f"\nseed {SEED}, {LOAD_S:g} s: " + ", ".join(f"{count} {what}" for what, count in load.counts.items()))
        assert min(load.counts[what] for what in ("kills", "pushes", "pulls", "upstream pulls", "deletions")) > 0
