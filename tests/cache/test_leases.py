"""Leases: one holder at a time, taken over from the dead, and nobody's clock is trusted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache import paths
from cache.errors import StoreUnavailable
from cache.leases import Held, Leases, Other, remove_abandoned
from cache.memory import MemoryStore
from cache.store import Store

NAME = "fill/sha256/abc"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def held(leases: Leases, ttl_s: float = 10.0, dead: str = "") -> Held:
    taken = await leases.take(NAME, ttl_s, dead=dead)
    assert isinstance(taken, Held), taken
    return taken


async def test_of_many_at_once_one_gets_it(store: Store) -> None:
    taken = await asyncio.gather(*(Leases(store, f"r{n}").take(NAME, 10.0) for n in range(8)))
    holders = [number for number, lease in enumerate(taken) if isinstance(lease, Held)]
    assert len(holders) == 1
    assert {lease for lease in taken if isinstance(lease, Other)} == {Other(f"r{holders[0]}")}


async def test_a_released_lease_is_free_and_leaves_nothing(store: Store) -> None:
    one, two = Leases(store, "one"), Leases(store, "two")
    lease = await held(one)
    await one.release(lease)
    assert lease.lost.is_set()
    await two.release(await held(two))
    assert [name async for name in store.names("leases/")] == []


async def test_it_is_over_when_it_was_not_renewed_in_the_observers_time() -> None:
    store, clock = MemoryStore(), Clock()
    one, two = Leases(store, "one"), Leases(store, "two", clock)
    lease = await held(one)
    for clock.now in (100.0, 109.9):
        assert await two.take(NAME, 10.0) == Other("one"), "first seen at 100"
    await one.renew(lease, 10.0)
    clock.now = 111.0
    assert await two.take(NAME, 10.0) == Other("one"), "renewed: seen anew"
    clock.now = 121.0
    await held(two)
    await one.renew(lease, 10.0)
    assert lease.lost.is_set()
    assert not isinstance(await Leases(store, "three").take(NAME, 10.0), Held)


async def test_a_holder_that_was_fenced_off_takes_nothing_away() -> None:
    store = MemoryStore()
    one, two = Leases(store, "one"), Leases(store, "two")
    old = await held(one)
    await held(two, dead="one")
    await one.release(old)
    assert await Leases(store, "three").take(NAME, 10.0) == Other("two")


async def test_it_is_taken_from_the_dead_alone() -> None:
    store = MemoryStore()
    await held(Leases(store, "one"))
    assert await Leases(store, "two").take(NAME, 10.0, dead="three") == Other("one")
    await held(Leases(store, "two"), dead="one")


async def test_our_own_earlier_life_holds_nothing() -> None:
    store = MemoryStore()
    await held(Leases(store, "one"))
    await held(Leases(store, "one"))


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff"])
async def test_what_nobody_can_read_is_over(damage: bytes) -> None:
    store = MemoryStore()
    await store.put(paths.lease(NAME), damage)
    await held(Leases(store, "one"))


async def test_while_it_is_kept_it_is_renewed() -> None:
    store, clock = MemoryStore(), Clock()
    one, two = Leases(store, "one"), Leases(store, "two", clock)
    lease = await held(one, ttl_s=0.06)
    first = lease.version
    async with one.kept(lease, 0.06):
        async with asyncio.timeout(5):
            while lease.version == first:
                await asyncio.sleep(0.01)
        assert await two.take(NAME, 0.06) == Other("one")
    await held(two)


async def fails(*_: object) -> str:
    raise StoreUnavailable("memory:", "write", "it is away")


async def hangs(*_: object) -> str:
    await asyncio.Event().wait()
    return ""


@pytest.mark.parametrize("outcome", [StoreUnavailable("memory:", "write", "it is away"), asyncio.CancelledError()])
async def test_a_renewal_that_was_given_up_and_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, outcome: BaseException
) -> None:
    store = MemoryStore()
    one, put = Leases(store, "one"), store.put
    lease = await held(one)

    async def late(*arguments: Any) -> str:
        await put(*arguments)
        raise outcome

    for work in (one.renew(lease, 10.0), one.release(lease)):
        with monkeypatch.context() as patch:
            patch.setattr(store, "put", late)
            with pytest.raises(type(outcome)):
                await one.renew(lease, 10.0)
        assert not lease.lost.is_set()
        await work
    assert [name async for name in store.names("leases/")] == []


@pytest.mark.parametrize("put", [fails, hangs])
async def test_who_cannot_renew_stops_claiming_it(monkeypatch: pytest.MonkeyPatch, put: object) -> None:
    store = MemoryStore()
    one = Leases(store, "one")
    lease = await held(one, ttl_s=0.06)
    async with one.kept(lease, 0.06):
        monkeypatch.setattr(store, "put", put)
        async with asyncio.timeout(5):
            await lease.lost.wait()


async def test_those_go_that_nobody_renews(store: Store) -> None:
    live, dead = Leases(store, "live"), Leases(store, "dead")
    kept = await live.take("kept", 20.0)
    assert isinstance(kept, Held)
    for name, ttl_s in (("left", 15.0), ("again", 15.0), ("for ever", 1e9)):
        await dead.take(name, ttl_s)
    await store.put(paths.lease("damaged"), b"{")
    waited = []

    async def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        await live.renew(kept, 20.0)
        await store.remove(paths.lease("again"))
        await dead.take("again", 15.0)

    assert await remove_abandoned(store, meanwhile) == 2
    assert waited == [20.0]
    assert {name async for name in store.names(paths.LEASES)} == {
        paths.lease(name) for name in ("kept", "again", "for ever")
    }
    await live.renew(kept, 20.0)
    assert not kept.lost.is_set()


async def test_where_there_are_none_nobody_waits() -> None:
    async def never(seconds: float) -> None:
        raise AssertionError(seconds)

    assert await remove_abandoned(MemoryStore(), never) == 0
