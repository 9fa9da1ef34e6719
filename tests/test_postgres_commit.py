"""A commit of which the answer never came: what it did is there once, whether it was on disk or not."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.postgres import Postgres
from support.proxy import Fate, Proxy
from support.stores import PostgresDatabase

from edgeq.clock import Clock
from edgeq.errors import StoreError, StoreUnavailable
from edgeq.events import NewEvent
from edgeq.store import events
from edgeq.store.postgres.store import PostgresStore
from edgeq.store.store import Tx, Unit
from edgeq.store.tables import Events
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

FATES: tuple[Fate, ...] = ("lost", "late", "unanswered")


@pytest.fixture
def database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase.on(postgres)
    yield database
    database.drop()


def port(database: PostgresDatabase) -> int:
    return urlsplit(database.url).port or 0


def store_on(database: PostgresDatabase, proxy: Proxy | None = None) -> PostgresStore:
    """A store with nothing but its writing connection, behind the proxy."""
    url = database.url if proxy is None else database.url.replace(f":{port(database)}/", f":{proxy.port}/")
    return PostgresStore(url, metrics=Metrics(), clock=Clock(), session=False)


@asynccontextmanager
async def gathering(store: PostgresStore) -> AsyncIterator[None]:
    """What is handed over meanwhile will be one batch."""
    begun, go_on = threading.Event(), threading.Event()

    def unit(tx: Tx) -> None:
        begun.set()
        go_on.wait()

    before = store.submit(unit)
    await asyncio.to_thread(begun.wait)
    yield
    go_on.set()
    await before


def commits_meet(proxy: Proxy, *fates: Fate) -> Callable[[], int]:
    """Have the next commits meet these fates; how many have."""
    coming = iter(fates)
    met = itertools.count()
    seen = 0

    def fate(data: bytes) -> Fate:
        nonlocal seen
        if b"COMMIT\0" not in data:
            return "passes"
        seen = next(met) + 1
        return next(coming, "passes")

    proxy.fate = fate
    return lambda: seen


def event(name: str) -> Unit[int]:
    """A unit that stores one event and says which it is."""

    def unit(tx: Tx) -> int:
        events.append(tx, [NewEvent(name, occurred_at=1, recorded_at=1)])
        return events.newest_id(tx)

    return unit


def failing(name: str) -> Unit[int]:
    """A unit that stores one event and raises."""

    def unit(tx: Tx) -> int:
        event(name)(tx)
        raise KeyError(name)

    return unit


def stored(database: PostgresDatabase) -> list[str]:
    return [name for (name,) in database.sql("SELECT type FROM events ORDER BY id")]


def ids(database: PostgresDatabase) -> list[int]:
    return [event_id for (event_id,) in database.sql("SELECT id FROM events ORDER BY id")]


@pytest.mark.parametrize("fate", FATES)
async def test_units_whose_commit_was_not_answered_are_there_once(
    database: PostgresDatabase, fate: Fate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgeq.store")
    async with Proxy(port(database)) as proxy:
        store = store_on(database, proxy)
        await store.open()
        await store.write(event("before"))
        seen = store.signal.version("events")
        async with gathering(store):
            futures = [store.submit(unit) for unit in (event("a"), failing("no"), event("b"))]
            met = commits_meet(proxy, "passes", fate)  # the first is not that of ours
        a, no, b = await asyncio.gather(*futures, return_exceptions=True)
        assert met() >= 2
        assert stored(database) == ["before", "a", "b"]
        assert isinstance(no, KeyError)
        assert ids(database)[1:] == [a, b]
        assert store.signal.version("events") == seen + 1
        assert store.health.ok
        outcome = "is made again" if fate == "lost" else "is there"
        assert [r.message for r in caplog.records if "outcome" in r.message] == [
            f"the commit of which the outcome was unknown {outcome}"
        ]
        await store.write(event("after"))
        await store.close()
    assert stored(database) == ["before", "a", "b", "after"]


@pytest.mark.parametrize("fate", FATES)
async def test_the_question_what_became_of_it_may_be_lost_too(database: PostgresDatabase, fate: Fate) -> None:
    async with Proxy(port(database)) as proxy:
        store = store_on(database, proxy)
        await store.open()
        met = commits_meet(proxy, fate, "unanswered", "lost", "late")
        assert [await store.write(event("once"))] == ids(database)
        assert met() >= 4
        await store.close()
    assert stored(database) == ["once"]


@settings(max_examples=12)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.sampled_from(["passes", *FATES]), max_size=6),
)
def test_every_unit_has_its_effect_once_or_says_that_it_failed(
    database: PostgresDatabase, batches: Sequence[Sequence[bool]], fates: Sequence[Fate]
) -> None:
    async def run() -> None:
        database.sql("DELETE FROM events")
        async with Proxy(port(database)) as proxy:
            store = store_on(database, proxy)
            await store.open()
            commits_meet(proxy, *fates)
            expected = []
            for number, batch in enumerate(batches):
                names = [f"{number}.{n}" for n in range(len(batch))]
                units = [event(name) if works else failing(name) for name, works in zip(names, batch, strict=True)]
                done = await asyncio.gather(*(store.submit(unit) for unit in units), return_exceptions=True)
                assert [not isinstance(result, KeyError) for result in done] == list(batch)
                expected += [name for name, works in zip(names, batch, strict=True) if works]
                assert stored(database) == expected
            await store.close()

    asyncio.run(run())


# Closing meanwhile


@pytest.mark.parametrize("fate", FATES)
async def test_closing_asks_once_more_what_became_of_it(database: PostgresDatabase, fate: Fate) -> None:
    async with Proxy(port(database)) as proxy:
        store = store_on(database, proxy)
        await store.open()
        met = commits_meet(proxy, fate)
        future = store.submit(event("a"))
        await until(lambda: met() >= 1, "the commit")  # it may have been made again by now
        await store.close()
        assert [await future] == ids(database)
    assert stored(database) == ["a"]


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
async def test_closed_without_an_answer_nobody_is_told_that_it_worked(database: PostgresDatabase, fate: Fate) -> None:
    async with Proxy(port(database)) as proxy:
        store = store_on(database, proxy)
        await store.open()
        met = commits_meet(proxy, fate)
        proxy.refuse = True  # those that come; the one that is there goes on
        future = store.submit(event("a"))
        await until(lambda: met() == 1, "the commit")
        await store.close()
        with pytest.raises(StoreUnavailable):
            await future
    assert stored(database) in ([], ["a"])


# The server ends the session itself


def terminate_writer(database: PostgresDatabase) -> int:
    return len(
        database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'edgeq writer' AND datname = current_database()"
        )
    )


async def test_a_session_that_is_ended_before_its_commit_begins_anew(database: PostgresDatabase) -> None:
    runs = []

    def unit(tx: Tx) -> None:
        event("a")(tx)
        runs.append(1)
        if len(runs) == 1:
            assert terminate_writer(database) == 1

    store = store_on(database)
    await store.open()
    await store.write(unit)
    assert len(runs) == 2
    assert stored(database) == ["a"]
    await store.close()


@contextmanager
def commits_take_their_time(database: PostgresDatabase) -> Iterator[None]:
    """Meanwhile a COMMIT of events waits in its midst, before anything of it counts."""
    database.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); "
        "RETURN NULL; END'"
    )
    database.sql(
        "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    with psycopg.connect(database.url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        yield


async def test_a_session_that_is_ended_in_the_midst_of_its_commit_begins_anew(database: PostgresDatabase) -> None:
    store = store_on(database)
    await store.open()
    with commits_take_their_time(database):
        future = store.submit(event("a"))
        waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: database.sql(waits), "the commit")
        assert terminate_writer(database) == 1
    await future
    assert stored(database) == ["a"]
    await store.close()


@pytest.fixture
def server(own_postgres: Callable[..., Postgres]) -> Postgres:
    return own_postgres()


@pytest.fixture
def database_there(server: Postgres) -> PostgresDatabase:
    return PostgresDatabase.on(server)


async def test_a_session_that_is_ended_once_its_commit_counts_is_not_repeated(
    server: Postgres, database_there: PostgresDatabase
) -> None:
    database = database_there
    store = store_on(database)
    await store.open()
    # On disk here, a commit waits for a standby that there isn't.
    server.sql(server.url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.sql(server.url, "SELECT pg_reload_conf()")
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    submitted: list[asyncio.Future[int]] = []
    while not submitted or submitted[-1].done():  # the server takes its time to read its settings
        submitted.append(store.submit(event(str(len(submitted) + 1))))
        await until(lambda: submitted[-1].done() or database.sql(waits), "the commit")
    assert terminate_writer(database) == 1
    await until(submitted[-1].done, "the answer")
    names = range(1, len(submitted) + 1)
    assert await asyncio.gather(*submitted) == list(names)
    assert stored(database) == [str(name) for name in names]
    server.sql(server.url, "ALTER SYSTEM RESET synchronous_standby_names")
    server.sql(server.url, "SELECT pg_reload_conf()")
    await store.close()


# A unit that hides a failure


def hiding(tx: Tx) -> None:
    event("hidden")(tx)
    with suppress(psycopg.Error):
        tx.insert_returning(Events, ("type",), [("incomplete",)])


@pytest.mark.parametrize("others", [0, 2])
async def test_a_unit_that_goes_on_after_a_failed_statement_fails_alone(
    database: PostgresDatabase, others: int
) -> None:
    store = store_on(database)
    await store.open()
    async with gathering(store):
        before = [store.submit(event("a")) for _ in range(others)]
        hides = store.submit(hiding)
        after = [store.submit(event("a")) for _ in range(others)]
    with pytest.raises(StoreError, match="failed"):
        await asyncio.wait_for(hides, 60)
    await asyncio.gather(*before, *after)
    assert stored(database) == ["a"] * 2 * others
    assert store.health.ok
    await store.close()


async def test_the_marks_of_writers_that_have_ended_are_removed_in_the_end(database: PostgresDatabase) -> None:
    for name, age in (("long ago", "8 days"), ("yesterday", "1 day")):
        database.sql("INSERT INTO writers VALUES (?, 1, now() - CAST(? AS interval))", name, age)
    store = store_on(database)
    await store.open()
    await store.write(event("a"))
    await store.close()
    names = [name for (name,) in database.sql("SELECT name FROM writers ORDER BY used_at")]
    assert names == ["yesterday", store._engine.name]
