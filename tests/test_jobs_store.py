"""The verbs of the table `jobs`: claims with a fence, leases, rescue, and statements that use an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from support.job_table import (
    NOW,
    SECOND,
    add,
    cancel,
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
)

from edgeq.store import breakers, claims, dead_letters, ends, job_adding, job_views, jobs, limits, queues
from edgeq.store.claims import Buried, Completed, End, Outlook, Released, Rescued, Retried, Snoozed
from edgeq.store.jobs import StoredJob
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Statement


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
    connection = sqlite3.connect(store.path)
    try:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", [1] * text.count("?"))]
    finally:
        connection.close()
    given = ("SCAN CONSTANT ROW", "SCAN v VIRTUAL", "SCAN json_each VIRTUAL")  # what comes with the statement itself
    reads = [step for step in plan if re.match("SCAN|SEARCH", step) and not step.startswith(given)]
    assert reads
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    if name.removeprefix("edgeq.store.") in WHOLE:
        assert all("USING" in step and "INDEX jobs_" in step for step in reads), plan
    else:
        assert all(step.startswith("SEARCH") and re.search("INDEX|PRIMARY KEY", step) for step in reads), plan
