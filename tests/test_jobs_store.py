"""The verbs of the table `jobs`: claims with a fence, leases, rescue, and statements that use an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import peewee as pw
import pytest
from support.job_table import (
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
    retry,
)  # fmt: skip

from edgeq.store import breakers, claims, dead_letters, ends, job_adding, job_views, jobs, limits, queues
from edgeq.store.claims import Buried, Completed, End, Outlook, Rate, Released, Rescued, Retried, Snoozed
from edgeq.store.job_records import read_options
from edgeq.store.jobs import Limit, NewJob, Parent, StoredJob
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Statement, render
from edgeq.store.tables import Breakers, Jobs


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path) as store:
        yield store


async def test_a_job_is_due_at_its_time_and_not_before(store: SqliteStore) -> None:
    await add(store, new(), new(after=10))
    assert [(await one(store, id_)).state for id_ in (1, 2)] == ["available", "scheduled"]
    assert ids(await claim(store, 5, at=9.9)) == [1]
    assert ids(await claim(store, 5, at=10)) == [2]


async def test_greater_priority_first_then_in_order(store: SqliteStore) -> None:
    await add(store, new(), new(priority=-10), new(priority=10), new(), new(priority=10))
    assert ids(await claim(store, 4)) == [3, 5, 1, 4]
    assert ids(await claim(store, 4)) == [2]


async def test_a_claim_counts_the_attempt_and_carries_a_lease(store: SqliteStore) -> None:
    await add(store, new())
    [job] = await claim(store, owner="gateway:7")
    assert job == await one(store, 1)
    assert (job.state, job.attempt, job.lease_owner, job.lease_token) == ("executing", 1, "gateway:7", 1)
    assert job.lease_expires_at == NOW + 60 * SECOND
    assert await claim(store) == []


async def test_a_queue_gives_nothing_to_the_workers_of_another(store: SqliteStore) -> None:
    await add(store, new(queue="video"))
    assert await claim(store) == []
    assert len(await claim(store, queue="video")) == 1


async def test_ten_thousand_delayed_jobs_do_not_stand_in_the_way_of_one_that_is_ready(store: SqliteStore) -> None:
    await add(store, *(new(number, after=3600, priority=10) for number in range(10_000)), new(-1))
    assert [job.args for job in await claim(store, 5)] == ['{"number":-1}']
    assert (await jobs.counts(store, NOW))[0]["scheduled"] == 10_000


async def test_many_that_become_due_at_once_are_taken_up_in_portions(store: SqliteStore) -> None:
    most = claims.PROMOTED_AT_ONCE_MAX
    await add(store, *(new(number, after=1) for number in range(most + 1)), new(-1, after=1, priority=10))
    assert [job.args for job in await claim(store, at=3)] == ['{"number":0}']
    assert (await outlook(store, at=3)).next_at == NOW + SECOND
    assert [job.args for job in await claim(store, at=3)] == ['{"number":-1}']


ENDS: dict[str, Callable[[StoredJob], End]] = {
    "completed": lambda job: Completed(job, "1"),
    "retried": lambda job: Retried(job, NOW + SECOND, "again"),
    "snoozed": lambda job: Snoozed(job, NOW + SECOND),
    "buried": lambda job: Buried(job, "failed", "over"),
    "released": Released,
}


@pytest.mark.parametrize("name", ENDS)
async def test_only_the_present_claim_can_end_or_extend(store: SqliteStore, name: str) -> None:
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
async def test_a_claim_ends_once(store: SqliteStore, name: str) -> None:
    await add(store, new())
    [job] = await claim(store)
    assert await end(store, Completed(job, "0"))
    done = await one(store, 1)
    assert await end(store, ENDS[name](job)) == [False]
    assert await one(store, 1) == done


async def test_complete(store: SqliteStore) -> None:
    await add(store, new())
    [job] = await claim(store)
    await end(store, Completed(job, '{"a":0}'), at=5e-6)
    job = await one(store, 1)
    assert (job.state, job.result, job.finished_at, job.error) == ("completed", '{"a":0}', NOW + 5, None)
    assert (job.lease_owner, job.lease_expires_at, job.lease_token) == (None, None, 1)


async def test_retry_waits_for_its_time_and_gets_a_new_token(store: SqliteStore) -> None:
    await add(store, new())
    [job] = await claim(store)
    await end(store, Retried(job, NOW + 5 * SECOND, "no route"))
    job = await one(store, 1)
    assert (job.state, job.error, job.lease_owner) == ("retryable", "no route", None)
    assert await claim(store, at=4.9) == []
    [job] = await claim(store, at=5)
    assert (job.attempt, job.lease_token) == (2, 2)


async def test_bury_keeps_everything_in_a_dead_letter(store: SqliteStore) -> None:
    await add(store, new(3, queue="video", cause_id=9))
    [job] = await claim(store, queue="video")
    await end(store, Buried(job, "timeout", "too slow"), at=1e-6)
    job = await one(store, 1)
    assert (job.state, job.error, job.finished_at) == ("dead", "too slow", NOW + 1)
    [letter] = await dead_letters.find(store, limit=5)
    assert (letter.source, letter.reason, letter.error) == ("job:video", "timeout", "too slow")
    assert (letter.payload, letter.job_id, letter.event_id) == (b'{"number":3}', 1, 9)
    assert letter.detail == {"kind": "m:Work", "attempt": 1, "max_attempts": 5}


async def test_release_does_not_cost_the_attempt(store: SqliteStore) -> None:
    await add(store, new(max_attempts=1))
    [job] = await claim(store)
    await end(store, Released(job))
    assert (await one(store, 1)).attempt == 0
    [again] = await claim(store)
    assert (again.attempt, again.lease_token) == (1, 2)


async def test_a_lease_that_was_extended_is_left_alone(store: SqliteStore) -> None:
    await add(store, new(), new())
    kept, _ = await claim(store, 2)
    assert await extend(store, kept, at=50) == set()
    assert await rescue(store, at=61) == [Rescued(2, dead=False)]
    assert (await one(store, 1)).state == "executing"
    assert await rescue(store, at=111) == [Rescued(1, dead=False)]


async def test_rescue_gives_a_job_again_until_its_attempts_are_used_up(store: SqliteStore) -> None:
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


async def test_rescue_takes_its_own_queue_in_pages(store: SqliteStore) -> None:
    await add(store, *(new(number) for number in range(7)), new(queue="video"))
    await claim(store, 7)
    await claim(store, queue="video")
    assert [len(await rescue(store, at=100, limit=3)) for _ in range(4)] == [3, 3, 1, 0]
    assert (await one(store, 8)).state == "executing"


async def test_a_lease_from_a_clock_that_was_set_back_since_ends_after_one_lease(store: SqliteStore) -> None:
    await add(store, new())
    await claim(store, at=365 * 86400)
    assert await rescue(store, at=0) == []
    assert (await outlook(store)).lease_expires_at == NOW + 60 * SECOND
    assert await rescue(store, at=60) == [Rescued(1, dead=False)]


async def test_retry_of_a_dead_job_begins_anew_and_closes_its_dead_letter(store: SqliteStore) -> None:
    await add(store, new(), new())
    [job] = await claim(store)
    await end(store, Buried(job, "failed", "over"))
    assert await retry(store, 1, 2, 99, 0, -1, 2**70, at=1) == 1
    assert await dead_letters.find(store, limit=5) == []
    [_, again] = await claim(store, 2, at=1)
    assert (again.id, again.attempt, again.lease_token, again.error) == (1, 1, 2, None)
    assert await end(store, Completed(job, "1")) == [False]


async def test_cancel_takes_what_is_not_finished(store: SqliteStore) -> None:
    await add(store, new(), new(), new(after=5))
    done, running = await claim(store, 2)
    await end(store, Completed(done, "1"))
    assert await cancel(store, 1, 2, 3, 99, 2**70) == 2
    assert [(await one(store, id_)).state for id_ in (1, 2, 3)] == ["completed", "cancelled", "cancelled"]
    assert await end(store, Completed(running, "1")) == [False]
    assert await claim(store, 5, at=100) == []
    assert await rescue(store, at=1000) == []


async def test_the_topic_cancelled_is_touched_when_something_is(store: SqliteStore) -> None:
    await add(store, new())
    seen = store.signal.version("cancelled")
    assert await cancel(store, 7) == 0
    assert store.signal.version("cancelled") == seen
    assert await cancel(store, 1) == 1
    assert store.signal.version("cancelled") > seen


async def test_lost_are_those_whose_claim_is_not_the_current_one(store: SqliteStore) -> None:
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


async def test_progress_is_that_of_the_present_claim(store: SqliteStore) -> None:
    await add(store, new())
    [first] = await claim(store)
    assert await store.write(lambda tx: claims.progress(tx, first, '{"fraction":0.4}')) is True
    await rescue(store, at=61)
    assert (await one(store, 1)).progress == '{"fraction":0.4}'
    assert await store.write(lambda tx: claims.progress(tx, first, '{"fraction":0.5}')) is False
    [second] = await claim(store, at=61)
    await store.write(lambda tx: claims.progress(tx, second, '{"text":"\0"}'))
    assert (await one(store, 1)).progress == '{"text":"\\x00"}'


async def test_snooze_does_not_cost_the_attempt(store: SqliteStore) -> None:
    await add(store, new(max_attempts=1))
    [job] = await claim(store)
    assert await end(store, Snoozed(job, NOW + 10 * SECOND)) == [True]
    snoozed = await one(store, 1)
    assert (snoozed.state, snoozed.attempt, snoozed.lease_owner) == ("scheduled", 0, None)
    assert await claim(store, at=9) == []
    assert [(job.attempt, job.lease_token) for job in await claim(store, at=10)] == [(1, 2)]


async def test_many_ends_of_all_kinds_in_one_commit(store: SqliteStore) -> None:
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


async def test_large_results_go_in_portions(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.batches.BYTES_MAX", 1000)
    await add(store, *(new() for _ in range(9)))
    results = {job_id: f'"{"x" * job_id * 200}"' for job_id in range(1, 10)}
    assert await end(store, *(Completed(job, results[job.id]) for job in await claim(store, 9))) == [True] * 9
    assert {job.id: job.result for job in await jobs.find(store, limit=9)} == results


async def test_a_claim_that_finds_nothing_writes_nothing(store: SqliteStore) -> None:
    await add(store, new(after=9), *(new(limit=Limit("a", interval_us=99 * SECOND)) for _ in range(3)))
    await claim(store, rate=Rate(SECOND))
    await change(store, Breakers.insert(name="crm", state="open", failures=9, opened_at=NOW, probe_at=NOW))
    await add(store, new(needs="crm", queue="video"))
    connection = store._engine._connection
    assert connection is not None
    before = connection.total_changes
    for at in range(2, 8):
        assert await claim(store, 9, at=at, rate=Rate(SECOND)) == []
        await outlook(store, at=at)
        await rescue(store, at=at)
    assert connection.total_changes == before


async def test_texts_that_no_database_takes_are_kept_in_escaped_form(store: SqliteStore) -> None:
    await add(store, new(), new(), new())
    first, second, third = await claim(store, 3, owner="a\0\udcff")
    assert first.lease_owner == "a\\x00\\udcff"
    await end(store, Retried(first, 2**80, "\0"), Buried(second, "failed", "\udcff"), Snoozed(third, -(2**80)))
    assert [(await one(store, id_)).error for id_ in (1, 2)] == ["\\x00", "\\udcff"]
    assert ids(await claim(store, 3)) == [3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": "a\0"}, {"kind": "\udcff"}, {"args": "\0"}, {"needs": "\udcff"}, {"run_at": 2**63},
        {"priority": 2**40}, {"created_at": -(2**70)}, {"cause_id": 2**63}, {"max_attempts": 2**80},
        {"expires_us": 2**62}, {"on_success": NewJob(queue="a\0", kind="m:B", args="")},
        {"on_failure": NewJob(queue="a", kind="b", args="\0")},
    ],
)  # fmt: skip
async def test_what_can_not_be_stored_is_refused_and_nothing_of_the_dispatch_is(
    store: SqliteStore, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"can't be stored|too large"):
        await add(store, new(), msgspec.structs.replace(new(), **wrong))
    assert await jobs.find(store, limit=9) == []


# Callbacks


def callback(kind: str, **more: Any) -> NewJob:
    return NewJob(queue="after", kind=kind, args='{"mail":"x"}', **more)


@pytest.mark.parametrize("name", ENDS)
async def test_callbacks_are_added_in_the_commit_that_ends_the_job(store: SqliteStore, name: str) -> None:
    both = {"on_success": callback("m:Good"), "on_failure": callback("m:Bad", priority=7)}
    await add(store, new(3, cause_id=9, **both))
    [job] = await claim(store)
    await end(store, ENDS[name](job), at=5)
    called = await jobs.find(store, limit=9, queue="after")
    expected = {"completed": ["m:Good"], "buried": ["m:Bad"]}.get(name, [])
    assert [job.kind for job in called] == expected
    for after in called:
        assert (after.run_at, after.created_at, after.cause_id) == (NOW + 5 * SECOND, NOW + 5 * SECOND, 9)
        assert (after.state, after.args, after.priority) == ("available", '{"mail":"x"}', 7 if name == "buried" else 0)
        parent = read_options(after.id, after.options).parent
        words = {"result": "1"} if name == "completed" else {"error": "over"}
        assert parent == Parent(1, "m:Work", '{"number":3}', **words)


async def test_no_callback_without_the_end_that_it_is_for(store: SqliteStore) -> None:
    await add(store, *(new(on_success=callback("m:Good"), on_failure=callback("m:Bad")) for _ in range(2)))
    first, second = await claim(store, 2)
    await cancel(store, 1)
    await rescue(store, at=61)
    assert await end(store, Completed(first, "1"), Buried(second, "failed", "over")) == [False, False]
    assert await jobs.find(store, limit=9, queue="after") == []


async def test_a_job_that_dies_with_its_worker_calls_back_as_well(store: SqliteStore) -> None:
    await add(store, new(max_attempts=1, on_failure=callback("m:Bad")))
    await claim(store)
    await rescue(store, at=61)
    [after] = await jobs.find(store, limit=9, queue="after")
    parent = read_options(after.id, after.options).parent
    assert parent is not None
    assert "went silent" in (parent.error or "")


async def test_a_callback_has_callbacks_limits_and_a_unique_key_of_its_own(store: SqliteStore) -> None:
    limit = Limit("mail", concurrency=1)
    mail = callback("m:Mail", limit=limit, on_success=callback("m:Last", unique_key="once"))
    await add(store, new(on_success=mail), new(on_success=mail))
    await end(store, *(Completed(job, "1") for job in await claim(store, 2)))
    for _ in range(2):
        [job] = await claim(store, 1, queue="after", at=1)
        assert job.kind == "m:Mail"
        await end(store, Completed(job, "2"), at=1)
    [last] = await claim(store, 5, queue="after", at=1)
    assert (last.kind, last.unique_key) == ("m:Last", "once")


async def test_options_that_somebody_spoiled_cost_the_callbacks_and_nothing_else(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, new(on_success=callback("m:Good")))
    await change(store, Jobs.update({Jobs.options: "{"}))
    [job] = await claim(store)
    assert await end(store, Completed(job, "1")) == [True]
    assert "options can't be read" in caplog.text


# Their time


async def test_a_job_knows_when_its_time_is_over(store: SqliteStore) -> None:
    await add(store, new(after=10, expires_us=60 * SECOND), new(expires_us=0), new())
    assert [(await one(store, id_)).expires_at for id_ in (1, 2, 3)] == [NOW + 70 * SECOND, NOW, None]
    [job] = await claim(store, 1, at=500)
    await end(store, Retried(job, NOW + 600 * SECOND, "again"), at=500)
    assert (await one(store, 2)).expires_at == NOW, "a retry changes nothing of it"
    assert ids(await claim(store, 9, at=1000)) == [3, 1, 2], "whoever claims it says what becomes of it"


async def test_a_dead_job_that_is_retried_has_all_its_time_again(store: SqliteStore) -> None:
    await add(store, new(expires_us=60 * SECOND))
    [job] = await claim(store, at=100)
    await end(store, Buried(job, "expired", "over"), at=100)
    await retry(store, 1, at=1000)
    assert (await one(store, 1)).expires_at == NOW + 1060 * SECOND


async def test_low_runs_after_its_age_has_made_up_for_its_priority(store: SqliteStore) -> None:
    await add(store, new(priority=-10))
    await add(store, new(priority=10, at=119.999), new(priority=10, at=120), new(priority=10, at=121))
    assert ids(await claim(store, 9, at=121)) == [2, 1, 3, 4]


# Many at once, by what they are


async def dead(store: SqliteStore, *rows: NewJob, reason: str = "failed") -> None:
    added = {answer.id for answer in await add(store, *rows)}
    for queue in {row.queue for row in rows}:
        claimed = [job for job in await claim(store, 999, queue=queue, at=100) if job.id in added]
        await end(store, *(Buried(job, reason, "over") for job in claimed), at=100)


async def retry_where(store: SqliteStore, **filters: Any) -> int:
    return await store.write(lambda tx: jobs.retry_where(tx, now=NOW, **{"limit": 99, **filters}))


async def test_dead_jobs_are_retried_by_what_they_are(store: SqliteStore) -> None:
    await dead(store, new(), new(kind="m:Other"), new(queue="video"))
    await dead(store, new(), new(queue="video"), reason="timeout")
    assert await retry_where(store, queue="nobody") == await retry_where(store, kind="\udcff") == 0
    assert await retry_where(store, reason="timeout", queue="video") == 1
    assert (await one(store, 5)).state == "available"
    assert await retry_where(store, kind="m:Other") == 1
    assert await retry_where(store, reason="timeout") == 1
    assert await retry_where(store) == 2
    assert await retry_where(store) == 0
    assert await dead_letters.find(store, limit=9) == []


async def test_retry_of_very_many_goes_in_pages(store: SqliteStore) -> None:
    await dead(store, *(new() for _ in range(25)))
    for filters in ({}, {"reason": "failed"}):
        assert [await retry_where(store, limit=10, **filters) for _ in range(4)] == [10, 10, 5, 0]
        claimed = await claim(store, 99)
        await end(store, *(Buried(job, "failed", "over") for job in claimed))


async def purge(store: SqliteStore, *states: str, **filters: Any) -> int:
    return await store.write(
        lambda tx: jobs.purge(tx, states=states, **{"finished_before": None, "limit": 99, **filters})
    )


async def test_purge_removes_what_ended_before(store: SqliteStore) -> None:
    await add(store, new(), new(queue="video"), new(), new())
    for at, queue in ((1, "default"), (2, "video"), (3, "default")):
        [job] = await claim(store, queue=queue)
        await end(store, Completed(job, "1"), at=at)
    before = NOW + 3 * SECOND
    assert await purge(store, "dead", "cancelled", finished_before=before) == 0
    assert await purge(store, "completed", "available", finished_before=before, kind="m:Other") == 0
    assert await purge(store, "completed", "available", finished_before=before) == 2
    assert ids(await jobs.find(store, limit=9)) == [4, 3]
    assert await purge(store, "completed", queue="default") == 1


async def test_purge_of_a_queue_leaves_what_runs_and_what_is_in_others(store: SqliteStore) -> None:
    await add(store, new(), new(), new(after=5), new(queue="video"), new(limit=Limit("a", interval_us=99)))
    [running] = await claim(store)
    assert await purge(store, *jobs.STATES, queue="default") == 3
    assert ids(await jobs.find(store, limit=9)) == [4, running.id]
    assert await purge(store, "nonsense", "") == 0


async def test_purge_goes_in_pages(store: SqliteStore) -> None:
    await add(store, *(new(queue=f"q{number % 3}") for number in range(25)))
    await cancel(store, *range(1, 26))
    assert [await purge(store, "cancelled", limit=10, finished_before=NOW + 1) for _ in range(4)] == [10, 10, 5, 0]


@pytest.mark.parametrize("state", jobs.STATES)
async def test_jobs_are_found_by_their_state(store: SqliteStore, state: str) -> None:
    await add(store, *(new(priority=-number) for number in range(6)), new(after=99), *(new(limit=Limit("a", 1)),) * 2)
    retried, done, buried, running, cancelled = await claim(store, 5)
    await end(store, Retried(retried, NOW + SECOND, ""), Completed(done, "1"), Buried(buried, "failed", "over"))
    await cancel(store, cancelled.id)
    by_state = {job.id: job.state for job in await jobs.find(store, limit=99)}
    assert set(by_state.values()) == set(jobs.STATES)
    expected = [id_ for id_, found in by_state.items() if found == state]
    assert ids(await jobs.find(store, limit=99, state=state)) == expected
    assert ids(await jobs.find(store, limit=99, state=state, queue="default")) == expected
    assert ids(await jobs.find(store, limit=1, state=state, before_id=10)) == expected[:1]
    assert await jobs.find(store, limit=99, state=state, queue="video") == []
    assert running.id in by_state


async def test_outlook(store: SqliteStore) -> None:
    assert await outlook(store) == Outlook(False, None, None, paused=False)
    await add(store, new(), new(after=7), new(after=3, queue="video"))
    assert await outlook(store) == Outlook(True, NOW + 7 * SECOND, None, paused=False)
    [job] = await claim(store)
    assert await outlook(store) == Outlook(False, NOW + 7 * SECOND, NOW + 60 * SECOND, paused=False)
    await end(store, Retried(job, NOW + 3 * SECOND, ""))
    assert await outlook(store) == Outlook(False, NOW + 3 * SECOND, None, paused=False)


async def test_counts_show_every_queue_that_a_job_names(store: SqliteStore) -> None:
    await add(store, new(), new(), new(after=9), new(queue="nobody"))
    await claim(store)
    counts = await jobs.counts(store, NOW + 4 * SECOND)
    assert [{key: value for key, value in row.items() if value} for row in counts] == [
        {
            "queue": "default", "scheduled": 1, "delayed": 1, "available": 1, "ready": 1, "executing": 1,
            "oldest_ready_seconds": 4.0,
        },
        {"queue": "nobody", "available": 1, "ready": 1, "oldest_ready_seconds": 4.0},
    ]  # fmt: skip
    assert set(jobs.STATES) < set(counts[1])


async def test_find_and_one(store: SqliteStore) -> None:
    await add(store, new(), new(queue="video"), new(after=9))

    async def found(**filters: Any) -> list[int]:
        return ids(await jobs.find(store, **{"limit": 10, **filters}))

    assert await found() == [3, 2, 1]
    assert await found(limit=2) == [3, 2]
    assert await found(before_id=3) == [2, 1]
    assert await found(before_id=2**70) == [3, 2, 1]
    assert await found(queue="video") == [2]
    assert await found(state="scheduled", queue="default") == [3]
    assert await found(kind="m:Work") == [3, 2, 1]
    assert await found(kind="\udcff") == []
    assert await jobs.one(store, 9) is None
    assert await jobs.one(store, 2**70) is None


@pytest.mark.parametrize("queue", ["", "default"])
@pytest.mark.parametrize("state", jobs.STATES)
async def test_jobs_of_a_state_are_found_by_an_index(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, state: str, queue: str
) -> None:
    asked: list[tuple[str, list[Any]]] = []

    async def read(query: pw.Node) -> list[Any]:
        asked.append(render(pw.SqliteDatabase(None), query))
        return []

    monkeypatch.setattr(store, "read", read)
    await jobs.find(store, limit=5, state=state, queue=queue, before_id=9)
    with closing(sqlite3.connect(store.path)) as connection:
        plan = [row[3] for text, values in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    assert not [step for step in plan if step.startswith("SCAN")], plan


STATEMENTS = {
    f"{module.__name__}.{name}": statement
    for module in (breakers, claims, ends, job_adding, job_views, jobs, limits, queues)
    for name, statement in vars(module).items()
    if isinstance(statement, Statement)
}
WHOLE = ("job_views.READY", "job_views.BLOCKED", "job_views.DELAYED", "job_views.EXECUTING", "job_views.ENDED")


@pytest.mark.parametrize("name", STATEMENTS)
async def test_every_statement_uses_an_index(store: SqliteStore, name: str) -> None:
    text = STATEMENTS[name].text(pw.SqliteDatabase(None))
    with closing(sqlite3.connect(store.path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", [1] * text.count("?"))]
    given = ("SCAN CONSTANT ROW", "SCAN v VIRTUAL", "SCAN json_each VIRTUAL")  # what comes with the statement itself
    reads = [step for step in plan if re.match("SCAN|SEARCH", step) and not step.startswith(given)]
    assert reads
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    if name.removeprefix("edgeq.store.") in WHOLE:
        assert all("USING" in step and "INDEX jobs_" in step for step in reads), plan
    else:
        assert all(step.startswith("SEARCH") and re.search("INDEX|PRIMARY KEY", step) for step in reads), plan
