"""Once per key at a time."""

import asyncio

import pytest

from cache.singleflight import SingleFlight


class Work:
    """Counts its runs, and ends when told."""

    def __init__(self):
        self.runs = 0
        self.end = asyncio.Event()
        self.failure = None

    async def __call__(self):
        self.runs += 1
        run = self.runs
        await self.end.wait()
        if self.failure is not None:
            raise self.failure
        return run


@pytest.fixture
async def work():
    return Work()


async def start(flight, key, work, count=1):
    """So many callers who wait already."""
    tasks = [asyncio.create_task(flight.run(key, work)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_all_callers_get_the_one_result(work):
    flight = SingleFlight()
    callers = await start(flight, "key", work, 50)
    assert len(flight) == 1
    work.end.set()
    assert await asyncio.gather(*callers) == [1] * 50
    assert len(flight) == 0


async def test_the_next_call_starts_anew(work):
    flight = SingleFlight()
    work.end.set()
    assert [await flight.run("key", work), await flight.run("key", work)] == [1, 2]


async def test_keys_do_not_wait_for_each_other(work):
    flight = SingleFlight()
    other = Work()
    other.end.set()
    (caller,) = await start(flight, "slow", work)
    assert await flight.run("quick", other) == 1
    work.end.set()
    assert await caller == 1


async def test_all_callers_get_the_one_exception(work):
    flight = SingleFlight()
    work.failure = LookupError("nothing there")
    callers = await start(flight, "key", work, 5)
    work.end.set()
    assert await asyncio.gather(*callers, return_exceptions=True) == [work.failure] * 5
    assert work.runs == 1
    work.failure = None
    assert await flight.run("key", work) == 2


async def test_the_work_goes_on_when_the_first_caller_leaves(work):
    flight = SingleFlight()
    first, second = await start(flight, "key", work, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.end.set()
    assert await second == 1


async def test_the_work_goes_on_when_everybody_leaves(work):
    flight = SingleFlight()
    callers = await start(flight, "key", work, 3)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    (late,) = await start(flight, "key", work)
    work.end.set()
    assert await late == 1
    assert work.runs == 1


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_unhandled(work):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    flight = SingleFlight()
    (caller,) = await start(flight, "key", work)
    caller.cancel()
    await asyncio.wait([caller])
    work.failure = LookupError()
    work.end.set()
    while len(flight):
        await asyncio.sleep(0)
    assert reported == []


async def test_closing_ends_all_work(work):
    flight = SingleFlight()
    (caller,) = await start(flight, "key", work)
    await flight.close()
    assert len(flight) == 0
    with pytest.raises(asyncio.CancelledError):
        await caller
