"""What befalls a server: units wait, nothing that was acknowledged is lost, and the log says it once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from support.postgres import ROLE, Postgres
from support.power import Disk, NoDiskError
from support.stores import PostgresDatabase

from edgeq.clock import Clock
from edgeq.errors import StoreError, StoreUnavailable
from edgeq.events import NewEvent
from edgeq.store import events, writer
from edgeq.store.postgres import connecting, engine, schema
from edgeq.store.postgres import store as postgres_store
from edgeq.store.postgres.store import PostgresStore
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in life, but for a fifth of a second."""
    writes = connecting.WRITES.replace(f"lock_timeout = '{connecting.LOCK_SECONDS}s'", "lock_timeout = '200ms'")
    assert writes != connecting.WRITES
    monkeypatch.setattr(engine, "WRITES", writes)


@pytest.fixture
def database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase.on(postgres)
    yield database
    database.drop()


@pytest.fixture
def server(own_postgres: Callable[..., Postgres]) -> Postgres:
    return own_postgres(max_connections="20")


@pytest.fixture
def harmed(server: Postgres) -> PostgresDatabase:
    """A database whose server may be harmed."""
    return PostgresDatabase.on(server)


def store_on(url: str) -> PostgresStore:
    return PostgresStore(url, metrics=Metrics(), clock=Clock(), session=False)


@contextlib.asynccontextmanager
async def opened(database: PostgresDatabase) -> AsyncIterator[PostgresStore]:
    store = store_on(database.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Writing:
    """Somebody who stores one event after the other, and notes which were acknowledged."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged: list[str] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Writing:
        self._task = asyncio.create_task(self._write())
        await self.more(3)
        return self

    async def _write(self) -> None:
        while True:
            name = f"e{len(self.acknowledged)}"
            new = NewEvent(name, occurred_at=1, recorded_at=1)
            await self.store.write(lambda tx, new=new: events.append(tx, [new]))  # type: ignore[misc]
            self.acknowledged.append(name)

    async def more(self, count: int = 5) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= wanted, "more acknowledged events", deadline_seconds=40.0)

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def check(self, database: PostgresDatabase) -> None:
        """All that was acknowledged is there, in its order and once; the last may be without its acknowledgement."""
        there = [name for (name,) in database.sql("SELECT type FROM events ORDER BY id")]
        assert there[: len(self.acknowledged)] == self.acknowledged
        assert len(there) <= len(self.acknowledged) + 1


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of the store, warnings and worse."""
    return [r.getMessage() for r in caplog.records if r.name == "edgeq.store" and r.levelno >= logging.WARNING]


async def unavailable(store: Store, reason: str) -> None:
    await until(
        lambda: not store.health.ok and reason in store.health.reason, f"the health {reason}", deadline_seconds=40.0
    )


# Held by somebody else


async def test_a_transaction_that_somebody_left_open_is_named(
    database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(database) as store, Writing(store) as writing:
        with psycopg.connect(database.url, application_name="forgotten") as holder:
            holder.execute(
                "INSERT INTO events (type, subject, data, tags, description, occurred_at, recorded_at) "
                "VALUES ('never', '', 'null', '[]', '', 1, 1)"
            )
            pid = holder.info.backend_pid
            await unavailable(store, f"another session holds the store's lock: {store.place}")
            assert f"held by pid {pid}, forgotten: end what keeps a transaction open there" in store.health.reason
            assert await events.head(store) >= 3, "reading goes on"
            holder.rollback()
        await writing.more()
        assert store.health.ok
    writing.check(database)
    assert len(said(caplog)) == 2
    assert "takes commits again" in said(caplog)[-1]


# Sessions that end


async def test_sessions_that_are_ended_again_and_again(
    database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'edgeq %%' "
    end += "AND datname = current_database()"
    async with opened(database) as store, Writing(store) as writing:
        for _ in range(5):
            database.sql(end)
            await writing.more()
            await events.head(store)
    writing.check(database)
    assert len(said(caplog)) <= 10


# The server


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_restart_in_the_midst_of_writing(
    server: Postgres, harmed: PostgresDatabase, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(harmed) as store, Writing(store) as writing:
        for _ in range(2):
            await asyncio.to_thread(server.restart, mode)
            await writing.more()
            assert await events.head(store) >= 8
    writing.check(harmed)
    assert len(said(caplog)) <= 8


async def test_while_the_server_is_away_units_wait_and_reading_says_why(
    server: Postgres, harmed: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(harmed) as store, Writing(store) as writing:
        await asyncio.to_thread(server.stop)
        await unavailable(store, "the database can't be reached")
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            await events.head(store)
        await asyncio.to_thread(server.start)
        await writing.more()
    writing.check(harmed)
    assert 2 <= len(said(caplog)) <= 4
    assert "takes commits again" in said(caplog)[-1]


async def test_closed_while_the_server_is_away(server: Postgres, harmed: PostgresDatabase) -> None:
    store = store_on(harmed.url)
    await store.open()
    await asyncio.to_thread(server.stop)
    future = store.submit(lambda tx: events.append(tx, [NewEvent("late", occurred_at=1, recorded_at=1)]))
    await unavailable(store, "can't be reached")
    await store.close()
    with pytest.raises(StoreUnavailable):
        await future
    await asyncio.to_thread(server.start)
    assert harmed.sql("SELECT count(*) FROM events") == [(0,)]


async def test_when_the_server_has_no_connection_left(
    server: Postgres, harmed: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(harmed) as store, Writing(store) as writing:
        server.sql(server.url, f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
        server.terminate("edgeq writer")
        await unavailable(store, "too many connections")
        server.sql(server.url, f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
        await writing.more()
    writing.check(harmed)
    assert len(said(caplog)) <= 3


async def test_a_database_that_becomes_read_only(database: PostgresDatabase, caplog: pytest.LogCaptureFixture) -> None:
    name = database.url.rpartition("/")[2]
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edgeq writer' "
    end += "AND datname = current_database()"
    async with opened(database) as store, Writing(store) as writing:
        database.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        database.sql(end)
        await unavailable(store, "the database is read-only")
        assert await events.head(store) >= 3
        database.sql(f"BEGIN READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only; COMMIT")
        await writing.more()
    writing.check(database)
    assert len(said(caplog)) <= 3


async def test_reasons_that_change_to_and_fro_are_said_once_each(
    database: PostgresDatabase, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_on(database.url)
    for number in range(50):
        store._writer.unavailable(f"the database can't be reached: it said {number}")
        store._writer.unavailable(f"another session holds the store's lock: pid {number}")
        assert store.health.reason.endswith(f"pid {number}")
    assert len(said(caplog)) == 2
    store._writer._available()
    store._writer.unavailable("the database can't be reached: again")
    assert len(said(caplog)) == 3, "what comes back at once was said"
    store._writer._available()
    monkeypatch.setattr(writer, "_CALM_SECONDS", 0.0)
    store._writer.unavailable("the database can't be reached: again")
    assert len(said(caplog)) == 4


# Disks

# Made before anybody writes, and switched on by a row: making or dropping a trigger would lock out the writer.
REFUSE = """
CREATE TABLE refusing (yes bool);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM refusing) THEN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '{code}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("53100", "the server's disk is full"),
        ("53200", "the server has no memory left"),
        ("58030", "the server's disk or system answers with an error"),
        ("40001", "the database has ended the transaction in favour of another one"),
        ("57014", "a statement was cancelled at the server"),
        ("XX001", "the database is damaged, or the server has a fault"),
    ],
)
async def test_what_the_server_says_is_told(
    database: PostgresDatabase, code: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    database.sql(REFUSE.replace("{code}", code))
    async with opened(database) as store, Writing(store) as writing:
        database.sql("INSERT INTO refusing VALUES (true)")
        await unavailable(store, reason)
        database.sql("DELETE FROM refusing")
        await writing.more()
    writing.check(database)
    assert len(said(caplog)) == 2


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk that is soon full, for whoever the server runs as."""
    place = Path(tempfile.mkdtemp(prefix="edgeq-small-"))
    place.chmod(0o755)
    try:
        with Disk(place) as disk:
            disk.folder.chmod(0o777)
            yield disk.folder
    except NoDiskError as why:
        pytest.skip(str(why))
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def test_a_disk_that_is_full_until_somebody_makes_room(
    small_disk: Path, server: Postgres, harmed: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    name = harmed.url.rpartition("/")[2]
    space = small_disk / "space"
    space.mkdir()
    shutil.chown(space, server.folder.owner())
    server.sql(server.url, f"CREATE TABLESPACE small LOCATION '{space}'")
    server.sql(server.url, f"ALTER DATABASE {name} SET TABLESPACE small")
    async with opened(harmed) as store, Writing(store) as writing:
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(2**20))
        await unavailable(store, "the server's disk is full")
        assert await events.head(store) >= 3
        (small_disk / "filler").unlink()
        await writing.more()
    writing.check(harmed)
    assert len(said(caplog)) == 2
    server.stop()  # before its disk goes


@pytest.mark.parametrize("how", ["in a thread", "on the loop", "cancelled"])
async def test_an_attempt_to_connect_that_fails_leaves_no_socket_behind(how: str) -> None:
    begun, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        await reader.read()
        ended.set_result(None)
        writer.close()

    silent = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    url = f"postgresql://{ROLE}@127.0.0.1:{silent.sockets[0].getsockname()[1]}/x?connect_timeout=2"
    gc.disable()
    try:
        if how == "in a thread":
            attempt = asyncio.ensure_future(asyncio.to_thread(connecting.connect, url, "test", ""))
        else:
            attempt = asyncio.ensure_future(connecting.connect_async(url, "test", ""))
        if how == "cancelled":
            await asyncio.wait_for(begun.wait(), 60)
        else:
            await asyncio.wait([attempt])
        attempt.cancel()
        await asyncio.wait([attempt])
        await asyncio.wait_for(ended, 60)  # while the attempt and its error are still at hand
    finally:
        gc.enable()
        silent.close()
    assert attempt.cancelled() or isinstance(attempt.exception(), psycopg.OperationalError)


# At the start


@pytest.mark.parametrize(
    ("was", "instead", "reason", "hint"),
    [
        ("/test_", "/nowhere_", "does not exist", "store.url"),
        (f"{ROLE}@", "nobody@", "does not exist", "store.url"),
        (f"{ROLE}@", f"{ROLE}:wrong@", "password authentication failed", "store.url"),
        (f"{ROLE}@", f"{ROLE}@", "no password supplied", "store.url"),
    ],
)
async def test_who_is_not_let_in_is_told_why_and_does_not_wait(
    server: Postgres, harmed: PostgresDatabase, was: str, instead: str, reason: str, hint: str
) -> None:
    if "password" in reason:
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        server.sql(server.url, f"ALTER ROLE {ROLE} PASSWORD 'right'")
        server.sql(server.url, "SELECT pg_reload_conf()")
    with pytest.raises(StoreError, match=reason) as refused:
        await store_on(harmed.url.replace(was, instead)).open()
    assert not isinstance(refused.value, StoreUnavailable)
    assert "wrong" not in str(refused.value), "the password is nobody's business"
    assert hint in (refused.value.hint or "")


async def test_who_may_make_no_tables_is_told_so(server: Postgres, harmed: PostgresDatabase) -> None:
    server.sql(server.url, "CREATE DATABASE theirs")
    server.sql(f"{server.url.rpartition('/')[0]}/theirs", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(StoreError, match="the user has no right") as refused:
        await store_on(f"{harmed.url.rpartition('/')[0]}/theirs").open()
    assert not isinstance(refused.value, StoreUnavailable)
    assert "own the database" in (refused.value.hint or "")


async def test_a_server_that_is_not_up_yet_is_worth_waiting_for(server: Postgres, harmed: PostgresDatabase) -> None:
    server.stop()
    store = store_on(harmed.url)
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        await store.open()
    assert not store.health.ok
    server.start()
    await store.open()
    assert store.health.ok
    assert await store.write(events.newest_id) == 0
    await store.close()


@pytest.mark.parametrize("connected", [False, True])
async def test_closing_waits_for_no_answer_to_a_question(
    server: Postgres, harmed: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    monkeypatch.setattr(postgres_store, "_HUNG_SECONDS", 0.2)
    store = store_on(harmed.url)
    await store.open()
    if connected:
        await events.head(store)
        server.freeze()
    else:
        monkeypatch.setattr(connecting, "_adapt", lambda connection: server.freeze())
    asking = asyncio.create_task(events.head(store))
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await store.close()
        with pytest.raises(StoreUnavailable):
            await asking
    finally:
        await asyncio.to_thread(server.thaw)


async def test_a_start_that_is_called_off_leaves_no_connection_behind(
    harmed: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, reached, prepare = threading.Event(), threading.Event(), schema.prepare

    def held(url: str, *, may_change: bool) -> str:
        reached.set()
        assert go_on.wait(60)
        return prepare(url, may_change=may_change)

    monkeypatch.setattr(schema, "prepare", held)
    store = store_on(harmed.url)
    opening = asyncio.create_task(store.open())
    await asyncio.to_thread(reached.wait, 60)
    opening.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not store._engine.is_connected
    text = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'edgeq%'"
    await until(lambda: harmed.sql(text) == [(0,)])
