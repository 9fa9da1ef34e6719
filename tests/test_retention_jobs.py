"""Finished jobs go when they are older than they are to be kept, by state, and not before."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
from support.job_table import SECOND, new
from support.stores import Database

from edgeq.config.schema import JobRetention
from edgeq.config.schema import Retention as Ages
from edgeq.store import dead_letters, jobs
from edgeq.store.store import Store
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until
from edgeq.units import Duration
from edgeq.upkeep.pruner import ROWS_AT_ONCE
from edgeq.upkeep.retention import Retention

DAY = 86_400 * SECOND
AGES = Ages(jobs=JobRetention(completed=Duration(86_400), cancelled=Duration(2 * 86_400), dead=Duration(3 * 86_400)))


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[Store]:
    async with database.opened(clock=clock) as store:
        yield store


async def finished(store: Store, state: str, at: int, count: int = 1, queue: str = "default") -> None:
    def unit(tx: object) -> None:
        added = jobs.add(tx, [new(queue=queue) for _ in range(count)])  # type: ignore[arg-type]
        for one in added:
            tx.run(Jobs.update(state=state, finished_at=at).where(Jobs.id == one.id))  # type: ignore[attr-defined]

    await store.write(unit)


async def left(store: Store) -> Counter[str]:
    return Counter(job.state for job in await jobs.find(store, limit=100_000))


def retention(store: Store, clock: FakeClock, ages: Ages = AGES) -> Retention:
    return Retention(ages, store, clock, Metrics())


async def test_each_state_has_its_age(store: Store, clock: FakeClock) -> None:
    for state in jobs.FINISHED:
        await finished(store, state, clock.now())
        await finished(store, state, clock.now(), queue="other")
    await store.write(lambda tx: jobs.add(tx, [new()]))
    upkeep = retention(store, clock)
    for days, states in (
        (0, {"completed": 2, "cancelled": 2, "dead": 2}),
        (1, {"cancelled": 2, "dead": 2}),
        (1, {"dead": 2}),
        (1, {}),
    ):
        clock.advance(days * 86_400)
        await upkeep.look()
        assert await left(store) == {**dict.fromkeys(states, 2), "available": 1}, "exactly at its age a job is kept"
        clock.advance(0.000001)


async def test_one_age_is_that_of_what_completed_or_was_cancelled(store: Store, clock: FakeClock) -> None:
    for state in jobs.FINISHED:
        await finished(store, state, clock.now() - 10 * DAY)
    await retention(store, clock, Ages(jobs=Duration(3600))).look()
    assert await left(store) == {"dead": 1}


async def test_many_go_in_small_units(store: Store, clock: FakeClock) -> None:
    await finished(store, "completed", clock.now() - 2 * DAY, count=2 * ROWS_AT_ONCE + 7)
    await finished(store, "completed", clock.now() - DAY + 1)
    metrics = Metrics()
    upkeep = Retention(AGES, store, clock, metrics)
    await upkeep.look()
    assert await left(store) == {"completed": 1}
    assert metrics.purged.values == {"completed": 2 * ROWS_AT_ONCE + 7, "cancelled": 0, "dead": 0}


async def test_what_ended_before_the_clock_was_set_counts_from_then_on(store: Store, clock: FakeClock) -> None:
    await finished(store, "dead", 5 * SECOND)
    upkeep = retention(store, clock)
    await upkeep.look()
    clock.advance(3 * 86_400)
    await upkeep.look()
    assert await left(store) == {"dead": 1}
    clock.advance(1)
    await upkeep.look()
    assert await left(store) == {}


async def test_with_a_clock_that_says_1970_nothing_goes(store: Store, clock: FakeClock) -> None:
    await finished(store, "completed", clock.now())
    await retention(store, FakeClock(now=100 * SECOND)).look()
    assert await left(store) == {"completed": 1}


async def test_nothing_due_writes_nothing(database: Database, store: Store, clock: FakeClock) -> None:
    await finished(store, "completed", clock.now())
    before = database.written()
    await retention(store, clock).look()
    assert database.written() == before


async def test_the_dead_letter_of_a_job_that_goes_stays(store: Store, clock: FakeClock) -> None:
    letter = dead_letters.NewDeadLetter(source="job:default", reason="failed", error="no", job_id=1, created_at=1)
    await finished(store, "dead", clock.now() - 10 * DAY)
    await store.write(lambda tx: dead_letters.add(tx, [letter]))
    await retention(store, clock).look()
    assert await left(store) == {}
    assert [letter.job_id for letter in await dead_letters.find(store, limit=10)] == [1]


async def test_the_service_looks_at_once_and_ends_when_told(store: Store, clock: FakeClock) -> None:
    await finished(store, "completed", clock.now() - 2 * DAY)
    upkeep = retention(store, clock)
    await upkeep.start()

    async def gone() -> bool:
        return not await left(store)

    await until(gone, "the job to go", store=store)
    await upkeep.stop()
