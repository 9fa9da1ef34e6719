"""The verbs of the table `jobs` for everybody: dispatch, callbacks, retry, cancel, purge, look; and how they search."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import peewee as pw
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
    ids,
    new,
    one,
    opened,
    rescue,
    retry,
)  # fmt: skip
from support.stores import Database, SqliteDatabase

from edgeq.store import breakers, claims, dead_letters, ends, job_adding, job_outlook, job_views, jobs, limits, queues
from edgeq.store.claims import Buried, Completed, Retried
from edgeq.store.job_records import read_options
from edgeq.store.jobs import Limit, NewJob, Parent
from edgeq.store.store import Statement, Store, render
from edgeq.store.tables import Jobs


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


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
    store: Store, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"can't be stored|too large"):
        await add(store, new(), msgspec.structs.replace(new(), **wrong))
    assert await jobs.find(store, limit=9) == []


async def test_retry_of_a_dead_job_begins_anew_and_closes_its_dead_letter(store: Store) -> None:
    await add(store, new(), new())
    [job] = await claim(store)
    await end(store, Buried(job, "failed", "over"))
    assert await retry(store, 1, 2, 99, 0, -1, 2**70, at=1) == 1
    assert await dead_letters.find(store, limit=5) == []
    [_, again] = await claim(store, 2, at=1)
    assert (again.id, again.attempt, again.lease_token, again.error) == (1, 1, 2, None)
    assert await end(store, Completed(job, "1")) == [False]


async def test_cancel_takes_what_is_not_finished(store: Store) -> None:
    await add(store, new(), new(), new(after=5))
    done, running = await claim(store, 2)
    await end(store, Completed(done, "1"))
    assert await cancel(store, 1, 2, 3, 99, 2**70) == 2
    assert [(await one(store, id_)).state for id_ in (1, 2, 3)] == ["completed", "cancelled", "cancelled"]
    assert await end(store, Completed(running, "1")) == [False]
    assert await claim(store, 5, at=100) == []
    assert await rescue(store, at=1000) == []


async def test_the_topic_cancelled_is_touched_when_something_is(store: Store) -> None:
    await add(store, new())
    seen = store.signal.version("cancelled")
    assert await cancel(store, 7) == 0
    assert store.signal.version("cancelled") == seen
    assert await cancel(store, 1) == 1
    assert store.signal.version("cancelled") > seen


# Callbacks


def callback(kind: str, **more: Any) -> NewJob:
    return NewJob(queue="after", kind=kind, args='{"mail":"x"}', **more)


@pytest.mark.parametrize("name", ENDS)
async def test_callbacks_are_added_in_the_commit_that_ends_the_job(store: Store, name: str) -> None:
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


async def test_no_callback_without_the_end_that_it_is_for(store: Store) -> None:
    await add(store, *(new(on_success=callback("m:Good"), on_failure=callback("m:Bad")) for _ in range(2)))
    first, second = await claim(store, 2)
    await cancel(store, 1)
    await rescue(store, at=61)
    assert await end(store, Completed(first, "1"), Buried(second, "failed", "over")) == [False, False]
    assert await jobs.find(store, limit=9, queue="after") == []


async def test_a_job_that_dies_with_its_worker_calls_back_as_well(store: Store) -> None:
    await add(store, new(max_attempts=1, on_failure=callback("m:Bad")))
    await claim(store)
    await rescue(store, at=61)
    [after] = await jobs.find(store, limit=9, queue="after")
    parent = read_options(after.id, after.options).parent
    assert parent is not None
    assert "went silent" in (parent.error or "")


async def test_a_callback_has_callbacks_limits_and_a_unique_key_of_its_own(store: Store) -> None:
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
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, new(on_success=callback("m:Good")))
    await change(store, Jobs.update({Jobs.options: "{"}))
    [job] = await claim(store)
    assert await end(store, Completed(job, "1")) == [True]
    assert "options can't be read" in caplog.text


# Their time


async def test_a_job_knows_when_its_time_is_over(store: Store) -> None:
    await add(store, new(after=10, expires_us=60 * SECOND), new(expires_us=0), new())
    assert [(await one(store, id_)).expires_at for id_ in (1, 2, 3)] == [NOW + 70 * SECOND, NOW, None]
    [job] = await claim(store, 1, at=500)
    await end(store, Retried(job, NOW + 600 * SECOND, "again"), at=500)
    assert (await one(store, 2)).expires_at == NOW, "a retry changes nothing of it"
    assert ids(await claim(store, 9, at=1000)) == [3, 1, 2], "whoever claims it says what becomes of it"


async def test_a_dead_job_that_is_retried_has_all_its_time_again(store: Store) -> None:
    await add(store, new(expires_us=60 * SECOND))
    [job] = await claim(store, at=100)
    await end(store, Buried(job, "expired", "over"), at=100)
    await retry(store, 1, at=1000)
    assert (await one(store, 1)).expires_at == NOW + 1060 * SECOND


# Many at once, by what they are


async def dead(store: Store, *rows: NewJob, reason: str = "failed") -> None:
    added = {answer.id for answer in await add(store, *rows)}
    for queue in {row.queue for row in rows}:
        claimed = [job for job in await claim(store, 999, queue=queue, at=100) if job.id in added]
        await end(store, *(Buried(job, reason, "over") for job in claimed), at=100)


async def retry_where(store: Store, **filters: Any) -> int:
    return await store.write(lambda tx: jobs.retry_where(tx, now=NOW, **{"limit": 99, **filters}))


async def test_dead_jobs_are_retried_by_what_they_are(store: Store) -> None:
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


async def test_retry_of_very_many_goes_in_pages(store: Store) -> None:
    await dead(store, *(new() for _ in range(25)))
    for filters in ({}, {"reason": "failed"}):
        assert [await retry_where(store, limit=10, **filters) for _ in range(4)] == [10, 10, 5, 0]
        claimed = await claim(store, 99)
        await end(store, *(Buried(job, "failed", "over") for job in claimed))


async def purge(store: Store, *states: str, **filters: Any) -> int:
    return await store.write(
        lambda tx: jobs.purge(tx, states=states, **{"finished_before": None, "limit": 99, **filters})
    )


async def test_purge_removes_what_ended_before(store: Store) -> None:
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


async def test_purge_of_a_queue_leaves_what_runs_and_what_is_in_others(store: Store) -> None:
    await add(store, new(), new(), new(after=5), new(queue="video"), new(limit=Limit("a", interval_us=99)))
    [running] = await claim(store)
    assert await purge(store, *jobs.STATES, queue="default") == 3
    assert ids(await jobs.find(store, limit=9)) == [4, running.id]
    assert await purge(store, "nonsense", "") == 0


async def test_purge_goes_in_pages(store: Store) -> None:
    await add(store, *(new(queue=f"q{number % 3}") for number in range(25)))
    await cancel(store, *range(1, 26))
    assert [await purge(store, "cancelled", limit=10, finished_before=NOW + 1) for _ in range(4)] == [10, 10, 5, 0]


@pytest.mark.parametrize("state", jobs.STATES)
async def test_jobs_are_found_by_their_state(store: Store, state: str) -> None:
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


async def test_counts_show_every_queue_that_a_job_names(store: Store) -> None:
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


async def test_find_and_one(store: Store) -> None:
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, queue: str
) -> None:
    sqlite = SqliteDatabase(tmp_path)
    asked: list[tuple[str, list[Any]]] = []

    async def read(query: pw.Node) -> list[Any]:
        asked.append(render(pw.SqliteDatabase(None), query))
        return []

    async with opened(sqlite) as store:
        monkeypatch.setattr(store, "read", read)
        await jobs.find(store, limit=5, state=state, queue=queue, before_id=9)
        plan = [row[3] for text, values in asked for row in sqlite.sql(f"EXPLAIN QUERY PLAN {text}", *values)]
    assert not [step for step in plan if step.startswith("SCAN")], plan


STATEMENTS = {
    f"{module.__name__}.{name}": statement
    for module in (breakers, claims, ends, job_adding, job_outlook, job_views, jobs, limits, queues)
    for name, statement in vars(module).items()
    if isinstance(statement, Statement)
}
WHOLE = ("job_views.READY", "job_views.BLOCKED", "job_views.DELAYED", "job_views.EXECUTING", "job_views.ENDED")


@pytest.mark.parametrize("name", STATEMENTS)
async def test_every_statement_uses_an_index(tmp_path: Path, name: str) -> None:
    text = STATEMENTS[name].text(pw.SqliteDatabase(None))
    sqlite = SqliteDatabase(tmp_path)
    async with opened(sqlite):
        plan = [row[3] for row in sqlite.sql(f"EXPLAIN QUERY PLAN {text}", *[1] * text.count("?"))]
    given = ("SCAN CONSTANT ROW", "SCAN v VIRTUAL", "SCAN json_each VIRTUAL")  # what comes with the statement itself
    reads = [step for step in plan if re.match("SCAN|SEARCH", step) and not step.startswith(given)]
    assert reads
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    if name.removeprefix("edgeq.store.") in WHOLE:
        assert all("USING" in step and "INDEX jobs_" in step for step in reads), plan
    else:
        assert all(step.startswith("SEARCH") and re.search("INDEX|PRIMARY KEY", step) for step in reads), plan
