"""Limits of keys and rates of queues: who may begin, when the next may, and what frees a place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.job_table import (
    NOW,
    SECOND,
    add,
    cancel,
    change,
    claim,
    end,
    ids,
    moment,
    new,
    one,
    opened,
    outlook,
    rescue,
    retry,
)  # fmt: skip
from support.stores import Database

from edgeq.store import jobs, limits, queues
from edgeq.store.claims import Buried, Completed, End, Rate, Released, Rescued, Retried, Snoozed
from edgeq.store.jobs import Limit, NewJob, StoredJob
from edgeq.store.rates import Rate as PlainRate
from edgeq.store.store import Store
from edgeq.store.tables import Jobs, Limits, Queues

YEAR = 365 * 86400.0
TWO = Limit("pump", concurrency=2)
EVERY_10S = Limit("pump", interval_us=10 * SECOND)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


def some(number: int, limit: Limit, **more: Any) -> list[NewJob]:
    return [new(limit=limit, **more) for _ in range(number)]


async def rows(store: Store) -> int:
    return len(await store.read(Limits.select()))


# How many at once

ENDS: dict[str, Callable[[StoredJob], End]] = {
    "completed": lambda job: Completed(job, "1"),
    "retried": lambda job: Retried(job, NOW + 99 * SECOND, "again"),
    "snoozed": lambda job: Snoozed(job, NOW + 99 * SECOND),
    "buried": lambda job: Buried(job, "failed", "over"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_no_more_than_the_limit_run_at_once_and_each_end_lets_one_on(store: Store, name: str) -> None:
    await add(store, *some(5, TWO))
    first, second = await claim(store, 5)
    assert (first.id, second.id) == (1, 2)
    assert await claim(store, 5) == []
    assert not (await outlook(store)).ready
    await end(store, ENDS[name](first))
    assert (await outlook(store)).ready
    assert ids(await claim(store, 5)) == [3]
    await end(store, ENDS[name](first), ENDS[name](second))
    assert ids(await claim(store, 5)) == [4], "the end of a claim that is over frees nothing"


async def test_one_that_is_given_back_keeps_its_turn(store: Store) -> None:
    await add(store, *some(3, TWO))
    first, _ = await claim(store, 5)
    await end(store, Released(first))
    assert ids(await claim(store, 5)) == [1]


async def test_a_limit_holds_for_its_key_only(store: Store) -> None:
    await add(store, *some(3, TWO), new(), *some(3, Limit("valve", concurrency=1)), new())
    assert ids(await claim(store, 9)) == [1, 2, 4, 5, 8]


async def test_a_limit_holds_over_all_queues(store: Store) -> None:
    await add(store, *some(2, TWO), *some(2, TWO, queue="video"))
    [first, _] = await claim(store, 5)
    assert await claim(store, 5, queue="video") == []
    await end(store, Completed(first, "1"))
    assert ids(await claim(store, 5, queue="video")) == [3]


async def test_who_waits_for_a_limit_goes_on_in_the_order_of_priority(store: Store) -> None:
    one_only = Limit("pump", concurrency=1)
    await add(store, *some(2, one_only))
    await add(store, *some(1, one_only, priority=10))
    for expected in (1, 3, 2):
        [job] = await claim(store)
        assert job.id == expected
        await end(store, Completed(job, "1"))


async def test_blocked_jobs_are_not_in_the_way_of_one_that_is_ready(store: Store) -> None:
    await add(store, *some(2000, Limit("pump", concurrency=1), priority=10), new())
    assert ids(await claim(store, 5)) == [1, 2001]
    [counted] = await jobs.counts(store, NOW)
    assert (counted["blocked"], counted["ready"], counted["available"]) == (1999, 0, 1999)


async def test_what_is_due_later_passes_its_limit_when_it_is_due(store: Store) -> None:
    one_only = Limit("pump", concurrency=1)
    await add(store, *some(2, one_only, after=5), *some(1, one_only))
    [running] = await claim(store, 5)
    assert running.id == 3
    assert await claim(store, 5, at=5) == []
    await end(store, Completed(running, "1"), at=6)
    assert ids(await claim(store, 5, at=6)) == [1]


async def test_a_cancelled_job_frees_the_place_that_it_had_and_no_other(store: Store) -> None:
    await add(store, *some(5, TWO))
    [running] = await claim(store)  # 2 was let on as well, and isn't claimed yet
    assert await cancel(store, 4) == 1
    assert ids(await claim(store, 5)) == [2], "a job that had to wait frees nothing"
    assert await cancel(store, running.id) == 1
    assert ids(await claim(store, 5)) == [3]
    assert await cancel(store, 3, 5) == 2
    assert await claim(store, 5) == []


async def test_one_that_was_let_on_and_is_cancelled_before_its_claim_makes_room(store: Store) -> None:
    await add(store, *some(3, Limit("pump", concurrency=1)))
    assert await cancel(store, 1) == 1
    assert ids(await claim(store, 5)) == [2]


async def test_the_place_of_a_worker_that_went_silent_is_free_again(store: Store) -> None:
    await add(store, *some(2, Limit("pump", concurrency=1), max_attempts=1), *some(1, Limit("pump", concurrency=1)))
    await claim(store)
    assert await rescue(store, 61) == [Rescued(1, dead=True)]
    assert ids(await claim(store, 5, at=61)) == [2]
    await rescue(store, 200)
    assert ids(await claim(store, 5, at=200)) == [3]
    assert await rescue(store, 300) == [Rescued(3, dead=False)]
    assert ids(await claim(store, 5, at=300)) == [3]


async def test_a_dead_job_that_is_retried_waits_for_its_limit_again(store: Store) -> None:
    one_only = Limit("pump", concurrency=1)
    await add(store, *some(2, one_only))
    [job] = await claim(store)
    await end(store, Buried(job, "failed", "over"))
    [running] = await claim(store, 5)
    assert await retry(store, 1) == 1
    assert (await one(store, 1)).blocked_by == "limit"
    assert await claim(store, 5) == []
    await end(store, Completed(running, "1"))
    [job] = await claim(store, 5)
    await end(store, Buried(job, "failed", "over"))
    assert await retry(store, 1) == 1
    assert ids(await claim(store, 5)) == [1], "there is room"


async def test_jobs_that_are_purged_leave_their_place_to_others(store: Store) -> None:
    await add(store, *some(1, EVERY_10S, queue="video"), *some(2, EVERY_10S))
    assert await claim(store, 5) == []

    def purge(tx: Any) -> int:
        return jobs.purge(tx, states=["available"], queue="video", finished_before=None, limit=10)

    assert await store.write(purge) == 1
    assert (await outlook(store)).next_at is not None
    assert ids(await claim(store, 5)) == [2]


async def test_the_limit_that_counts_is_that_of_the_job_whose_turn_it_is(store: Store) -> None:
    await add(store, *some(2, Limit("pump", concurrency=1)), *some(2, Limit("pump", concurrency=3)))
    [first] = await claim(store, 5)
    await end(store, Completed(first, "1"))
    assert ids(await claim(store, 5)) == [2]
    [counted] = await jobs.counts(store, NOW)
    assert counted["blocked"] == 2
    await cancel(store, 2)
    assert ids(await claim(store, 5)) == [3, 4]


async def test_a_limit_that_can_not_be_read_any_more_holds_nothing_up(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, *some(2, Limit("pump", concurrency=1)))
    options = '{"limit":{"key":"pump","interval_us":0}}'
    await change(store, Jobs.update({Jobs.options: options}).where(Jobs.id == 2))
    [first] = await claim(store, 5)
    await end(store, Completed(first, "1"))
    assert ids(await claim(store, 5)) == [2]
    assert "options can't be read" in caplog.text


async def test_very_many_are_let_on_in_portions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADMITTED_AT_ONCE_MAX", 10)
    await add(store, *some(25, Limit("pump", concurrency=100)))
    [counted] = await jobs.counts(store, NOW)
    assert (counted["ready"], counted["blocked"]) == (10, 15)
    assert (await outlook(store)).next_at == NOW
    assert [len(await claim(store, 100)) for _ in range(3)] == [20, 5, 0]


async def test_a_limit_that_limits_nothing_blocks_nobody(store: Store) -> None:
    await add(store, *some(3, Limit("pump")))
    assert len(await claim(store, 5)) == 3


@pytest.mark.parametrize(
    "limit",
    [
        Limit("pump", concurrency=0),
        Limit("pump", interval_us=-1),
        Limit("pump", interval_us=2**40, burst=2**40),
        Limit("pump\0"),
        Limit("\udcff"),
    ],
)
async def test_a_limit_that_can_not_be_kept_is_refused(store: Store, limit: Limit) -> None:
    with pytest.raises(ValueError, match="limit"):
        await add(store, new(limit=limit))


# How often


async def test_a_rate_lets_one_on_when_its_time_has_come_and_not_before(store: Store) -> None:
    await add(store, *some(3, EVERY_10S))
    [first] = await claim(store, 5)
    await end(store, Completed(first, "1"), at=1)
    assert (await outlook(store, at=1)).next_at == moment(10)
    assert await claim(store, 5, at=9.999999) == []
    assert ids(await claim(store, 5, at=10)) == [2]
    assert (await outlook(store, at=10)).next_at == moment(20)
    assert ids(await claim(store, 5, at=20)) == [3]
    assert (await outlook(store, at=20)).next_at is None, "nobody waits any more"


async def test_after_a_pause_no_more_begin_at_once_than_the_burst(store: Store) -> None:
    await add(store, *some(20, Limit("pump", interval_us=10 * SECOND, burst=3)))
    assert len(await claim(store, 20)) == 3
    assert len(await claim(store, 20, at=10)) == 1
    assert len(await claim(store, 20, at=1000)) == 3, "the worker was away"
    assert len(await claim(store, 20, at=1019)) == 1
    assert len(await claim(store, 20, at=1020)) == 1


async def test_those_that_were_let_on_and_not_claimed_are_no_more_than_may_begin(store: Store) -> None:
    limit = Limit("pump", interval_us=10 * SECOND, burst=2)
    await add(store, *some(10, limit))
    assert len(await claim(store, 1)) == 1
    await add(store, new(limit=limit, at=500))
    assert len(await claim(store, 20, at=1000)) == 2


async def test_an_attempt_that_ended_at_once_has_used_up_its_share(store: Store) -> None:
    await add(store, *some(1, EVERY_10S))
    [job] = await claim(store)
    await end(store, Released(job), at=1)
    assert await claim(store, at=9) == []
    [job] = await claim(store, at=10)
    await end(store, Retried(job, moment(11), "again"), at=10)
    assert await claim(store, at=11) == []
    assert ids(await claim(store, at=20)) == [1]


async def test_rate_and_concurrency_of_one_key(store: Store) -> None:
    await add(store, *some(5, Limit("pump", concurrency=1, interval_us=10 * SECOND, burst=2)))
    [first] = await claim(store, 5)
    assert await claim(store, 5, at=50) == []
    assert (await outlook(store, at=50)).next_at is None, "only its end makes room"
    await end(store, Completed(first, "1"), at=60)
    [second] = await claim(store, 5, at=60)
    await end(store, Completed(second, "1"), at=60)
    [third] = await claim(store, 5, at=60)
    await end(store, Completed(third, "1"), at=61)
    assert (await outlook(store, at=61)).next_at == moment(70)
    assert ids(await claim(store, 5, at=70)) == [4]


async def test_a_clock_that_is_set_back_costs_a_rate_no_more_than_one_interval(store: Store) -> None:
    await add(store, *some(3, EVERY_10S))
    await claim(store, 5, at=YEAR)
    assert (await outlook(store, at=0)).next_at == NOW, "whoever looks reckons anew"
    assert await claim(store, 5, at=0) == []
    assert (await outlook(store, at=0)).next_at == moment(10)
    assert ids(await claim(store, 5, at=10)) == [2]


async def test_a_clock_that_is_set_back_a_little_keeps_nobody_busy(store: Store) -> None:
    await add(store, *some(1, EVERY_10S))
    await claim(store, 5, at=1)
    await add(store, *some(1, EVERY_10S, at=5))
    assert (await outlook(store, at=5)).next_at == moment(11)
    assert await claim(store, 5, at=4) == []
    assert (await outlook(store, at=4)).next_at == moment(11)


async def test_a_rate_used_in_a_time_that_has_not_come_yet_is_cut(store: Store) -> None:
    await add(store, *some(1, EVERY_10S))
    await claim(store, 5, at=YEAR)
    await add(store, *some(1, EVERY_10S))
    assert await claim(store, 5, at=0) == []
    assert ids(await claim(store, 5, at=10)) == [2]


async def test_keys_whose_rate_is_all_there_again_are_forgotten(store: Store) -> None:
    for number in range(30):
        await add(store, new(limit=Limit(f"order-{number}", interval_us=SECOND), at=number))
        assert len(await claim(store, at=number)) == 1
    assert await rows(store) <= 3


async def test_a_dispatch_that_is_committed_long_after_it_was_made_gets_no_more_of_a_rate(store: Store) -> None:
    await add(store, new(limit=EVERY_10S))
    assert len(await claim(store, at=100)) == 1
    await add(store, new(limit=EVERY_10S))  # as by a job that dispatched at 0 and ended at 101
    assert [len(await claim(store, at=seconds)) for seconds in (101, 105, 109, 110)] == [0, 0, 0, 1]


def test_what_is_left_of_a_rate() -> None:
    rate = PlainRate(10, burst=3)
    assert rate.left(rate.full_at(None, 1000), 1000) == 3
    used = rate.taken(rate.full_at(None, 1000), 3)
    assert [rate.left(rate.full_at(used, now), now) for now in (1000, 1009, 1010, 1029, 1030, 9999)] == [
        0,
        0,
        1,
        2,
        3,
        3,
    ]
    assert [rate.next_at(used, number) for number in (1, 2, 3)] == [1010, 1020, 1030]
    assert rate.full_at(used, 500) == 530, "the clock was set back"


# Queues


async def test_the_rate_of_a_queue(store: Store) -> None:
    rate = Rate(10 * SECOND, burst=2)
    await add(store, *(new() for _ in range(9)), new(queue="video"))
    assert len(await claim(store, 9, rate=rate)) == 2
    assert len(await claim(store, 9, queue="video")) == 1
    found = await outlook(store)
    assert (found.ready, found.next_at) == (False, moment(10))
    assert await claim(store, 9, at=9.999999, rate=rate) == []
    assert (await outlook(store, at=10)).ready
    assert len(await claim(store, 9, at=10, rate=rate)) == 1
    assert len(await claim(store, 9, at=1000, rate=rate)) == 2, "the worker was away"


async def test_a_claim_of_fewer_than_the_rate_allows_leaves_the_rest(store: Store) -> None:
    rate = Rate(10 * SECOND, burst=3)
    await add(store, *(new() for _ in range(9)))
    assert len(await claim(store, 1, rate=rate)) == 1
    assert (await outlook(store)).ready
    assert len(await claim(store, 9, rate=rate)) == 2
    assert (await outlook(store)).next_at == moment(10)


async def test_a_queue_whose_clock_was_set_back_waits_one_interval(store: Store) -> None:
    rate = Rate(10 * SECOND)
    await add(store, new(), new())
    assert len(await claim(store, 9, at=YEAR, rate=rate)) == 1
    assert await claim(store, 9, rate=rate) == []
    assert (await outlook(store)).next_at == moment(10)
    assert len(await claim(store, 9, at=10, rate=rate)) == 1


async def test_a_rate_that_was_taken_away_holds_nothing_up(store: Store) -> None:
    await add(store, new(), new())
    await claim(store, 9, rate=Rate(3600 * SECOND))
    assert len(await claim(store, 9)) == 1
    [row] = await store.read(Queues.select(Queues.rate_at))
    assert row == (0,)


async def test_a_rate_with_nothing_to_do_wakes_nobody(store: Store) -> None:
    await add(store, new(), new(after=3))
    assert len(await claim(store, rate=Rate(10 * SECOND))) == 1
    found = await outlook(store)
    assert (found.ready, found.next_at) == (False, moment(3))
    found = await outlook(store, at=3)
    assert (found.ready, found.next_at) == (False, moment(10))


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(store: Store) -> None:
    await add(store, new(), new(queue="video"), new(after=1))
    seen = store.signal.version("jobs")
    assert await store.write(lambda tx: queues.pause(tx, "default")) is True
    assert await store.write(lambda tx: queues.pause(tx, "default")) is False
    assert await queues.paused(store) == {"default"}
    assert await claim(store, 5, at=2) == []
    found = await outlook(store, at=2)
    assert (found.paused, found.ready, found.next_at) == (True, False, None)
    assert len(await claim(store, 5, queue="video")) == 1
    assert [row["paused"] for row in await jobs.counts(store, NOW)] == [True, False]
    assert await store.write(lambda tx: queues.resume(tx, "default")) is True
    assert store.signal.version("jobs") > seen, "its workers are woken"
    assert ids(await claim(store, 5, at=2)) == [1, 3]
    assert await store.write(lambda tx: queues.resume(tx, "never-seen")) is False


async def test_a_pause_keeps_what_is_known_of_the_rate(store: Store) -> None:
    rate = Rate(10 * SECOND)
    await add(store, new(), new())
    await claim(store, 5, rate=rate)
    await store.write(lambda tx: queues.pause(tx, "default"))
    await store.write(lambda tx: queues.resume(tx, "default"))
    assert await claim(store, 5, at=9, rate=rate) == []
    assert len(await claim(store, 5, at=10, rate=rate)) == 1


@pytest.mark.parametrize("name", ["\udcff", "a\0b", "x" * 100_000])
async def test_a_queue_of_any_name_can_be_paused(store: Store, name: str) -> None:
    assert await store.write(lambda tx: queues.pause(tx, name)) is True
    assert len(await queues.paused(store)) == 1
