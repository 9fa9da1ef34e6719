"""`edgeq db check`: what is wrong is found, on both kinds of databases, and nothing else is."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support.commands import Edgeq, commands, store
from support.damage import HEAD, overwrite, pages, valuable
from support.stores import Database

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import cursors, events, jobs
from edgeq.store.jobs import NewJob
from edgeq.store.store import Tx
from edgeq.store.tables import Events, Jobs


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    yield from commands("gateway: g\n", tmp_path, monkeypatch, capsys, database)


@pytest.fixture
def edgeq_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Edgeq]:
    yield from commands("gateway: g\n", tmp_path, monkeypatch, capsys)


def some(tx: Tx) -> None:
    events.append(tx, [NewEvent("a", occurred_at=0, recorded_at=0)])
    jobs.add(tx, [NewJob(queue="default", kind="k:K", args="{}", run_at=0, created_at=0)])
    cursors.take(tx, "p", "latest", Clock().now())


def problems(edgeq: Edgeq, *words: str) -> list[str]:
    done = edgeq("db", "check", "--json", *words)
    told = json.loads(done.out)
    assert done.status == (0 if told["ok"] else 1)
    assert told["ok"] == (told["problems"] == [])
    return [str(problem) for problem in told["problems"]]


def test_a_store_that_is_whole(edgeq: Edgeq) -> None:
    store(some)
    assert problems(edgeq) == []
    assert problems(edgeq, "--quick") == []
    done = edgeq("db", "check")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith(": nothing is wrong\n")


def test_a_cursor_ahead_of_all_events(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        some(tx)
        cursors.move(tx, cursors.take(tx, "p", "latest", 1), 9, 1)

    store(unit)
    (problem,) = problems(edgeq, "--quick")
    assert "processor p stands at event 9, and the newest that ever was is 1" in problem


def test_jobs_that_can_not_be(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        for _ in range(3):
            some(tx)
        for job_id, state in ((1, "executing"), (2, "completed")):
            tx.run(Jobs.update(state=state).where(Jobs.id == job_id))
        tx.run(Jobs.update(finished_at=1).where(Jobs.id == 3))

    store(unit)
    assert problems(edgeq) == [
        "job 1 is executing, but under no lease",
        "job 2 has ended, but it isn't known when",
        "job 3 hasn't ended, but it is known when it has",
    ]


def test_rows_that_are_none(edgeq: Edgeq) -> None:
    def unit(tx: Tx) -> None:
        some(tx)
        tx.run(Events.update(data="{").where(Events.id == 1))

    store(unit)
    assert problems(edgeq) == ["events 1 is no such row: a value is of another kind, or not JSON"]
    assert problems(edgeq, "--quick") == []


def test_without_a_store_there_is_nothing_to_check(edgeq: Edgeq) -> None:
    done = edgeq("db", "check")
    assert done.status == 1
    assert "start edgeq once" in done.err


def test_what_keeps_the_order_of_events_on_a_server(edgeq: Edgeq, database: Database) -> None:
    store(some)
    assert problems(edgeq) == []
    if database.kind == "sqlite":
        return  # it is the file's lock there
    with psycopg.connect(os.environ["EDGEQ_STORE__URL"], autocommit=True) as connection:
        connection.execute("DROP TRIGGER events_in_commit_order ON events")
    (problem,) = problems(edgeq)
    assert "the trigger events_in_commit_order is missing" in problem


# A file


@pytest.mark.parametrize("name", ["events", "jobs_ready", "contract_states", "events_idempotency_key"])
def test_a_page_that_is_lost(edgeq_on_file: Edgeq, tmp_path: Path, name: str) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    assert problems(edgeq_on_file) == []
    overwrite(path, pages(path, name)[:1])
    assert problems(edgeq_on_file, "--quick")
    assert problems(edgeq_on_file)
    assert (tmp_path / "edgeq.db-suspect").exists(), "the next start looks at the whole file"


def test_an_index_that_lacks_a_row(edgeq_on_file: Edgeq, tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (text,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'dead_letters_open'").fetchone()
        connection.execute("DROP INDEX dead_letters_open")
        connection.execute(text.replace("redriven_at IS NULL", f"id < {HEAD}"))
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'dead_letters_open'", (text,))
    assert [problem for problem in problems(edgeq_on_file) if "dead_letters_open" in problem]
    assert problems(edgeq_on_file, "--quick") == []


def test_tables_that_are_not_as_they_are_made(edgeq_on_file: Edgeq, tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    store()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER jobs_removed")
        connection.execute("DROP INDEX jobs_ready")
        connection.execute("CREATE INDEX jobs_ready ON jobs (queue)")
        connection.execute("CREATE TABLE of_somebody_else (x)")
    assert problems(edgeq_on_file) == [
        "the index jobs_ready is not as edgeq makes it: CREATE INDEX jobs_ready ON jobs (queue)",
        "the trigger jobs_removed is missing",
    ]


def test_a_header_that_is_none(edgeq_on_file: Edgeq, tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    overwrite(path, [1])
    assert "damaged" in problems(edgeq_on_file)[0]


def test_somebody_may_write_meanwhile(edgeq_on_file: Edgeq, tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM events WHERE id < 100")
        assert problems(edgeq_on_file) == []
        other.execute("COMMIT")
    assert problems(edgeq_on_file) == []
