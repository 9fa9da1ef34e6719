"""A limit that jobs of several queues share: none of them waits for ever for a queue that nobody works on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.job_table import NOW, SECOND, add, claim, end, ids, new, opened, outlook
from support.stores import Database

from edgeq.store import queues
from edgeq.store.claims import BreakerSettings, Completed, Rate, Retried
from edgeq.store.jobs import Limit
from edgeq.store.store import Store
from edgeq.store.turns import TURN_SECONDS

ONE = Limit("gpu", concurrency=1)
TURN = TURN_SECONDS


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


async def test_a_place_that_a_paused_queue_holds_goes_to_another(store: Store) -> None:
    await add(store, new(queue="video", limit=ONE), new(queue="video", limit=ONE), new(limit=ONE))
    await store.write(lambda tx: queues.pause(tx, "video"))
    assert await claim(store) == []
    look = await outlook(store)
    assert (look.ready, look.next_at) == (False, NOW + round(TURN * SECOND))
    [job] = await claim(store, at=TURN)
    assert job.id == 3
    await store.write(lambda tx: queues.resume(tx, "video"))
    assert await claim(store, 5, queue="video", at=TURN) == [], "its place is taken"
    await end(store, Completed(job, "1"), at=TURN)
    assert ids(await claim(store, 5, queue="video", at=TURN)) == [1]


async def test_a_place_goes_round_until_somebody_takes_it(store: Store) -> None:
    await add(store, *(new(queue=name, limit=ONE) for name in ("a", "b", "c", "d")))
    found = [ids(await claim(store, queue="d", at=number * TURN)) for number in range(5)]
    assert found == [[], [], [], [4], []]


async def test_who_works_on_a_queue_without_such_jobs_may_pass_a_place_on(store: Store) -> None:
    await add(store, new(queue="a", limit=ONE), new(queue="b", limit=ONE))
    for number in range(1, 4):
        assert await claim(store, queue="elsewhere", at=number * TURN) == []
        look = await outlook(store, queue="elsewhere", at=number * TURN)
        assert look.next_at == NOW + round((number + 1) * TURN * SECOND), "or it would go round and round"
    assert ids(await claim(store, queue="b", at=3 * TURN)) == [2]


async def test_dispatches_do_not_put_the_end_of_a_turn_off(store: Store) -> None:
    await add(store, new(queue="video", limit=ONE), new(limit=ONE))
    for second in range(1, 5):
        await add(store, new(at=second, limit=ONE))
        assert await claim(store, at=second) == []
    assert ids(await claim(store, at=TURN)) == [2]


async def test_a_queue_whose_rate_is_used_up_holds_up_nobody(store: Store) -> None:
    rate = Rate(3600 * SECOND)
    await add(store, new(queue="slow"), new(queue="slow", limit=ONE), new(limit=ONE))
    assert len(await claim(store, 5, queue="slow", rate=rate)) == 1
    assert await claim(store) == []
    assert ids(await claim(store, at=TURN)) == [3]


async def test_one_queue_alone_is_never_looked_at_for_that(store: Store) -> None:
    await add(store, *(new(limit=ONE) for _ in range(3)))
    assert (await outlook(store)).next_at is None
    [job] = await claim(store)
    assert (await outlook(store)).next_at is None
    await end(store, Completed(job, "1"))
    assert (await outlook(store)).next_at is None


async def test_a_place_passed_on_to_a_job_whose_dependency_is_broken_is_not_lost(store: Store) -> None:
    breakers = {"crm": BreakerSettings(failures=1, within_us=60 * SECOND, wait_us=1000 * SECOND)}
    await add(store, new(queue="b", needs="crm"), new(queue="a", limit=ONE), new(queue="b", limit=ONE, needs="crm"))
    await add(store, new(queue="c", limit=ONE))
    [job] = await claim(store, 1, queue="b", breakers=breakers)
    await end(store, Retried(job, NOW + 5000 * SECOND, "no route"), breakers=breakers)
    assert await claim(store, 5, queue="c", breakers=breakers) == []
    found = [ids(await claim(store, 5, queue="c", at=number * TURN, breakers=breakers)) for number in (1, 2, 3)]
    assert [4] in found
