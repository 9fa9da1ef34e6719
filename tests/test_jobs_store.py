"""A worker's verbs of the table `jobs`: claims with a fence, leases, rescue, and what there is to do next."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.job_table import (
    ENDS,
    NOW,
    SECOND,
    add,
    cancel,
    change,
    claim,
    end,
    extend,
    ids,
    new,
    one,
    opened,
    outlook,
    rescue,
)  # fmt: skip
from support.stores import Database

from edgeq.store import claims, dead_letters, jobs
from edgeq.store.claims import Buried, Completed, Outlook, Rate, Released, Rescued, Retried, Snoozed
from edgeq.store.jobs import Limit
from edgeq.store.store import Store
from edgeq.store.tables import Breakers


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


async def test_a_job_is_due_at_its_time_and_not_before(store: Store) -> None:
    await add(store, new(), new(after=10))
    assert [(await one(store, id_)).state for id_ in (1, 2)] == ["available", "scheduled"]
    assert ids(await claim(store, 5, at=9.9)) == [1]
    assert ids(await claim(store, 5, at=10)) == [2]


async def test_greater_priority_first_then_in_order(store: Store) -> None:
    await add(store, new(), new(priority=-10), new(priority=10), new(), new(priority=10))
    assert ids(await claim(store, 4)) == [3, 5, 1, 4]
    assert ids(await claim(store, 4)) == [2]


async def test_a_claim_counts_the_attempt_and_carries_a_lease(store: Store) -> None:
    await add(store, new())
    [job] = await claim(store, owner="gateway:7")
    assert job == await one(store, 1)
    assert (job.state, job.attempt, job.lease_owner, job.lease_token) == ("executing", 1, "gateway:7", 1)
    assert job.lease_expires_at == NOW + 60 * SECOND
    assert await claim(store) == []


async def test_a_queue_gives_nothing_to_the_workers_of_another(store: Store) -> None:
    await add(store, new(queue="video"))
    assert await claim(store) == []
    assert len(await claim(store, queue="video")) == 1


async def test_ten_thousand_delayed_jobs_do_not_stand_in_the_way_of_one_that_is_ready(store: Store) -> None:
    await add(store, *(new(number, after=3600, priority=10) for number in range(10_000)), new(-1))
    assert [job.args for job in await claim(store, 5)] == ['{"number":-1}']
    assert (await jobs.counts(store, NOW))[0]["scheduled"] == 10_000


async def test_many_that_become_due_at_once_are_taken_up_in_portions(store: Store) -> None:
    most = claims.PROMOTED_AT_ONCE_MAX
    await add(store, *(new(number, after=1) for number in range(most + 1)), new(-1, after=1, priority=10))
    assert [job.args for job in await claim(store, at=3)] == ['{"number":0}']
    assert (await outlook(store, at=3)).next_at == NOW + SECOND
    assert [job.args for job in await claim(store, at=3)] == ['{"number":-1}']


@pytest.mark.parametrize("name", ENDS)
async def test_only_the_present_claim_can_end_or_extend(store: Store, name: str) -> None:
    await add(store, new())
    [first] = await claim(store)
    await rescue(store, at=61)
    [second] = await claim(store, at=61)
    assert second.lease_token == 2
    assert await end(store, ENDS[name](first)) == [False]
    assert await one(store, 1) == second
    assert await dead_letters.find(store, limit=5) == []
    assert await end(store, ENDS[name](first), ENDS[name](second)) == [False, True]


@pytest.mark.parametrize("name", ENDS)
async def test_a_claim_ends_once(store: Store, name: str) -> None:
    await add(store, new())
    [job] = await claim(store)
    assert await end(store, Completed(job, "0"))
    done = await one(store, 1)
    assert await end(store, ENDS[name](job)) == [False]
    assert await one(store, 1) == done


async def test_complete(store: Store) -> None:
    await add(store, new())
    [job] = await claim(store)
    await end(store, Completed(job, '{"a":0}'), at=5e-6)
    job = await one(store, 1)
    assert (job.state, job.result, job.finished_at, job.error) == ("completed", '{"a":0}', NOW + 5, None)
    assert (job.lease_owner, job.lease_expires_at, job.lease_token) == (None, None, 1)


async def test_retry_waits_for_its_time_and_gets_a_new_token(store: Store) -> None:
    await add(store, new())
    [job] = await claim(store)
    await end(store, Retried(job, NOW + 5 * SECOND, "no route"))
    job = await one(store, 1)
    assert (job.state, job.error, job.lease_owner) == ("retryable", "no route", None)
    assert await claim(store, at=4.9) == []
    [job] = await claim(store, at=5)
    assert (job.attempt, job.lease_token) == (2, 2)


async def test_bury_keeps_everything_in_a_dead_letter(store: Store) -> None:
    await add(store, new(3, queue="video", cause_id=9))
    [job] = await claim(store, queue="video")
    await end(store, Buried(job, "timeout", "too slow"), at=1e-6)
    job = await one(store, 1)
    assert (job.state, job.error, job.finished_at) == ("dead", "too slow", NOW + 1)
    [letter] = await dead_letters.find(store, limit=5)
    assert (letter.source, letter.reason, letter.error) == ("job:video", "timeout", "too slow")
    assert (letter.payload, letter.job_id, letter.event_id) == (b'{"number":3}', 1, 9)
    assert letter.detail == {"kind": "m:Work", "attempt": 1, "max_attempts": 5}


async def test_snooze_does_not_cost_the_attempt(store: Store) -> None:
    await add(store, new(max_attempts=1))
    [job] = await claim(store)
    assert await end(store, Snoozed(job, NOW + 10 * SECOND)) == [True]
    snoozed = await one(store, 1)
    assert (snoozed.state, snoozed.attempt, snoozed.lease_owner) == ("scheduled", 0, None)
    assert await claim(store, at=9) == []
    assert [(job.attempt, job.lease_token) for job in await claim(store, at=10)] == [(1, 2)]


async def test_release_does_not_cost_the_attempt(store: Store) -> None:
    await add(store, new(max_attempts=1))
    [job] = await claim(store)
    await end(store, Released(job))
    assert (await one(store, 1)).attempt == 0
    [again] = await claim(store)
    assert (again.attempt, again.lease_token) == (1, 2)


async def test_many_ends_of_all_kinds_in_one_commit(store: Store) -> None:
    await add(store, *(new(number) for number in range(50)))
    claimed = await claim(store, 50)
    assert await cancel(store, 7) == 1
    makers = list(ENDS.values())
    answers = await end(store, *(makers[job.id % 5](job) for job in claimed))
    assert [job_id for job_id, answer in enumerate(answers, 1) if not answer] == [7]
    states = [(await one(store, job.id)).state for job in claimed if job.id != 7]
    expected = ["completed", "retryable", "scheduled", "dead", "available"]
    assert states == [expected[job.id % 5] for job in claimed if job.id != 7]
    assert len(await dead_letters.find(store, limit=99)) == 10


async def test_large_results_go_in_portions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.batches.BYTES_MAX", 1000)
    await add(store, *(new() for _ in range(9)))
    results = {job_id: f'"{"x" * job_id * 200}"' for job_id in range(1, 10)}
    assert await end(store, *(Completed(job, results[job.id]) for job in await claim(store, 9))) == [True] * 9
    assert {job.id: job.result for job in await jobs.find(store, limit=9)} == results


async def test_texts_that_no_database_takes_are_kept_in_escaped_form(store: Store) -> None:
    await add(store, new(), new(), new())
    first, second, third = await claim(store, 3, owner="a\0\udcff")
    assert first.lease_owner == "a\\x00\\udcff"
    await end(store, Retried(first, 2**80, "\0"), Buried(second, "failed", "\udcff"), Snoozed(third, -(2**80)))
    assert [(await one(store, id_)).error for id_ in (1, 2)] == ["\\x00", "\\udcff"]
    assert ids(await claim(store, 3)) == [3]


async def test_a_lease_that_was_extended_is_left_alone(store: Store) -> None:
    await add(store, new(), new())
    kept, _ = await claim(store, 2)
    assert await extend(store, kept, at=50) == set()
    assert await rescue(store, at=61) == [Rescued(2, dead=False)]
    assert (await one(store, 1)).state == "executing"
    assert await rescue(store, at=111) == [Rescued(1, dead=False)]


async def test_rescue_gives_a_job_again_until_its_attempts_are_used_up(store: Store) -> None:
    await add(store, new(max_attempts=2))
    await claim(store, owner="gateway:7")
    assert await rescue(store, at=59) == []
    assert await rescue(store, at=61) == [Rescued(1, dead=False)]
    job = await one(store, 1)
    assert (job.state, job.attempt) == ("available", 1)
    assert "gateway:7" in (job.error or "")
    await claim(store, at=61)
    assert await rescue(store, at=200) == [Rescued(1, dead=True)]
    assert (await one(store, 1)).state == "dead"
    [letter] = await dead_letters.find(store, limit=5)
    assert (letter.reason, letter.job_id) == ("lease_expired", 1)


async def test_rescue_takes_its_own_queue_in_pages(store: Store) -> None:
    await add(store, *(new(number) for number in range(7)), new(queue="video"))
    await claim(store, 7)
    await claim(store, queue="video")
    assert [len(await rescue(store, at=100, limit=3)) for _ in range(4)] == [3, 3, 1, 0]
    assert (await one(store, 8)).state == "executing"


async def test_a_lease_from_a_clock_that_was_set_back_since_ends_after_one_lease(store: Store) -> None:
    await add(store, new())
    await claim(store, at=365 * 86400)
    assert await rescue(store, at=0) == []
    assert (await outlook(store)).lease_expires_at == NOW + 60 * SECOND
    assert await rescue(store, at=60) == [Rescued(1, dead=False)]


async def test_lost_are_those_whose_claim_is_not_the_current_one(store: Store) -> None:
    await add(store, *(new() for _ in range(4)))
    kept, cancelled, over, done = await claim(store, 4)
    await extend(store, kept, cancelled, done, at=50)
    await rescue(store, at=61)
    [again] = await claim(store, 1, at=61)
    await cancel(store, cancelled.id)
    await end(store, Completed(done, "1"))
    assert await claims.lost(store, [kept, cancelled, over, done]) == {2, 3, 4}
    assert await claims.lost(store, [again]) == await claims.lost(store, []) == set()
    assert await extend(store, kept, cancelled, over, done, at=62) == {2, 3, 4}
    assert (await one(store, again.id)).lease_expires_at == NOW + 121 * SECOND


async def test_progress_is_that_of_the_present_claim(store: Store) -> None:
    await add(store, new())
    [first] = await claim(store)
    assert await store.write(lambda tx: claims.progress(tx, first, '{"fraction":0.4}')) is True
    await rescue(store, at=61)
    assert (await one(store, 1)).progress == '{"fraction":0.4}'
    assert await store.write(lambda tx: claims.progress(tx, first, '{"fraction":0.5}')) is False
    [second] = await claim(store, at=61)
    await store.write(lambda tx: claims.progress(tx, second, '{"text":"\0"}'))
    assert (await one(store, 1)).progress == '{"text":"\\x00"}'


async def test_outlook(store: Store) -> None:
    assert await outlook(store) == Outlook(False, None, None, paused=False)
    await add(store, new(), new(after=7), new(after=3, queue="video"))
    assert await outlook(store) == Outlook(True, NOW + 7 * SECOND, None, paused=False)
    [job] = await claim(store)
    assert await outlook(store) == Outlook(False, NOW + 7 * SECOND, NOW + 60 * SECOND, paused=False)
    await end(store, Retried(job, NOW + 3 * SECOND, ""))
    assert await outlook(store) == Outlook(False, NOW + 3 * SECOND, None, paused=False)


async def test_a_claim_that_finds_nothing_writes_nothing(database: Database, store: Store) -> None:
    await add(store, new(after=9), *(new(limit=Limit("a", interval_us=99 * SECOND)) for _ in range(3)))
    await claim(store, rate=Rate(SECOND))
    await change(store, Breakers.insert(name="crm", state="open", failures=9, opened_at=NOW, probe_at=NOW))
    await add(store, new(needs="crm", queue="video"))
    before = database.written()
    for at in range(2, 8):
        assert await claim(store, 9, at=at, rate=Rate(SECOND)) == []
        await outlook(store, at=at)
        await rescue(store, at=at)
    assert database.written() == before


async def test_low_runs_after_its_age_has_made_up_for_its_priority(store: Store) -> None:
    await add(store, new(priority=-10))
    await add(store, new(priority=10, at=119.999), new(priority=10, at=120), new(priority=10, at=121))
    assert ids(await claim(store, 9, at=121)) == [2, 1, 3, 4]
