"""A clock that is wrong deletes nothing that is young."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.pruned import DAY, ages, fill, ids, retention
from support.stores import Database

from edgeq.store.store import Store
from edgeq.testing import FakeClock
from edgeq.testing.clock import NOON
from edgeq.units import Duration
from edgeq.upkeep.retention import Retention
from edgeq.upkeep.witness import JUMP_SECONDS_MAX, Seen, Witness

YEARS_10 = 3653 * 86_400.0
KEPT = ages(
    events=Duration(30 * 86_400), dead_letters=Duration(86_400), notifications=Duration(86_400), jobs=Duration(60)
)


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.synchronise(False)
    return clock


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[Store]:
    async with database.opened(clock=clock) as store:
        yield store


def anew(store: Store, clock: FakeClock) -> Retention:
    """As after a start."""
    return retention(store, clock, KEPT)


async def test_a_clock_that_says_1970_deletes_nothing(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now() - 40 * DAY, clock.now()])
    await retention(store, FakeClock(now=100)).look()
    assert await ids(store) == [1, 2]


async def test_from_1970_to_now_deletes_only_what_is_old(store: Store, clock: FakeClock) -> None:
    """What was stored without a clock is as old as what was stored next with one."""
    await fill(store, [5, 6, NOON - 40 * DAY, 7, 8, NOON - 29 * DAY, 9])
    clock.synchronise()
    await anew(store, clock).look()
    assert await ids(store) == [4, 5, 6, 7]
    clock.advance(2 * 86_400)
    await anew(store, clock).look()
    assert await ids(store) == [7], "nobody knows yet how old the last one is"


@pytest.mark.parametrize("restarted", [False, True])
async def test_ten_years_forward_by_a_clock_that_is_not_synchronised_delete_nothing(
    store: Store, clock: FakeClock, restarted: bool
) -> None:
    await fill(store, [clock.now() - 20 * DAY, clock.now()])
    upkeep = anew(store, clock)
    await upkeep.look()
    clock.step(YEARS_10)
    for _ in range(3):
        await fill(store, [clock.now()])
        upkeep = anew(store, clock) if restarted else upkeep
        await upkeep.look()
        assert (await ids(store))[:2] == [1, 2]
        assert upkeep.doubts_clock
        clock.advance(3600)
    clock.step(-YEARS_10)
    clock.synchronise()
    clock.advance(11 * 86_400)
    await upkeep.look()
    assert (await ids(store))[:1] == [2]
    assert not upkeep.doubts_clock


async def test_after_as_long_as_anything_is_kept_the_clock_is_believed(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now()])
    upkeep = anew(store, clock)
    await upkeep.look()
    clock.step(YEARS_10)
    for days in range(91):
        await upkeep.look()
        assert upkeep.doubts_clock, days
        clock.advance(86_400)
    await upkeep.look()
    assert not upkeep.doubts_clock
    assert await ids(store) == []


async def test_a_clock_that_is_believed_may_leap(store: Store, clock: FakeClock) -> None:
    await fill(store, [clock.now()])
    upkeep = anew(store, clock)
    await upkeep.look()
    clock.synchronise()
    clock.step(31 * 86_400)
    await upkeep.look()
    assert await ids(store) == []


async def test_what_is_believed_outlives_a_start_and_costs_a_write_an_hour(
    database: Database, store: Store, clock: FakeClock
) -> None:
    await fill(store, [clock.now()])
    upkeep = anew(store, clock)
    await upkeep.look()
    before = database.written()
    clock.advance(7200)
    await upkeep.look()
    if database.kind == "sqlite":
        assert database.written() == before, "nothing has come since"
    await fill(store, [clock.now()])
    await upkeep.look()
    before = database.written()
    await fill(store, [clock.now()])
    written = database.written()
    clock.advance(1800)
    await upkeep.look()
    assert before != written
    if database.kind == "sqlite":
        assert database.written() == written, "an hour hasn't passed"
    clock.step(YEARS_10)
    other = anew(store, clock)
    await other.look()
    assert other.doubts_clock


def test_little_steps_and_time_off_are_believed() -> None:
    clock = FakeClock()
    clock.synchronise(False)
    witness = Witness(clock, 90 * DAY)
    witness.begin(Seen(clock.now()))
    clock.advance(100)
    assert witness.now() == clock.now()
    clock.step(JUMP_SECONDS_MAX)
    assert witness.now() == clock.now()
    clock.step(-3600)
    assert witness.now() == clock.now(), "earlier deletes less"
    clock.step(3600)
    assert witness.now() == clock.now()
    clock.step(JUMP_SECONDS_MAX + 1)
    assert witness.now() == clock.now() - (JUMP_SECONDS_MAX + 1) * 1_000_000


def test_a_first_look_believes() -> None:
    clock = FakeClock()
    clock.synchronise(False)
    witness = Witness(clock, DAY)
    witness.begin(Seen(5))
    assert (witness.now(), witness.doubts) == (clock.now(), False)
