"""`edgeq db backup` and `restore`: a whole copy or none, whatever happens, and nobody waits for it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import Edgeq, commands, store
from support.damage import HEAD, overwrite, pages, rows, valuable
from support.power import Disk, NoDiskError, fill_up

from edgeq.errors import StoreError
from edgeq.events import NewEvent
from edgeq.store import events, schema
from edgeq.store.sqlite import backup as backing_up
from edgeq.store.sqlite.backup import back_up, backups, file_name
from edgeq.store.sqlite.whole import verify
from edgeq.store.store import Tx

MINUTE = 60_000_000
NOW = 1_800_000_000_000_000


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    yield from commands("gateway: greenhouse-1\n", tmp_path, monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def newest(folder: Path) -> Path:
    return Path(backups(str(folder), "greenhouse-1")[-1][1])


def add(tx: Tx) -> int:
    events.append(tx, [NewEvent("new", occurred_at=0, recorded_at=0)])
    return events.newest_id(tx)


def killed(folder: Path, *words: str, at: str) -> None:
    """Call a command that is killed at a failpoint."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", *words],
        cwd=folder,
        env={**environment, "EDGEQ_FAILPOINT": at},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


# A backup


def test_a_backup_is_the_store(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    before = valuable(tmp_path / "edgeq.db", log=True)
    done = edgeq("db", "backup", "backups", "--json")
    told = json.loads(done.out)
    path = Path(told["path"])
    assert path.parent == folder
    assert path.name.startswith("edgeq-greenhouse-1-")
    assert rows(path) == before
    assert (told["head"], told["rows"]["events"]) == (HEAD, HEAD)
    assert told["bytes"] == path.stat().st_size
    assert [each.name for each in folder.iterdir()] == [path.name], "nothing else"
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=0", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",), "it needs no log to be read"


def test_only_so_many_are_kept_and_no_others_file_goes(edgeq: Edgeq, folder: Path) -> None:
    store()
    others = [
        folder / name for name in ("edgeq-greenhouse-10-20200101T000000.000000Z.db", "edgeq-greenhouse-1.db", "x")
    ]
    for other in others:
        other.touch()
    for _ in range(3):
        edgeq("db", "backup", "backups")
    first = newest(folder)
    done = edgeq("db", "backup", "backups", "--keep", "2")
    assert done.out.count("deleted ") == 2
    kept = [Path(path) for _, path in backups(str(folder), "greenhouse-1")]
    assert kept == [first, newest(folder)]
    assert {*folder.iterdir()} == {*kept, *others}


def test_a_file_may_be_named_but_not_one_that_is_there(edgeq: Edgeq, tmp_path: Path) -> None:
    store()
    assert edgeq("db", "backup", "copy.db").status == 0
    before = (tmp_path / "copy.db").read_bytes()
    again = edgeq("db", "backup", "copy.db")
    assert (again.status, (tmp_path / "copy.db").read_bytes()) == (1, before)
    assert "copy.db is there already" in again.err
    assert "is there already" in edgeq("db", "backup", "edgeq.db").err, "not over the database itself"
    assert edgeq("db", "backup", "copy.db", "--keep", "1").status == 2


def test_where_it_goes_unless_it_is_said(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    store()
    edgeq("db", "backup")
    assert len(backups(str(tmp_path), "greenhouse-1")) == 1
    (tmp_path / "edgeq.yaml").write_text("gateway: greenhouse-1\nstore: {backup: {to: backups}}\n")
    edgeq("db", "backup")
    assert len(backups(str(folder), "greenhouse-1")) == 1


def test_a_folder_that_is_not_there_is_not_made(edgeq: Edgeq, tmp_path: Path) -> None:
    store()
    done = edgeq("db", "backup", "usb/")
    assert done.status == 1
    assert "the folder usb/ doesn't exist (make it; is its disk mounted?)" in done.err
    assert not (tmp_path / "usb").exists()


def test_without_a_database_there_is_none_to_copy(edgeq: Edgeq, tmp_path: Path) -> None:
    assert "there is no database" in edgeq("db", "backup").err
    assert [each.name for each in tmp_path.iterdir()] == ["edgeq.yaml"]


def test_who_writes_does_not_wait_and_the_copy_is_of_one_moment(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing_up, "PAGES_AT_ONCE", 8)
    path = tmp_path / "edgeq.db"
    valuable(path)
    written: list[int] = []
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")

        def watch(doing: str, done: int, total: int) -> None:
            if doing == "copied":  # in the midst of it; a lock would raise at once
                writer.execute("UPDATE contract_states SET detail = '{}'")
                writer.execute("INSERT INTO meta VALUES (?, 'x')", (str(len(written)),))
                written.append(done)

        before = rows(path)
        made = back_up(str(path), str(folder), gateway="g", now=NOW, watch=watch)
    assert len(written) > 10
    assert rows(Path(made.path)) == before
    assert rows(path) != before


def test_what_is_in_the_source_is_also_looked_at(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    edgeq("db", "backup", "backups")
    overwrite(path, pages(path, "jobs")[3:4])
    done = edgeq("db", "backup", "backups", "--keep", "1")
    assert done.status == 1
    assert "damaged" in done.err
    assert len([*folder.iterdir()]) == 1, "the one before it is not given up for it"


def test_the_log_is_not_let_grow_for_it(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    monkeypatch.setattr(backing_up, "LOG_BYTES_MAX", 100_000)
    monkeypatch.setattr(backing_up, "PAGES_AT_ONCE", 8)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")

        def watch(doing: str, done: int, total: int) -> None:
            if doing == "copied":
                writer.execute("INSERT INTO meta VALUES (?, hex(randomblob(20000)))", (str(done),))

        with pytest.raises(StoreError, match=r"given up, as the log of .* would grow too large"):
            back_up(str(path), str(folder), gateway="g", now=NOW, watch=watch)
    assert [*folder.iterdir()] == []


def test_only_one_at_a_time_goes_to_a_folder(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    refused: list[int] = []

    def watch(doing: str, done: int, total: int) -> None:
        if doing == "copied" and not refused:
            refused.append(1)
            with pytest.raises(StoreError, match=r"another backup to .* is being made"):
                back_up(str(path), str(folder), gateway="g", now=NOW + MINUTE)

    back_up(str(path), str(folder), gateway="g", now=NOW, watch=watch)
    assert refused
    assert len([*folder.iterdir()]) == 1


# What goes wrong


@pytest.mark.parametrize("at", ["backup.step:1", "backup.copied", "backup.verified"])
def test_a_backup_that_is_killed_is_none(edgeq: Edgeq, tmp_path: Path, folder: Path, at: str) -> None:
    valuable(tmp_path / "edgeq.db")
    killed(tmp_path, "db", "backup", "backups", at=at)
    assert backups(str(folder), "greenhouse-1") == []
    assert [each.suffix for each in folder.iterdir() if each.suffix != ".db"] != []
    assert edgeq("db", "backup", "backups").status == 0
    (made,) = folder.iterdir()
    assert made == newest(folder), "what was left went with the next one"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        with Disk(tmp_path) as disk:
            yield disk
    except NoDiskError as error:
        pytest.skip(str(error))


def test_a_full_disk_refuses_it_and_nothing_half_is_left(
    edgeq: Edgeq, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing_up, "PAGES_AT_ONCE", 8)
    path = tmp_path / "edgeq.db"
    valuable(path)
    size = path.stat().st_size
    filler = fill_up(disk.folder, size // 2)
    done = edgeq("db", "backup", str(disk.folder))
    assert done.status == 1
    assert f"there is no room for the copy: it takes {size} bytes" in done.err
    filler.unlink()

    def watch(doing: str, done: int, total: int) -> None:
        if doing == "copied" and not filler.exists():  # somebody else fills it meanwhile
            fill_up(disk.folder, 8192)

    with pytest.raises(StoreError, match=f"the disk of {disk.folder} is full"):
        back_up(str(path), str(disk.folder), gateway="g", now=NOW, watch=watch)
    assert {each.name for each in disk.folder.iterdir()} == {"lost+found", "filler"}


# A restored one


def test_a_restored_store_is_that_of_the_backup_and_no_id_is_given_twice(
    edgeq: Edgeq, tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "edgeq.db"
    before = valuable(path)
    edgeq("db", "backup", "backups")
    last = [store(add) for _ in range(3)][-1]
    done = edgeq("db", "restore", str(newest(folder)))
    assert done.status == 0, done.err
    assert f"{HEAD} is its last event" in done.out
    assert rows(path) == before
    (aside,) = tmp_path.glob("edgeq.db.replaced-*Z")
    assert str(aside) in done.out
    assert max(row[0] for row in rows(aside)["events"]) == last
    assert store(add) == last + 1
    assert "series" not in done.out


def test_what_came_after_the_backup_can_be_brought_into_the_history(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "edgeq.db"
    valuable(path)
    edgeq("db", "backup", "backups")
    since = [store(add) for _ in range(3)]
    edgeq("db", "restore", str(newest(folder)))
    (aside,) = tmp_path.glob("edgeq.db.replaced-*Z")
    assert "recovered: nothing" in edgeq("db", "recover", str(aside)).out, "processors have yet to pass by there"
    head = store(add)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE cursors SET last_consumed_id = ?", (head,))
        connection.commit()
    assert "recovered: 3 events" in edgeq("db", "recover", str(aside)).out
    assert {*since} <= {row[0] for row in rows(path)["events"]}


def test_without_what_was_there_a_site_may_have_to_be_told(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    valuable(tmp_path / "edgeq.db")
    edgeq("db", "backup", "backups")
    for path in tmp_path.glob("edgeq.db*"):
        path.unlink()
    done = edgeq("db", "restore", str(newest(folder)))
    assert done.status == 0
    assert "`series`" in done.out


def test_a_damaged_database_can_be_restored(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "edgeq.db"
    before = valuable(path, log=True)
    edgeq("db", "backup", "backups")
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    assert edgeq("db", "restore", str(newest(folder))).status == 0
    assert rows(path) == before
    assert len([*tmp_path.glob("edgeq.db.replaced-*Z")]) == 1


def test_a_backup_that_is_none_changes_nothing(edgeq: Edgeq, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "edgeq.db"
    before = valuable(path)
    edgeq("db", "backup", "backups")
    backup = newest(folder)
    overwrite(backup, pages(backup, "jobs")[3:4])
    names = {each.name for each in tmp_path.iterdir()}
    done = edgeq("db", "restore", str(backup))
    assert done.status == 1
    assert "damaged" in done.err
    (tmp_path / "text").write_text("no database")
    assert "damaged" in edgeq("db", "restore", "text").err
    assert "is the database itself" in edgeq("db", "restore", "edgeq.db").err
    shutil.copy(path, tmp_path / "copy.db")
    (tmp_path / "copy.db-wal").write_bytes(b"x")
    assert "has a log beside it" in edgeq("db", "restore", "copy.db").err
    assert "there is no file none.db" in edgeq("db", "restore", "none.db").err
    assert rows(path) == before
    new = {each.name for each in tmp_path.iterdir()} - names
    assert new <= {"text", "copy.db", "copy.db-wal", "edgeq.db-lock", "edgeq.db-wal", "edgeq.db-shm"}


def test_a_backup_of_a_newer_version_is_refused(edgeq: Edgeq, tmp_path: Path) -> None:
    store()
    edgeq("db", "backup", "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db", isolation_level=None)) as connection:
        connection.execute("UPDATE schema_migration SET name = '9999_later' WHERE name LIKE '0003%'")
    done = edgeq("db", "restore", "copy.db")
    assert done.status == 1
    assert "was written by a newer edgeq (it has 9999_later)" in done.err


def test_nobody_may_use_it_meanwhile(edgeq: Edgeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    edgeq("db", "backup", "copy.db")
    monkeypatch.setattr("edgeq.store.sqlite.patience.BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "edgeq.db")) as other:
        other.execute("SELECT count(*) FROM events").fetchone()
        done = edgeq("db", "restore", "copy.db")
    assert done.status == 1
    assert "is in use" in done.err


@pytest.mark.parametrize("log", [True, False], ids=["log", "no log"])
@pytest.mark.parametrize("at", ["restore.copied", "replace.linked", "replace.alone", "replace.done"])
def test_a_restore_that_is_killed_leaves_the_one_or_the_other(
    edgeq: Edgeq, tmp_path: Path, folder: Path, at: str, log: bool
) -> None:
    path = tmp_path / "edgeq.db"
    now = valuable(path, log=log)
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    then = valuable(earlier / "edgeq.db", seed=2)
    shutil.copy(earlier / "edgeq.db", folder / "copy.db")
    killed(tmp_path, "db", "restore", "backups/copy.db", at=at)
    assert store(add) > HEAD
    left = rows(path)
    left["events"] = {row for row in left["events"] if row[1] == "a"}
    assert left == (then if at == "replace.done" else now)
    assert edgeq("db", "restore", "backups/copy.db").status == 0
    assert rows(path) == then


# The tables


def test_migrate_says_what_it_did_and_keeps_what_was(
    edgeq: Edgeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store()
    last = schema.known()[-1]
    assert f"is up to date, at {last}" in edgeq("db", "migrate").out
    steps = tmp_path / "migrations"
    shutil.copytree(schema.FOLDER, steps)
    (steps / "0099_more.py").write_text("def up(migrator, db):\n    db.execute_sql('CREATE TABLE more (id INTEGER)')\n")
    monkeypatch.setattr(schema, "FOLDER", steps)
    done = edgeq("db", "migrate")
    assert done.status == 0, done.err
    assert f"was brought from {last} to 0099_more" in done.out
    ((_, kept),) = backups(str(tmp_path), "greenhouse-1")
    assert kept in done.out
    assert verify(kept).schema == last
    assert edgeq("db", "migrate", "--no-backup").out.count("up to date") == 1
    monkeypatch.setattr(schema, "FOLDER", Path(schema.__file__).parent / "migrations" / "sqlite")
    done = edgeq("db", "migrate")
    assert done.status == 1
    assert "was written by a newer edgeq (it has 0099_more)" in done.err


def test_file_names_are_of_the_gateway_and_the_moment() -> None:
    assert file_name("a b/ü", NOW) == "edgeq-a-b-ü-20270115T080000.000000Z.db"
    assert len(file_name("x" * 1000, NOW)) < 128
