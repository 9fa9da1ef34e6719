"""The store: what a commit promises, how units are gathered, and who is woken by it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import peewee as pw
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processing import writer_blocked
from support.statements import END_OF_TABLE, SORTED, WHOLE_TABLE, statements
from support.stores import Database, SqliteDatabase, emptied

from edgeq.errors import StoreError, StoreUnavailable
from edgeq.events import NewEvent
from edgeq.store import cursors, events, meta
from edgeq.store.cursors import CursorMoved
from edgeq.store.store import TOPICS, Signal, Statement, Store, Topic, Tx
from edgeq.store.tables import Events
from edgeq.testing import FakeClock, until


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with database.opened() as store:
        yield store


def new(kind: str = "a", key: str | None = None) -> NewEvent:
    return NewEvent(kind, occurred_at=1, recorded_at=2, idempotency_key=key)


def commits(store: Store) -> int:
    return store._writer._metrics.commits.total()


async def types(store: Store) -> list[str]:
    return [event.type for event in await events.after(store, 0, 10_000)]


# Units and commits


async def test_an_event_comes_back_as_it_was_stored(store: Store) -> None:
    event = NewEvent(
        "door.opened", subject="front door", topic="doors/front", data_json='{"n":1}', tags=("a", "b"),
        description="ä ☃ 𝄞", occurred_at=-5, recorded_at=2**62, idempotency_key="k", cause_id=7,
    )  # fmt: skip
    assert await store.write(lambda tx: events.append(tx, [event])) == events.Appended(1, 0)
    (stored,) = await events.after(store, 0, 10)
    assert stored.as_dict() == {
        "id": 1, "type": "door.opened", "subject": "front door", "topic": "doors/front", "data": {"n": 1},
        "tags": ["a", "b"], "description": "ä ☃ 𝄞", "occurred_at": -5, "recorded_at": 2**62, "idempotency_key": "k",
        "cause_id": 7,
    }  # fmt: skip
    found = await events.one(store, 1)
    assert found is not None
    assert found.as_dict() == stored.as_dict()
    assert await events.one(store, 2) is None


async def test_units_that_wait_together_are_one_commit(store: Store) -> None:
    async with writer_blocked(store):
        before = commits(store)
        futures = [store.submit(lambda tx, n=n: events.append(tx, [new(f"e{n}")])) for n in range(500)]
    await asyncio.gather(*futures)
    assert commits(store) - before <= 3
    assert await types(store) == [f"e{n}" for n in range(500)], "units are committed in their order"


async def test_a_unit_that_raises_leaves_nothing_and_hurts_nobody(store: Store) -> None:
    def half(tx: Tx) -> None:
        events.append(tx, [new("half")])
        tx.touch("jobs")
        raise KeyError("the unit's own")

    async with writer_blocked(store):
        futures: list[asyncio.Future[Any]] = []
        for n in range(20):
            futures.append(store.submit(lambda tx, n=n: events.append(tx, [new(f"e{n}")])))
            futures.append(store.submit(half))
        jobs = store.signal.version("jobs")
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(result, KeyError) for result in results[1::2])
    assert all(result == events.Appended(1, 0) for result in results[::2])
    assert await types(store) == [f"e{n}" for n in range(20)]
    assert store.signal.version("jobs") == jobs, "what wasn't committed wakes nobody"
    with pytest.raises(KeyError):
        await store.write(half)  # alone in its commit
    assert len(await types(store)) == 20
    assert store.health.ok


@pytest.mark.parametrize(
    "bad",
    [{"subject": "lone \ud800"}, {"occurred_at": 2**63}, {"topic": object()}],
    ids=["text", "number", "type"],
)
async def test_what_no_database_can_hold_is_the_units_error_alone(store: Store, bad: dict[str, Any]) -> None:
    hostile = NewEvent("bad", **{"occurred_at": 0, "recorded_at": 0, **bad})
    async with writer_blocked(store):
        one = store.submit(lambda tx: events.append(tx, [new("before")]))
        two = store.submit(lambda tx: events.append(tx, [new("with it"), hostile]))
        three = store.submit(lambda tx: events.append(tx, [new("after")]))
    results = await asyncio.gather(one, two, three, return_exceptions=True)
    assert isinstance(results[1], UnicodeEncodeError | OverflowError | TypeError | sqlite3.Error | psycopg.Error)
    assert await types(store) == ["before", "after"]
    assert store.health.ok


async def test_a_nul_is_kept_as_it_is_or_the_units_error_alone(database: Database, store: Store) -> None:
    write = store.write(lambda tx: events.append(tx, [new("front \0 door")]))
    if database.kind == "sqlite":
        await write
    else:
        with pytest.raises(psycopg.DataError, match="NUL"):
            await write
    assert await types(store) == (["front \0 door"] if database.kind == "sqlite" else [])
    assert store.health.ok


async def test_what_a_unit_reads_is_as_of_its_own_transaction(store: Store) -> None:
    def count_up(tx: Tx) -> None:
        rows = tx.rows(meta._VALUE, ("n",))
        meta.put(tx, "n", str(int(rows[0][0]) + 1 if rows else 1))

    await asyncio.gather(*(store.write(count_up) for _ in range(100)))
    assert await meta.get(store, "n") == "100"


async def test_a_read_sees_what_was_written_before_it(store: Store) -> None:
    for n in range(50):
        await store.write(lambda tx: events.append(tx, [new()]))
        assert await events.head(store) == n + 1


async def test_ids_are_never_used_again(database: Database, store: Store) -> None:
    await store.write(lambda tx: events.append(tx, [new()] * 5))
    await store.write(lambda tx: tx.run(Events.delete()))
    await store.write(lambda tx: events.append(tx, [new()]))
    assert await events.head(store) == 6
    await store.write(lambda tx: tx.run(Events.delete()))
    await store.close()
    async with database.opened() as again:
        await again.write(lambda tx: events.append(tx, [new()]))
        assert await events.head(again) == 7


async def test_commit_interval_gathers(database: Database) -> None:
    async with database.opened(commit_interval_seconds=0.5) as store:
        began = time.monotonic()
        await store.write(lambda tx: None)
        before = commits(store)
        futures = []
        for n in range(20):
            futures.append(store.submit(lambda tx, n=n: events.append(tx, [new(f"e{n}")])))
            await asyncio.sleep(0.001)
        await asyncio.gather(*futures)
        # One, where those 20 turns take no longer than the interval.
        assert 1 <= commits(store) - before <= (time.monotonic() - began) / 0.5


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_durability_is_what_sqlite_is_told(tmp_path: Path, durability: str, level: int) -> None:
    async with SqliteDatabase(tmp_path).opened(durability=durability) as store:
        pragma = await store.write(lambda tx: tx._connection.execute("PRAGMA synchronous").fetchone())  # type: ignore[attr-defined]
        assert pragma == (level,)


async def test_the_log_of_sqlite_does_not_grow_without_end(tmp_path: Path) -> None:
    sizes = []
    async with SqliteDatabase(tmp_path).opened() as store:
        for _ in range(6):
            for _ in range(10):
                await store.write(lambda tx: events.append(tx, [new()] * 1000))
            sizes.append(Path(store.path + "-wal").stat().st_size)  # noqa: ASYNC240
    assert max(sizes[2:]) <= max(sizes[:2]) * 1.5


# Insert


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30), max_size=40), st.sampled_from([0, 1, 4, 5, 24, 25, 99, 100, 499, 500, 501, 1234]))
def test_insert_counts_what_it_stored(database: Database, keys: list[int], fresh: int) -> None:
    rows = [new(f"k{key}", key=f"k{key}") for key in keys] + [new("n")] * fresh
    random.Random(fresh).shuffle(rows)

    async def run() -> None:
        async with database.opened() as store:
            await store.write(emptied)
            appended = await store.write(lambda tx: events.append(tx, rows))
            assert appended.stored == fresh + len(set(keys))
            assert appended.duplicates == len(keys) - len(set(keys))
            again = await store.write(lambda tx: events.append(tx, rows))
            assert again == events.Appended(fresh, len(keys))
            wanted: list[str] = []
            for row in rows:
                if row.idempotency_key is None or row.type not in wanted:
                    wanted.append(row.type)
            assert (await types(store))[: len(wanted)] == wanted

    asyncio.run(run())


# Lazy units


async def test_a_lazy_unit_rides_with_the_next_commit_and_runs_before_it(database: Database) -> None:
    async with database.opened(clock=FakeClock()) as store:
        before = commits(store)
        for n in range(3):
            store.submit_lazily(lambda tx, n=n: events.append(tx, [new(f"lazy{n}")]), 600.0)
        await store.write(lambda tx: events.append(tx, [new("real")]))
        assert await types(store) == ["lazy0", "lazy1", "lazy2", "real"]
        assert commits(store) - before == 1


async def test_a_lazy_unit_gets_a_commit_of_its_own_after_its_time(database: Database) -> None:
    clock = FakeClock()
    async with database.opened(clock=clock) as store:
        store.submit_lazily(lambda tx: events.append(tx, [new("lazy")]), 2.0)
        clock.advance(1.9)
        await asyncio.sleep(0.3)
        assert await types(store) == []
        clock.advance(0.2)
        await until(lambda: types(store), "the lazy unit", store=store)


async def test_close_commits_lazy_units(database: Database) -> None:
    async with database.opened(clock=FakeClock()) as store:
        store.submit_lazily(lambda tx: events.append(tx, [new("lazy")]), 600.0)
    async with database.opened() as again:
        assert await types(again) == ["lazy"]


async def test_a_lazy_unit_that_raises_is_logged_and_hurts_nobody(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(tx: Tx) -> None:
        events.append(tx, [new("half")])
        raise KeyError("the lazy unit's own")

    store.submit_lazily(broken, 600.0)
    await store.write(lambda tx: events.append(tx, [new("real")]))
    assert await types(store) == ["real"]
    assert "the lazy unit's own" in caplog.text


# Waiting and closing


async def test_close_commits_what_waits_and_then_takes_nothing(database: Database, store: Store) -> None:
    async with writer_blocked(store):
        futures = [store.submit(lambda tx: events.append(tx, [new()])) for _ in range(1500)]
        closed = asyncio.create_task(store.close())
        await asyncio.sleep(0)
    await closed
    await asyncio.gather(*futures)
    with pytest.raises(StoreUnavailable):
        store.submit(lambda tx: None)
    with pytest.raises(StoreUnavailable):
        await events.head(store)
    await store.close()
    assert database.sql("SELECT count(*) FROM events") == [(1500,)]


async def test_write_with_a_time_limit(store: Store) -> None:
    async with writer_blocked(store):
        with pytest.raises(StoreUnavailable):
            await store.write(lambda tx: events.append(tx, [new("late")]), timeout_seconds=0.05)
    await store.write(lambda tx: None)
    assert await types(store) == [], "who was told that it failed must not find it done"


async def test_a_caller_that_is_cancelled_leaves_the_writer_alone(store: Store) -> None:
    async with writer_blocked(store):
        task = asyncio.create_task(store.write(lambda tx: events.append(tx, [new()])))
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.write(lambda tx: events.append(tx, [new("next")]))
    assert (await types(store))[-1] == "next"


# Signals


async def test_a_commit_wakes_those_who_wait_for_what_it_touched(store: Store) -> None:
    seen = store.signal.version("events")
    waiting = asyncio.create_task(store.signal.wait("events", seen, 60.0))
    await asyncio.sleep(0)
    await store.write(lambda tx: tx.touch("jobs"))
    assert not waiting.done()
    await store.write(lambda tx: events.append(tx, [new()]))
    assert await waiting
    assert not await store.signal.wait("jobs", store.signal.version("jobs"), 0.01)
    assert await store.signal.wait("jobs", store.signal.version("jobs") - 1, 60.0)


async def test_a_commit_of_another_process_wakes_who_waits_for_what_it_touched(
    database: Database, store: Store
) -> None:
    async with database.opened(beside=True) as other:
        assert other.id == store.id
        await asyncio.sleep(0.3)
        topics: Sequence[Topic] = (
            TOPICS if database.kind == "sqlite" else ["events"]
        )  # a file doesn't tell what changed
        seen = {topic: store.signal.version(topic) for topic in topics}
        await other.write(lambda tx: events.append(tx, [new()]))
        for topic in topics:
            assert await store.signal.wait(topic, seen[topic], 60.0)
        assert await types(store) == ["a"]


async def test_a_unit_whose_connection_is_lost_is_run_again(database: Database, store: Store) -> None:
    """And what others commit before there is a new one isn't missed, on SQLite, where that is what listens."""
    runs: list[int] = []

    def loses_its_connection(tx: Tx) -> None:
        events.append(tx, [new("whole")])
        runs.append(1)
        if len(runs) == 1:
            store._engine.disconnect()

    await asyncio.sleep(0.3)
    seen = store.signal.version("jobs")
    await store.write(loses_its_connection)
    assert len(runs) == 2
    assert await types(store) == ["whole"]
    if database.kind == "sqlite":
        assert await store.signal.wait("jobs", seen, 60.0)


async def test_watch_sets_one_event_for_several_topics() -> None:
    signal, woken = Signal(), asyncio.Event()
    with signal.watch(woken, "events", "cursors"):
        signal.fire(["jobs"])
        assert not woken.is_set()
        signal.fire(["cursors"])
        assert woken.is_set()
        woken.clear()
    signal.fire(["events", "cursors"])
    assert not woken.is_set()


async def test_idle_writes_nothing(database: Database, store: Store) -> None:
    await store.write(lambda tx: events.append(tx, [new()]))

    async def quiet() -> bool:
        before = commits(store), database.written()
        await asyncio.sleep(0.8)
        return (commits(store), database.written()) == before

    await until(quiet, "a while in which nothing is written")


# Cursors


async def test_the_fence_of_a_cursor(store: Store) -> None:
    first = await store.write(lambda tx: cursors.take(tx, "p", "beginning", 1))
    await store.write(lambda tx: cursors.move(tx, first, 5, 2))
    second = await store.write(lambda tx: cursors.take(tx, "p", "beginning", 3))
    assert (second.last_consumed_id, second.generation) == (5, first.generation + 1)
    failure = cursors.Failure(6, 1, 0, "why")
    with pytest.raises(CursorMoved):
        await store.write(lambda tx: cursors.move(tx, first, 9, 4))
    with pytest.raises(CursorMoved):
        await store.write(lambda tx: cursors.fail(tx, first, failure))
    with pytest.raises(CursorMoved):
        await store.write(lambda tx: cursors.check(tx, first))
    await store.write(lambda tx: cursors.check(tx, second))
    cursor = await cursors.one(store, "p")
    assert cursor == second
    assert await cursors.every(store) == [second]
    assert await store.write(lambda tx: cursors.forget(tx, "p"))
    assert not await store.write(lambda tx: cursors.forget(tx, "p"))


# Plans


@pytest.mark.parametrize(("name", "statement"), statements(), ids=[name for name, _ in statements()])
async def test_every_statement_of_sqlite_goes_by_an_index(tmp_path: Path, name: str, statement: Statement) -> None:
    sqlite = SqliteDatabase(tmp_path)
    async with sqlite.opened():
        text = statement.text(pw.SqliteDatabase(None))
        plan = [row[3] for row in sqlite.sql(f"EXPLAIN QUERY PLAN {text}", *[None] * text.count("?"))]
    scans = [step for step in plan if step.startswith("SCAN t") and "INDEX" not in step]
    if name not in WHOLE_TABLE | END_OF_TABLE:
        assert scans == []
    if name not in WHOLE_TABLE | SORTED:
        assert [step for step in plan if "TEMP B-TREE" in step] == []


def test_a_statement_leaves_its_parameters_open() -> None:
    with pytest.raises(ValueError, match="leave its parameters open"):
        Statement(lambda p: Events.select(Events.id).where(Events.id > 5)).text(pw.SqliteDatabase(None))


# Errors of reading


async def test_a_read_that_fails_says_so(store: Store) -> None:
    class Nowhere(Events):
        class Meta:
            table_name = "nowhere"

    with pytest.raises(StoreError, match="nowhere"):
        await store.read(Nowhere.select(Nowhere.id))
    assert await events.head(store) == 0
