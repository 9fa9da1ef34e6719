"""Breakers: a dependency that fails again and again is left alone, its jobs wait, and one at a time tries it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.job_table import (
    NOW,
    SECOND,
    add,
    cancel,
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

from edgeq.store import breakers, jobs, queues
from edgeq.store.breakers import BreakerSettings, StoredBreaker
from edgeq.store.claims import Buried, Completed, End, Released, Rescued, Retried, Snoozed
from edgeq.store.jobs import Limit, NewJob, StoredJob
from edgeq.store.store import Store

YEAR = 365 * 86400.0
CRM = {"crm": BreakerSettings(failures=2, within_us=60 * SECOND, wait_us=30 * SECOND)}


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


def some(number: int, **more: Any) -> list[NewJob]:
    return [new(needs="crm", **more) for _ in range(number)]


def failed(job: StoredJob, *, at: float = 0.0, **more: Any) -> Retried:
    return Retried(job, moment(at + 5), "no route\nto host", **more)


async def take(store: Store, limit: int = 1, *, at: float = 0.0, queue: str = "default") -> list[StoredJob]:
    return await claim(store, limit, at=at, queue=queue, breakers=CRM)


async def finish(store: Store, *ends: End, at: float = 0.0) -> list[bool]:
    return await end(store, *ends, at=at, breakers=CRM)


async def crm(store: Store) -> StoredBreaker:
    [found] = await breakers.all(store)
    return found


async def broken(store: Store, jobs_in_all: int, **more: Any) -> list[StoredJob]:
    """So many jobs that need a dependency which has just broken at the first two of them; the two that failed."""
    await add(store, *some(jobs_in_all, **more))
    two = await take(store, 2)
    assert len(two) == 2
    await finish(store, *(failed(job, at=1000) for job in two))
    assert (await crm(store)).state == "open"
    return two


# Opening


async def test_it_opens_at_so_many_failures_in_a_row(store: Store) -> None:
    await add(store, *some(4))
    first, second = await take(store, 2)
    await finish(store, failed(first, at=1000), at=1)
    assert await crm(store) == StoredBreaker("crm", "closed", failures=1, failed_at=moment(1), error="no route")
    assert len(await take(store, at=2)) == 1
    await finish(store, failed(second, at=1000), at=3)
    assert await crm(store) == StoredBreaker(
        "crm", "open", failures=2, failed_at=moment(1), opened_at=moment(3), probe_at=moment(33), error="no route"
    )
    assert await take(store, 5, at=3) == []
    assert (await outlook(store, at=3)).next_at == moment(33)


async def test_a_success_in_between_begins_the_count_anew(store: Store) -> None:
    await add(store, *some(3))
    first, second, third = await take(store, 3)
    await finish(store, failed(first), Completed(second, "1"), failed(third))
    assert await crm(store) == StoredBreaker("crm", "closed", failures=1, failed_at=NOW, error="no route")


@pytest.mark.parametrize(("seconds", "state"), [(60, "open"), (60.000001, "closed"), (-YEAR, "closed")])
async def test_failures_count_together_only_within_their_time(store: Store, seconds: float, state: str) -> None:
    await add(store, *some(2))
    first, second = await take(store, 2)
    await finish(store, failed(first))
    await finish(store, failed(second), at=seconds)
    assert (await crm(store)).state == state


@pytest.mark.parametrize(
    "ending",
    [lambda job: Snoozed(job, NOW), Released, lambda job: Buried(job, "undecodable", "what?")],
)
async def test_what_says_nothing_of_the_dependency_does_not_count(
    store: Store, ending: Callable[[StoredJob], End]
) -> None:
    await add(store, *some(2))
    first, second = await take(store, 2)
    await finish(store, ending(first), ending(second))
    assert await breakers.all(store) == []


async def test_the_end_of_a_claim_that_is_lost_does_not_count(store: Store) -> None:
    await add(store, *some(1))
    [job] = await take(store)
    await rescue(store, 61)
    assert await finish(store, failed(job), failed(job)) == [False, False]
    assert await breakers.all(store) == []


async def test_one_failure_is_enough_when_one_is_allowed(store: Store) -> None:
    await add(store, *some(1))
    [job] = await take(store)
    await end(store, failed(job), breakers={"crm": BreakerSettings(failures=1)})
    assert (await crm(store)).state == "open"


# While it is open


async def test_no_attempt_counts_while_it_is_not_closed(store: Store) -> None:
    await add(store, *some(3))
    first, second, third = await take(store, 3)
    await finish(store, failed(first), failed(second), failed(third))
    assert [(await one(store, id_)).attempt for id_ in (1, 2, 3)] == [1, 0, 0], "the one that opened it is free, too"
    assert (await one(store, 2)).state == "retryable"


async def test_the_last_attempt_of_a_job_kills_it_only_if_it_counts(store: Store) -> None:
    await add(store, *some(2, max_attempts=1))
    first, second = await take(store, 2)
    assert await finish(store, failed(first, last=True)) == [False]
    assert await one(store, 1) == first, "nothing was changed, but that it failed is known"
    assert await finish(store, Buried(first, "failed", "over"), failed(second, last=True)) == [True, True]
    job = await one(store, 2)
    assert (job.state, job.attempt) == ("retryable", 0)
    assert (await crm(store)).failures == 2


async def test_jobs_that_need_something_else_or_nothing_run(store: Store) -> None:
    await broken(store, 5)
    await add(store, new(), new(needs="erp"))
    assert ids(await take(store, 5)) == [6, 7]


async def test_whatever_becomes_available_meanwhile_waits_as_well(store: Store) -> None:
    await add(store, *some(1, after=20))
    await broken(store, 3, max_attempts=1)
    await add(store, *some(1))
    assert (await one(store, 5)).blocked_by == "breaker"
    assert await take(store, 9, at=25) == []
    for job_id in (1, 4, 5):
        assert (await one(store, job_id)).blocked_by == "breaker"
    [counted] = await jobs.counts(store, NOW)
    assert (counted["blocked"], counted["ready"], counted["delayed"]) == (3, 0, 2)


async def test_many_are_blocked_in_portions_when_a_claim_meets_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "PARKED_AT_ONCE_MAX", 10)
    await broken(store, 102)
    await add(store, new())
    blocked = [0]
    while not (taken := ids(await take(store, 3))):
        assert (await outlook(store)).ready, "there is more to do at once"
        blocked.append((await jobs.counts(store, NOW))[0]["blocked"])
    assert (taken, blocked) == ([103], [0, 50, 100])
    assert not (await outlook(store)).ready


async def test_what_stands_before_those_that_are_met_is_claimed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "PARKED_AT_ONCE_MAX", 1)
    await broken(store, 12)
    await add(store, new(priority=10), new())
    assert ids(await take(store, 4)) == [13]


# Trying it again


async def test_one_job_tries_it_when_the_wait_is_over_and_its_success_lets_all_go_on(store: Store) -> None:
    await broken(store, 5)
    assert await take(store, 9, at=29.999999) == []
    [probe] = await take(store, 9, at=30)
    found = await crm(store)
    assert (found.state, found.probe_id) == ("half_open", probe.id)
    assert probe.id == 3, "the first in order"
    assert await take(store, 9, at=31) == []
    await finish(store, Completed(probe, "1"), at=32)
    assert ids(await take(store, 9, at=32)) == [4, 5]
    assert await crm(store) == StoredBreaker("crm", "closed")


async def test_a_probe_that_fails_is_tried_later_and_another_one_next(store: Store) -> None:
    await broken(store, 4)
    [probe] = await take(store, 9, at=30)
    assert await finish(store, Retried(probe, moment(1000), "still", last=True), at=31) == [True]
    found = await crm(store)
    assert (found.state, found.probe_at, found.probe_id, found.error) == ("open", moment(61), None, "still")
    assert (await one(store, probe.id)).attempt == 0
    assert await take(store, 9, at=60) == []
    [second] = await take(store, 9, at=61)
    assert (probe.id, second.id) == (3, 4)


ENDS: dict[str, Callable[[StoredJob], End]] = {
    "snoozed": lambda job: Snoozed(job, moment(900)),
    "released": Released,
    "buried": lambda job: Buried(job, "undecodable", "what?"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_after_a_probe_that_has_shown_nothing_another_one_tries_at_once(store: Store, name: str) -> None:
    await broken(store, 4)
    [probe] = await take(store, 9, at=30)
    seen = store.signal.version("jobs")
    await finish(store, ENDS[name](probe), at=31)
    assert store.signal.version("jobs") > seen
    assert ids(await take(store, 9, at=31)) == ([3] if name == "released" else [4])
    assert await take(store, 9, at=31) == []


async def test_so_it_is_with_a_probe_that_is_cancelled_or_whose_worker_went_silent(store: Store) -> None:
    await broken(store, 6, max_attempts=2)
    [probe] = await take(store, 9, at=30)
    await cancel(store, probe.id, at=31)
    [second] = await take(store, 9, at=31)
    assert second.id == 4
    assert [await take(store, 9, at=at) for at in (61, 91)] == [[], []]
    assert await rescue(store, 92) == [Rescued(4, dead=False)]
    assert (await one(store, 4)).attempt == 1, "one that kills its worker runs out of attempts"
    assert [ids(await take(store, 9, at=92)), ids(await take(store, 9, at=92))] == [[5], []]


async def test_how_a_job_ends_that_was_claimed_before_it_broke_changes_nothing(store: Store) -> None:
    await add(store, *some(7))
    first, second, third, fourth, fifth = await take(store, 5)
    await finish(store, *(failed(job, at=900) for job in (first, second)))
    await finish(store, Completed(third, "1"))
    assert (await crm(store)).state == "open"
    [probe] = await take(store, 9, at=30)
    await finish(store, Completed(fourth, "1"), failed(fifth, at=900), at=31)
    found = await crm(store)
    assert (found.state, found.probe_id, found.failures) == ("half_open", probe.id, 2)


async def test_a_probe_that_runs_for_long_is_waited_for(store: Store) -> None:
    await broken(store, 5)
    [probe] = await take(store, 9, at=30)
    assert (await outlook(store, at=59)).next_at == moment(60)
    assert await take(store, 9, at=60) == []
    assert (await outlook(store, at=60)).next_at == moment(90)
    assert (await crm(store)).probe_id == probe.id


async def test_a_probe_that_nobody_claims_makes_room_for_another(store: Store) -> None:
    await broken(store, 3)
    assert await take(store, 9) == []
    await add(store, *some(1, queue="video"), *(new(priority=100) for _ in range(3)))
    assert len(await take(store, 1, at=30)) == 1, "the probe has to wait for its turn"
    assert (await crm(store)).probe_id == 3
    await store.write(lambda tx: queues.pause(tx, "default"))
    assert await take(store, 9, at=59, queue="video") == []
    assert ids(await take(store, 9, at=60, queue="video")) == [4]
    await store.write(lambda tx: queues.resume(tx, "default"))
    assert ids(await take(store, 9, at=60)) == [6, 7]


async def test_the_queue_with_jobs_that_wait_is_the_one_that_tries(store: Store) -> None:
    await broken(store, 3, queue="default")
    assert await take(store, 9) == []
    await add(store, new(queue="video", after=7000))
    assert (await outlook(store, at=5000, queue="video")).next_at == moment(7000), "no reason to look for this one"
    assert await take(store, 9, at=5000, queue="video") == []
    assert (await outlook(store)).next_at == moment(30)
    assert ids(await take(store, 9, at=5000)) == [3]


async def test_many_go_on_in_portions_once_it_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await broken(store, 40)
    assert await take(store, 99) == []
    monkeypatch.setattr(breakers, "PARKED_AT_ONCE_MAX", 10)
    [probe] = await take(store, 99, at=30)
    await finish(store, Completed(probe, "1"), at=30)
    taken = []
    while (found := await outlook(store, at=30)).ready or (found.next_at or moment(99)) <= moment(30):
        taken.append(len(await take(store, 99, at=30)))
    assert taken == [10, 10, 10, 7]


async def test_a_dependency_that_breaks_while_they_go_on_stops_them_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broken(store, 40)
    assert await take(store, 99) == []
    monkeypatch.setattr(breakers, "PARKED_AT_ONCE_MAX", 10)
    [probe] = await take(store, 99, at=30)
    await finish(store, Completed(probe, "1"), at=30)
    two = await take(store, 2, at=30)
    await finish(store, *(failed(job, at=500) for job in two), at=31)
    assert await take(store, 99, at=31) == []
    [probe] = await take(store, 99, at=61)
    assert (await crm(store)).probe_id == probe.id


@pytest.mark.parametrize("state", ["open", "half_open"])
async def test_a_clock_that_is_set_back_costs_no_more_than_one_wait(store: Store, state: str) -> None:
    await add(store, *some(4))
    two = await take(store, 2)
    await finish(store, *(failed(job) for job in two), at=YEAR)
    assert await take(store, 9, at=YEAR) == []
    if state == "half_open":
        [probe] = await take(store, at=YEAR + 30)
        assert (await outlook(store, at=0)).next_at == 0
        assert await take(store, 9, at=0) == []
        await cancel(store, probe.id, at=1)
    else:
        assert (await outlook(store, at=0)).next_at == 0
        assert await take(store, 9, at=0) == []
        assert (await outlook(store, at=0)).next_at == moment(30)
    assert len(await take(store, 9, at=30)) == 1


async def test_a_dead_job_that_is_retried_waits_as_well(store: Store) -> None:
    await add(store, *some(1, priority=10))
    [job] = await take(store)
    await finish(store, Buried(job, "failed", "over"))
    await broken(store, 2)
    assert await retry(store, job.id) == 1
    assert await take(store, 9) == []
    assert ids(await take(store, 9, at=30)) == [job.id]


# Together with limits


async def test_a_job_with_a_limit_waits_for_the_dependency_first(store: Store) -> None:
    limit = Limit("pump", concurrency=1)
    await add(store, *some(1, limit=limit), *some(1), *some(2, limit=limit), new(limit=limit))
    first, second = await take(store, 2)
    await finish(store, failed(first, at=900), failed(second, at=900))
    assert ids(await take(store, 9)) == [5], "those before it are not in its way"
    assert [(await one(store, id_)).blocked_by for id_ in (3, 4)] == ["breaker", "breaker"]


async def test_a_probe_needs_room_under_its_limit(store: Store) -> None:
    limit = Limit("pump", concurrency=1)
    await broken(store, 2)
    await add(store, *some(2, limit=limit), new(limit=limit))
    [running] = await take(store, 9)
    assert running.id == 5
    assert await take(store, 9, at=30) == []
    assert (await outlook(store, at=30)).next_at == moment(31), "and is looked for again soon"
    await finish(store, Completed(running, "1"), at=31)
    [probe] = await take(store, 9, at=31)
    assert probe.id == 3
    await finish(store, Completed(probe, "1"), at=32)
    assert ids(await take(store, 9, at=32)) == [4]


async def test_a_probe_whose_rate_was_used_before_the_clock_was_set_back_waits_one_interval(store: Store) -> None:
    limit = Limit("pump", interval_us=10 * SECOND)
    await add(store, new(limit=limit))
    assert len(await take(store, 9, at=YEAR)) == 1
    await broken(store, 2)
    await add(store, *some(1, limit=limit))
    assert await take(store, 9, at=30) == []
    assert (await outlook(store, at=30)).next_at == moment(31)
    assert await take(store, 9, at=39) == []
    assert ids(await take(store, 9, at=40)) == [4]


async def test_very_many_blocked_by_both_hold_nobody_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit("pump", concurrency=1)
    await add(store, *some(2), *some(60, limit=limit), new(limit=limit))
    two = await take(store, 2)
    monkeypatch.setattr("edgeq.store.limits.ADMITTED_AT_ONCE_MAX", 5)
    monkeypatch.setattr(breakers, "PARKED_AT_ONCE_MAX", 5)
    await finish(store, *(failed(job, at=900) for job in two))
    for _ in range(9):
        taken = ids(await take(store, 9))
        if taken:
            break
        found = await outlook(store)
        assert found.ready or found.next_at == NOW, "there is more to do at once"
    assert taken == [63]


async def test_purge_of_a_probe_makes_room_for_another(store: Store) -> None:
    await broken(store, 3)
    assert await take(store, 9) == []
    await add(store, new(priority=100, kind="m:Ahead"), *some(1, kind="m:After"))
    await take(store, 1, at=30)
    assert (await crm(store)).state == "half_open"

    def purge(tx: Any) -> int:
        return jobs.purge(tx, states=["available"], kind="m:Work", finished_before=None, limit=2)

    await store.write(purge)
    found = await crm(store)
    assert (found.state, found.probe_at) == ("open", 0)
    assert [job.kind for job in await take(store, 9, at=30)] == ["m:After"]
