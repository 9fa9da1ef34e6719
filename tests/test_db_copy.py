"""`edgeq db copy`: what arrives, whatever happens meanwhile, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.appliance import Appliance
from support.commands import Edgeq, commands
from support.postgres import Postgres
from support.stored import fill, held, opened, stores

from edgeq.clock import Clock
from edgeq.config.checks import is_postgres
from edgeq.config.schema import Config
from edgeq.config.schema import Store as Settings
from edgeq.errors import StoreError, StoreMissing
from edgeq.events import NewEvent
from edgeq.store import events, jobs
from edgeq.store.copying import copy as copying
from edgeq.store.copying.copy import Step, copy
from edgeq.store.copying.tables import NOT_COPIED, TABLES
from edgeq.store.jobs import NewJob
from edgeq.store.opening import make_store
from edgeq.store.store import Row, Unit
from edgeq.telemetry.metrics import Metrics

WAYS = [("sqlite", "postgresql"), ("postgresql", "sqlite"), ("sqlite", "sqlite"), ("postgresql", "postgresql")]
New = Callable[[str], str]


@pytest.fixture
def new(tmp_path: Path, postgres: Postgres) -> New:
    """Makes the URL of a database, of the kind given, that has no tables yet."""
    numbers = itertools.count(1)

    def make(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path / f"{next(numbers)}.db")
        return postgres.fresh_database()

    return make


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    yield from commands("gateway: g\n", tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ROWS_MAX", 2)


def copied(source: str, target: str, after: int | None = None) -> list[Step]:
    """Copy, or only so many steps of it."""
    with opened(source, target=False) as ours, opened(target) as theirs:
        return list(itertools.islice(copy(ours, theirs), after))


def contents(url: str) -> dict[str, Any]:
    with opened(url, target=False) as side:
        return held(side)


def run(url: str, unit: Unit[Any]) -> Any:
    """Commit a unit to the store, as an appliance does."""

    async def commit() -> Any:
        config = Config(gateway="g", store=Settings(url=url))
        store = make_store(config, "test", metrics=Metrics(), clock=Clock(), exclusive=True, make=True)
        await store.open()
        try:
            return await store.write(unit)
        finally:
            await store.close()

    return asyncio.run(commit())


def sql(url: str, text: str) -> list[Row]:
    if is_postgres(url):
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(url, isolation_level=None)) as file:
        return file.execute(text).fetchall()


def some(count: int = 3) -> list[NewEvent]:
    return [NewEvent("a", number, number, f"s-{number}") for number in range(count)]


def job() -> NewJob:
    return NewJob(queue="default", kind="k:K", args="{}", run_at=0, created_at=0)


# What arrives


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(rows=stores(), numbers=st.integers(0, 3), stops=st.lists(st.integers(0, 60), max_size=3))
def test_everything_arrives_as_it_was_whatever_interrupts_it(
    way: tuple[str, str], new: New, rows: dict[str, list[Row]], numbers: int, stops: list[int]
) -> None:
    origin, there, back = new(way[0]), new(way[1]), new(way[0])
    fill(origin, rows, numbers, clock="{}")
    before = contents(origin)
    for step in stops:
        with suppress(StoreError):  # it was complete already
            copied(origin, there, step)
    with suppress(StoreError):
        copied(origin, there)
    assert contents(there) == before
    copied(there, back)
    assert contents(back) == before == contents(origin)


OTHER = "{0} = CASE WHEN {0} = 1 THEN 2 ELSE 1 END"
HARM = {
    "events": "data = data || ' '", "cursors": OTHER.format("updated_at"), "jobs": "args = args || ' '",
    "queues": "paused = NOT paused", "limits": OTHER.format("rate_at"), "breakers": OTHER.format("failures"),
    "schedules": "spec = spec || ' '", "dead_letters": "error = error || ' '", "notifications": "body = body || ' '",
    "threads": "body = body || ' '", "silences": "comment = comment || ' '",
    "contract_states": "detail = detail || ' '",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS[:2], ids="-".join)
@settings(max_examples=1, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(rows=stores(least=2))
def test_one_row_that_is_not_the_same_is_noticed_in_any_table(
    way: tuple[str, str], new: New, rows: dict[str, list[Row]]
) -> None:
    assert set(HARM) == {table.name for table in TABLES}
    origin = new(way[0])
    fill(origin, rows)
    for table in TABLES:
        key = f'"{table.columns[table.key[0]]}"'
        last = f"WHERE {key} = (SELECT max({key}) FROM {table.name})"
        for harm in (f"UPDATE {table.name} SET {HARM[table.name]} {last}", f"DELETE FROM {table.name} {last}"):
            target = new(way[1])
            with opened(origin, target=False) as ours, opened(target) as theirs:
                steps = copy(ours, theirs)
                next(step for step in steps if step.phase == "compared")
                theirs._connection.execute(harm)  # type: ignore[attr-defined]
                with pytest.raises(StoreError, match=rf"(?s)^{table.name} .* is not the same in "):
                    list(steps)
            with pytest.raises(StoreError, match="incomplete copy"):
                run(target, lambda tx: None)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_no_number_is_used_again(way: tuple[str, str], new: New) -> None:
    origin, target = new(way[0]), new(way[1])
    run(origin, lambda tx: (events.append(tx, some(3)), jobs.add(tx, [job()] * 4)))
    sql(origin, "DELETE FROM events")
    sql(origin, "DELETE FROM jobs WHERE id > 1")
    copied(origin, target)
    run(target, lambda tx: events.append(tx, some(1)))
    assert sql(target, "SELECT id FROM events") == [(4,)]
    assert [each.id for each in run(target, lambda tx: jobs.add(tx, [job(), job()]))] == [5, 6]


COLUMNS = {
    "sqlite": "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c "
    "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%'",
    "postgresql": "SELECT table_name::text, column_name::text FROM information_schema.columns "
    "WHERE table_schema = 'public'",
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_table_and_every_column_is_copied(kind: str, new: New) -> None:
    url = new(kind)
    run(url, lambda tx: None)
    there = {pair for pair in sql(url, COLUMNS[kind]) if pair[0] not in NOT_COPIED[kind]}
    known = {(table.name, column) for table in TABLES for column in table.columns}
    assert there == known | {("meta", "key"), ("meta", "value")}, "tell edgeq.store.copying of it"


def test_large_rows_do_not_fill_the_memory(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ROWS_MAX", 1000)
    origin, there, back = new("sqlite"), new("postgresql"), new("sqlite")
    run(origin, lambda tx: None)
    sql(
        origin,
        """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
        INSERT INTO dead_letters (source, reason, error, payload, created_at)
        SELECT 'intake', 'too_large', '', randomblob(2000000), i FROM n""",
    )
    tracemalloc.start()
    try:
        copied(origin, there)
        copied(there, back)
        assert tracemalloc.get_traced_memory()[1] < 40e6, "half of what the table holds"
    finally:
        tracemalloc.stop()


# Interrupted


def _edgeq(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeq.cli.main", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("way", WAYS[:2], ids="-".join)
def test_killed_again_and_again_it_goes_on_where_it_was(way: tuple[str, str], new: New, tmp_path: Path) -> None:
    origin, target = new(way[0]), new(way[1])
    run(origin, lambda tx: (events.append(tx, some(5000)), jobs.add(tx, [job()] * 10)))
    for place, there in (("copy.committed:1", 2000), ("copy.committed:3", 5000), ("copy.compared", 5000)):
        done = _edgeq("db", "copy", origin, target, folder=tmp_path, EDGEQ_FAILPOINT=place)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert sql(target, "SELECT count(*) FROM events") == [(there,)]
        with pytest.raises(StoreError, match="is the incomplete copy of another store"):
            run(target, lambda tx: None)
    done = _edgeq("db", "copy", origin, target, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "events: 5000 rows, the same on both sides, sha256 " in done.stdout
    assert "jobs: 10 rows, the same on both sides" in done.stdout
    assert contents(target) == contents(origin)
    run(target, lambda tx: None)


def test_ctrl_c_says_how_to_go_on(edgeq: Edgeq, new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    origin, target = new("sqlite"), new("postgresql")
    run(origin, lambda tx: events.append(tx, some(3)))
    with monkeypatch.context() as patched:
        patched.setattr(copying, "failpoint", _press_ctrl_c)
        done = edgeq("db", "copy", origin, target)
    assert (done.status, done.err.strip()) == (130, "edgeq: interrupted; call it again, and it goes on from here")
    assert edgeq("db", "copy", origin, target).status == 0


def _press_ctrl_c(name: str) -> None:
    raise KeyboardInterrupt


def test_a_terminal_has_a_bar_and_the_lines_that_stay(new: New, tmp_path: Path) -> None:
    origin, target = new("sqlite"), new("sqlite")
    run(origin, lambda tx: events.append(tx, some(5000)))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edgeq.cli.main", "db", "copy", origin, target]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end, on Linux
            while more := os.read(ours, 65536):  # all the time: the longer it takes, the more is drawn
                shown += more
        printed, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert "5000/5000" in shown.decode()
    assert "events: 5000 rows copied" in printed
    assert "events: 5000 rows, the same on both sides" in printed


# Refused


@pytest.mark.parametrize("way", WAYS[:2], ids="-".join)
def test_what_is_used_is_not_copied(way: tuple[str, str], edgeq: Edgeq, new: New, tmp_path: Path) -> None:
    used, free = new(way[0]), new(way[1])
    run(free, lambda tx: None)
    configuration = f"gateway: cellar\nmqtt: {{url: 'mqtt://127.0.0.1:1'}}\nstore: {{url: '{used}'}}\n"
    appliance = Appliance(tmp_path / "cellar", configuration)
    appliance.spawn(RUNTIME_DIRECTORY=str(tmp_path))
    try:
        appliance.until(lambda: "is running" in appliance.log, "the start")
        for words in ((used, free), (free, used)):
            done = edgeq("db", "copy", *words)
            assert done.status == 1
            assert "another edgeq (process" in done.err or "is in use by edgeq cellar run" in done.err
    finally:
        appliance.kill()


def test_a_file_that_any_program_has_open_is_not_copied(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.copying.sqlite._BUSY_SECONDS", 0.1)
    origin = new("sqlite")
    run(origin, lambda tx: None)
    with closing(sqlite3.connect(origin)) as other:
        other.execute("SELECT count(*) FROM events").fetchall()
        with pytest.raises(StoreError, match="is in use"):
            copied(origin, new("sqlite"))
    copied(origin, new("sqlite"))


def test_a_program_that_comes_later_writes_nothing_to_what_is_copied(new: New) -> None:
    url = new("postgresql")
    run(url, lambda tx: jobs.add(tx, [job()]))
    insert = "INSERT INTO jobs (queue, kind, args, priority, state, max_attempts, run_at, created_at) "
    insert += "SELECT queue, kind, args, priority, state, max_attempts, run_at, created_at FROM jobs"
    with opened(url, target=False), pytest.raises(psycopg.errors.LockNotAvailable):
        sql(url, f"SET lock_timeout = '100ms'; {insert}")
    sql(url, insert)
    assert sql(url, "SELECT count(*) FROM jobs") == [(2,)]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_target_must_be_empty_and_of_the_same_store(kind: str, new: New) -> None:
    origin, other, target = new("sqlite"), new("sqlite"), new(kind)
    for url in (origin, other):
        run(url, lambda tx: events.append(tx, some(3)))
    used = new(kind)
    run(used, lambda tx: events.append(tx, some(1)))
    with pytest.raises(StoreError, match="has rows in events"):
        copied(origin, used)
    sql(used, "DELETE FROM events")
    with pytest.raises(StoreError, match="was used before"):
        copied(origin, used)
    copied(origin, target, 2)
    with pytest.raises(StoreError, match="is an incomplete copy of another store"):
        copied(other, target)
    with pytest.raises(StoreError, match="is the incomplete copy of another store"):
        copied(target, new("sqlite"))
    copied(origin, target)
    with pytest.raises(StoreError, match=r"is a complete copy of .* already"):
        copied(origin, target)
    with pytest.raises(StoreError, match=r"is a complete copy of .* already"):
        copied(target, origin)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_without_a_source_nothing_is_made(kind: str, new: New, tmp_path: Path) -> None:
    target = new("sqlite")
    with pytest.raises(StoreMissing):
        copied(new(kind), target)
    assert not Path(target).exists()


def test_a_text_that_postgresql_does_not_take_is_named(new: New) -> None:
    origin = new("sqlite")
    run(origin, lambda tx: events.append(tx, some(3)))
    sql(origin, "UPDATE events SET description = 'a' || char(0) || 'b' WHERE id = 2")
    with pytest.raises(StoreError, match="events 2 holds a NUL character"):
        copied(origin, new("postgresql"))


def test_urls_are_checked_and_passwords_hidden(edgeq: Edgeq, new: New) -> None:
    origin = new("sqlite")
    run(origin, lambda tx: None)
    assert edgeq("db", "copy", origin, origin).status == 2
    assert "must be a path" in edgeq("db", "copy", origin, "http://a").err
    done = edgeq("db", "copy", origin, "postgresql://u:geheim@127.0.0.1:1/d?connect_timeout=1")
    assert done.status == 1
    assert "database d at 127.0.0.1:1" in done.err
    assert "geheim" not in done.out + done.err
