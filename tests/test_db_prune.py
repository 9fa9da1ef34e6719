"""edgeq db prune: retention by hand, also beside a running edgeq, and a file that becomes smaller."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.commands import Edgeq, commands, make_commands_store, store
from support.pruned import DAY
from support.stores import Database

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import cursors, dead_letters, events, meta
from edgeq.store.store import Tx

CONFIGURATION = """
gateway: g
store: {retention: {events: 30d}}
processors:
  notes: {kind: courier}
"""


@pytest.fixture
def edgeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Database
) -> Iterator[Edgeq]:
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys, database)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    yield from commands(CONFIGURATION, tmp_path, monkeypatch, capsys)


def aged(*days: int, bytes_each: int = 2) -> list[NewEvent]:
    now = Clock().now()
    data = json.dumps({"x": "x" * bytes_each})
    return [NewEvent("t", now - each * DAY, now - each * DAY, data_json=data) for each in days]


def old(tx: Tx) -> None:
    events.append(tx, aged(50, 50, 40, 8, 1))
    cursors.take(tx, "notes", "latest", Clock().now())
    at = Clock().now() - 100 * DAY
    dead_letters.add(tx, [dead_letters.NewDeadLetter(source="intake", reason="r", error="e", created_at=at)])


def left() -> list[int]:
    async def look() -> list[int]:
        made = make_commands_store()
        await made.open()
        try:
            return [event.id for event in await events.after(made, 0, 9999)]
        finally:
            await made.close()

    return asyncio.run(look())


def test_it_deletes_what_is_older_than_it_is_kept_and_says_so(edgeq: Edgeq) -> None:
    store(old)
    done = edgeq("db", "prune", "--dry-run")
    assert done.status == 0
    assert "dead letters: 1 would be deleted\nevents: 3 would be deleted\n" in done.out
    assert left() == [1, 2, 3, 4, 5]
    done = edgeq("db", "prune")
    assert "dead letters: 1 deleted\nevents: 3 deleted\nthe store takes " in done.out
    assert left() == [4, 5]
    assert "nothing was deleted" in edgeq("db", "prune").out
    assert "nothing would be deleted" in edgeq("db", "prune", "--dry-run").out


def test_an_age_can_be_given_and_what_a_processor_has_not_seen_stays(edgeq: Edgeq) -> None:
    store(old)
    store(lambda tx: cursors.seek(tx, "notes", 2, Clock().now()))
    done = edgeq("db", "prune", "--events", "7d", "--json")
    assert json.loads(done.out)["deleted"] == {"events": 2, "dead_letters": 1}
    store(lambda tx: cursors.seek(tx, "notes", "latest", Clock().now()))
    assert json.loads(edgeq("db", "prune", "--events", "7d", "--json").out)["deleted"] == {"events": 2}
    assert left() == [5]


def test_who_calls_it_does_not_wait_for_the_week_after_an_upgrade(edgeq: Edgeq) -> None:
    store(old)
    store(lambda tx: meta.put(tx, "retention_waits", ""))
    assert "events: 3 deleted" in edgeq("db", "prune").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--events", "1s"), "is less than 1m"),
        (("--events", "soon"), "is not a duration"),
        (("--vacuum", "--dry-run"), "exclude each other"),
    ],
)
def test_wrong_usage_is_said(sqlite: Edgeq, words: tuple[str, ...], said: str) -> None:
    store()
    done = sqlite("db", "prune", *words)
    assert (done.status, said in done.err) == (2, True)


def test_a_server_is_not_vacuumed(edgeq: Edgeq, database: Database) -> None:
    if database.kind == "postgresql":
        assert "PostgreSQL uses what is free by itself" in edgeq("db", "prune", "--vacuum").err


# A file that becomes smaller


def auto_vacuum() -> int:
    with closing(sqlite3.connect("edgeq.db")) as file:
        return int(file.execute("PRAGMA auto_vacuum").fetchone()[0])


def test_a_new_file_gives_back_what_is_free_while_others_have_it_open(sqlite: Edgeq) -> None:
    store(lambda tx: events.append(tx, aged(*[50] * 1000, bytes_each=4000)))
    assert auto_vacuum() == 2
    before = os.stat("edgeq.db").st_size
    assert before > 4_000_000
    with closing(sqlite3.connect("edgeq.db")) as other:
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1000,)
        done = sqlite("db", "prune", "--vacuum")
    assert done.status == 0, done.err
    store()  # whoever closes the file last folds the log into it
    assert os.stat("edgeq.db").st_size < 500_000
    assert "given back to the disk" in done.out


def test_an_old_file_is_written_anew_for_that(sqlite: Edgeq) -> None:
    store(lambda tx: events.append(tx, aged(*[50] * 500, *[1] * 500, bytes_each=4000)))
    with closing(sqlite3.connect("edgeq.db")) as file:
        file.executescript("PRAGMA auto_vacuum=NONE; VACUUM;")
    assert auto_vacuum() == 0
    assert sqlite("db", "prune").status == 0, "it is used as it is"
    with closing(sqlite3.connect("edgeq.db", isolation_level=None)) as other:
        other.execute("SELECT count(*) FROM events").fetchone()
        done = sqlite("db", "prune", "--vacuum")
        assert (done.status, "is in use" in done.err) == (1, True)
    done = sqlite("db", "prune", "--vacuum")
    assert (done.status, "written anew" in done.out) == (0, True), done.err
    assert auto_vacuum() == 2
    assert len(left()) == 500
    assert os.stat("edgeq.db").st_size < 3_000_000


def test_an_old_file_is_not_written_anew_without_the_room(sqlite: Edgeq, monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    with closing(sqlite3.connect("edgeq.db")) as file:
        file.executescript("PRAGMA auto_vacuum=NONE; VACUUM;")
    found = {"file_bytes": 10, "wal_bytes": 0, "free_disk_bytes": 19, "disk_bytes": 100}
    monkeypatch.setattr("edgeq.store.sqlite.vacuum.disk", lambda path: found)
    done = sqlite("db", "prune", "--vacuum")
    assert (done.status, "of free disk" in done.err) == (1, True)


# Killed in the midst of it


@pytest.mark.parametrize("place", ["retention.deleted:2", "retention.committed:5"])
def test_killed_in_the_midst_nothing_is_lost_but_what_was_to_go(sqlite: Edgeq, tmp_path: Path, place: str) -> None:
    store(lambda tx: (events.append(tx, aged(*[50] * 2000)), events.append(tx, aged(*[1] * 10))))
    environ: dict[str, Any] = {**os.environ, "EDGEQ_FAILPOINT": place}
    killed = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", "db", "prune"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -9
    there = left()
    assert there == list(range(there[0], 2011)), "oldest first, nothing in between"
    assert there[0] > 1
    assert sqlite("db", "prune").status == 0
    assert left() == list(range(2001, 2011))
    with closing(sqlite3.connect("edgeq.db")) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
