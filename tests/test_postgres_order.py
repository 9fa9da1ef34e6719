"""Events become visible in the order of their ids, whoever writes them (G6); and these tests see it when they don't."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from support.postgres import Postgres
from support.processing import Bench, Recorder, nothing
from support.stores import PostgresDatabase

from edgeq.errors import StoreError
from edgeq.events import NewEvent
from edgeq.store import events
from edgeq.store.store import Store, Tx
from edgeq.testing import until

WRITERS = 16
TRANSACTIONS = 12
DROP_TRIGGER = "DROP TRIGGER events_in_commit_order ON events"
COLUMNS = "type, subject, data, tags, description, occurred_at, recorded_at"
ROW = ("in.foreign", "", "null", "[]", "", 1, 1)
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id"
SELECTED = f"""INSERT INTO events ({COLUMNS})
SELECT 'in.foreign', '', 'null', '[]', '', 1, 1 FROM generate_series(1, %s)"""

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase.on(postgres)
    yield database
    database.drop()


def insert_each(connection: Connection, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 4)):
        connection.execute(INSERT, ROW)
        pause(rng)


def insert_selected(connection: Connection, rng: random.Random) -> None:
    connection.execute(SELECTED, (rng.randrange(1, 6),))


def copy(connection: Connection, rng: random.Random) -> None:
    with connection.cursor().copy(f"COPY events ({COLUMNS}) FROM STDIN") as rows:
        for _ in range(rng.randrange(1, 6)):
            rows.write_row(ROW)


WAYS: tuple[Callable[[Connection, random.Random], None], ...] = (insert_each, insert_selected, copy)


def pause(rng: random.Random) -> None:
    time.sleep(rng.choice((0.0, 0.0, 0.002, 0.01)))


def foreign(url: str, number: int) -> None:
    """Somebody who knows nothing of edgeq: transactions that take their time, some of which are rolled back."""
    rng, way = random.Random(number), WAYS[number % len(WAYS)]
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(TRANSACTIONS):
            with connection.transaction():
                way(connection, rng)
                pause(rng)
                if rng.random() < 0.3:
                    raise psycopg.Rollback
            pause(rng)


async def ours(store: Store, number: int) -> None:
    """A program of ours: units, some of which raise, a few in one commit."""
    rng = random.Random(number)

    def unit(tx: Tx, fails: bool) -> None:
        events.append(tx, [NewEvent("in.ours", occurred_at=1, recorded_at=1)] * rng.randrange(1, 4))
        pause(rng)
        if fails:
            raise KeyError(number)

    for _ in range(TRANSACTIONS):
        fails = [rng.random() < 0.3 for _ in range(rng.randrange(1, 3))]
        done = await asyncio.gather(
            *(store.submit(lambda tx, fail=fail: unit(tx, fail)) for fail in fails), return_exceptions=True
        )
        assert [isinstance(each, KeyError) for each in done] == fails


async def read_while_written(database: PostgresDatabase, *, foreign_writers: int) -> tuple[list[int], list[int]]:
    """Which ids a processor was given while WRITERS wrote, and which there are."""
    processor = Recorder(nothing)
    async with Bench(database) as bench, contextlib.AsyncExitStack() as stack:
        runner = bench.runner("reader", processor)
        await runner.start()
        stores = [
            await stack.enter_async_context(database.opened(beside=True)) for _ in range(WRITERS - foreign_writers)
        ]
        if not stores:
            database.sql(DROP_TRIGGER)
        writers: list[Any] = [asyncio.to_thread(foreign, database.url, number) for number in range(foreign_writers)]
        writing = asyncio.gather(*writers, *(ours(store, number) for number, store in enumerate(stores)))
        while not writing.done():
            bench.store.signal.fire(["events"])
            await asyncio.sleep(0.001)
        await writing
        bench.store.signal.fire(["events"])
        await bench.settled(runner)
    return processor.seen, [row[0] for row in database.sql("SELECT id FROM events WHERE type LIKE 'in.%%' ORDER BY id")]


async def test_a_processor_is_given_all_that_is_committed_while_many_write(database: PostgresDatabase) -> None:
    seen, there = await read_while_written(database, foreign_writers=WRITERS - 4)
    assert seen == there
    assert len(there) < there[-1], "some were rolled back"


def test_without_the_trigger_a_processor_misses_events(postgres: Postgres) -> None:
    """Else the test above could not fail."""
    for _ in range(10):
        database = PostgresDatabase.on(postgres)
        seen, there = asyncio.run(read_while_written(database, foreign_writers=WRITERS))
        database.drop()
        assert set(seen) <= set(there)
        if seen != there:
            return
    pytest.fail("nothing was missed, though nothing keeps the order")


# Two writers, step by step


@contextlib.contextmanager
def connected(database: PostgresDatabase) -> Iterator[Connection]:
    with psycopg.connect(database.url) as connection:
        yield connection


def somebody_waits(database: PostgresDatabase) -> bool:
    return bool(database.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("way", WAYS)
async def test_who_inserts_second_waits_until_the_first_has_ended(
    database: PostgresDatabase, way: Callable[[Connection, random.Random], None], end: str
) -> None:
    with connected(database) as first, connected(database) as second:
        [(first_id,)] = first.execute(INSERT, ROW).fetchall()
        thread = threading.Thread(target=way, args=(second, random.Random(1)))
        thread.start()
        await until(lambda: somebody_waits(database), "the second to wait")
        first.execute(end)
        thread.join()
        [(lowest,)] = second.execute("SELECT min(id) FROM events WHERE id <> %s", (first_id,)).fetchall()
        assert lowest > first_id


async def test_our_units_wait_for_others_and_others_for_our_units(database: PostgresDatabase) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def unit(tx: Tx) -> int:
        begun.set()
        go_on.wait()
        events.append(tx, [NewEvent("ours", occurred_at=1, recorded_at=1)])
        return events.newest_id(tx)

    async with database.opened() as store:
        with connected(database) as other, connected(database) as third:
            [(other_id,)] = other.execute(INSERT, ROW).fetchall()
            ours = store.submit(unit)
            await until(lambda: somebody_waits(database), "our unit to wait")
            assert not begun.is_set()
            other.commit()
            await asyncio.to_thread(begun.wait)
            thread = threading.Thread(target=third.execute, args=(INSERT, ROW))
            thread.start()
            await until(lambda: somebody_waits(database), "the third to wait")
            go_on.set()
            our_id = await ours
            thread.join()
            [(third_id,)] = third.execute("SELECT max(id) FROM events").fetchall()
            assert other_id < our_id < third_id


# What keeps the order is looked for at the start

ROW_TRIGGER = f"{DROP_TRIGGER}; CREATE TRIGGER events_in_commit_order BEFORE INSERT ON events FOR EACH ROW "
ROW_TRIGGER += "EXECUTE FUNCTION events_in_commit_order()"
SAYS_NOTHING = "CREATE OR REPLACE FUNCTION events_in_commit_order() RETURNS trigger LANGUAGE plpgsql AS "
SAYS_NOTHING += "'BEGIN RETURN NULL; END'"
AFTER_TRIGGER = ROW_TRIGGER.replace("BEFORE", "AFTER").replace("ROW", "STATEMENT")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (DROP_TRIGGER, "trigger"),
        ("ALTER TABLE events DISABLE TRIGGER events_in_commit_order", "trigger"),
        ("ALTER TABLE events ENABLE REPLICA TRIGGER events_in_commit_order", "trigger"),
        (ROW_TRIGGER, "trigger"),
        (AFTER_TRIGGER, "trigger"),
        (ROW_TRIGGER.replace("ROW ", "STATEMENT WHEN (false) "), "trigger"),
        (SAYS_NOTHING, "trigger"),
        ("ALTER TABLE events ALTER id SET GENERATED BY DEFAULT", "GENERATED ALWAYS"),
        ("ALTER TABLE events ALTER id DROP IDENTITY", "GENERATED ALWAYS"),
        ("ALTER TABLE events ALTER id SET CACHE 10", "CACHE 1"),
        ("ALTER TABLE events ALTER id SET CYCLE", "grow"),
        ("ALTER TABLE events ALTER id SET INCREMENT BY -1", "grow"),
    ],
)
async def test_a_table_that_keeps_no_order_is_refused(database: PostgresDatabase, change: str, named: str) -> None:
    database.sql(change)
    with pytest.raises(StoreError, match=rf"doesn't keep the order of events: .*{named}") as refused:
        await database.store().open()
    assert "0001_first_tables.py" in refused.value.hint


async def test_a_trigger_that_always_fires_will_do(database: PostgresDatabase) -> None:
    database.sql("ALTER TABLE events ENABLE ALWAYS TRIGGER events_in_commit_order")
    async with database.opened():
        pass
