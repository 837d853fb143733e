"""Replicas of their own processes that change the same hosted repository at once: what was acknowledged holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from cache.oci import media_types
from cache.oci.digest import Digest

REPLICAS = 3
TAGS = 4
ROUNDS = 10


@pytest.fixture(params=["file", "s3"], scope="module")
def urls(request: pytest.FixtureRequest) -> list[str]:
    """Replicas over one store."""
    if request.param == "s3":
        return [replica.url for replica in request.getfixturevalue("bucket_trio").replicas]
    return [replica.url for replica in request.getfixturevalue("trio")]


@asynccontextmanager
async def sessions(urls: list[str]) -> AsyncIterator[list[Replica]]:
    """A client of each replica."""
    async with aiohttp.ClientSession() as session:
        yield [Replica(session, f"{url}/v2/cache/app/manifests/") for url in urls]


class Replica:
    """One replica's manifests of one repository."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def put(self, tag: str, number: int) -> Digest:
        """Points the tag to the manifest of this number; gives its digest once that is acknowledged."""
        raw = b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"annotations":{"number":"%s"}}' % (
            media_types.OCI_INDEX.encode(),
            f"{tag}-{number}".encode(),
        )
        headers = {"Content-Type": media_types.OCI_INDEX}
        async with self._session.put(self._base + tag, data=raw, headers=headers) as reply:
            assert reply.status == 201, await reply.text()
        return Digest.of(raw)

    async def read(self, tag: str) -> str | None:
        """What the tag points to."""
        async with self._session.head(self._base + tag) as reply:
            assert reply.status in (200, 404)
            return reply.headers.get("Docker-Content-Digest")

    async def delete(self, reference: object) -> None:
        """Deletes a tag, or a manifest by digest, if it is there."""
        async with self._session.delete(f"{self._base}{reference}") as reply:
            assert reply.status in (202, 404), await reply.text()


async def test_a_tag_outlives_the_deletion_of_the_manifest_that_it_pointed_to(urls: list[str]):
    async def retag(tag: str, replicas: list[Replica]) -> None:
        one, two, three = replicas
        old = await one.put(tag, 0)
        for number in range(1, ROUNDS):
            new, _ = await asyncio.gather(one.put(tag, number), two.delete(old))
            assert await three.read(tag) == str(new)
            assert await three.read(str(old)) is None
            old = new

    async with sessions(urls) as replicas:
        turned = (replicas[n % REPLICAS :] + replicas[: n % REPLICAS] for n in range(TAGS))
        await asyncio.gather(*(retag(f"tag{n}", order) for n, order in enumerate(turned)))


async def test_of_tags_that_are_put_at_once_one_stays_for_all(urls: list[str]):
    async with sessions(urls) as replicas:
        for number in range(ROUNDS):
            put = await asyncio.gather(*(one.put("tag", number * REPLICAS + n) for n, one in enumerate(replicas)))
            seen = {await one.read("tag") for one in replicas}
            assert len(seen) == 1
            assert seen <= set(map(str, put))


async def test_after_a_put_that_meets_a_deletion_all_say_the_same_and_the_next_put_counts(urls: list[str]):
    async with sessions(urls) as replicas:
        one, two, three = replicas
        for number in range(ROUNDS):
            put, _ = await asyncio.gather(one.put("tag", number), two.delete("tag"))
            seen = {await replica.read("tag") for replica in replicas}
            assert seen in ({str(put)}, {None})
            again = await three.put("tag", number)
            assert {await replica.read("tag") for replica in replicas} == {str(again)}
