"""`edgeq doctor` and the store: it is looked at, and nothing in it or beside it changes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support.appliance import Appliance
from support.doctors import Patient, states
from support.mosquitto import Mosquitto
from support.postgres import Postgres

from edgeq.doctor import appliance as runs
from edgeq.doctor import rights, store
from edgeq.store import looking
from edgeq.store.copying.copy import make_side

IN_PEACE = "gateway: g\nstore: {url: edgeq.db}\n"


def make(url: str) -> None:
    """Have an empty store there."""
    side = make_side(url)
    side.open(target=True)
    side.close()


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    monkeypatch.chdir(tmp_path)
    return Patient(tmp_path, IN_PEACE)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files and their times, and that of the folder: a file that was there for a moment changes it."""
    files = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}
    return {**files, "": (b"", folder.stat().st_mtime_ns)}


def test_a_store_that_is_not_there_yet(patient: Patient) -> None:
    assert "warn: there is no database at" in patient.told(store.opened)
    assert not (patient.folder / "edgeq.db").exists()
    assert patient.found(store.log) == []


def test_a_store_that_is_whole_is_not_touched(patient: Patient) -> None:
    make("edgeq.db")
    before = snapshot(patient.folder)
    found = patient.found(store.opened)
    assert states(found) == ["ok", "ok"]
    assert "0 events up to now" in found[0].what
    for look in (store.log, store.put_aside, rights.database):
        assert set(states(patient.found(look))) <= {"ok"}
    assert snapshot(patient.folder) == before


def test_a_store_of_another_version(patient: Patient) -> None:
    make("edgeq.db")
    with closing(sqlite3.connect("edgeq.db")) as there:
        there.execute("DELETE FROM schema_migration WHERE name = (SELECT max(name) FROM schema_migration)")
        there.commit()
    before = snapshot(patient.folder)
    assert "warn: it has no tables of this version yet" in patient.told(store.opened)
    with closing(sqlite3.connect("edgeq.db")) as there:
        there.execute(
            "UPDATE schema_migration SET name = '9999_future' WHERE name = (SELECT max(name) FROM schema_migration)"
        )
        there.commit()
    assert "bad: it was written by a newer edgeq (it has 9999_future)" in patient.told(store.opened)
    assert before.keys() == snapshot(patient.folder).keys()


def test_a_file_that_is_damaged_or_none_of_ours(patient: Patient) -> None:
    make("edgeq.db")
    path = patient.folder / "edgeq.db"
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xa5" * 8192 + whole[middle + 8192 :])
    assert "bad" in states(patient.found(store.opened))
    path.write_text("no database")
    assert "bad: the store can't be opened: " in patient.told(store.opened)
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()
    assert "it has no tables of edgeq" in patient.told(store.opened)


def test_a_check_that_takes_too_long_is_given_up(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    make("edgeq.db")
    monkeypatch.setattr(store, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(looking, "_PROGRESS_STEPS", 1)  # an empty file takes few
    assert "unknown: whether the database is whole wasn't read to its end" in patient.told(store.opened)


def test_what_was_put_aside_and_a_log_that_grows(patient: Patient) -> None:
    make("edgeq.db")
    (patient.folder / "edgeq.db.damaged-20260101T000000.000000Z").touch()
    (patient.folder / "edgeq.db.damaged-20260101T000000.000000Z-wal").touch()
    (patient.folder / "edgeq.db-suspect").touch()
    assert states(patient.found(store.put_aside)) == ["warn", "warn"]
    with (patient.folder / "edgeq.db-wal").open("wb") as file:
        file.truncate(store.LOG_BYTES_MAX + 1)
    assert "warn: SQLite's log is" in patient.told(store.log)


def test_beside_a_running_appliance(
    mosquitto: Callable[..., Mosquitto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = mosquitto()
    configuration = f'gateway: g\nmqtt: {{url: "{broker.url}"}}\nroutes: [{{topic: "a", emit: x}}]\n'
    appliance = Appliance(tmp_path, configuration)
    patient = Patient(tmp_path, configuration + f"store: {{url: {appliance.database}}}\n")
    appliance.start()
    try:
        assert states(patient.found(store.opened)) == ["ok", "ok"]
        assert patient.told(runs.running) == f"ok: edgeq runs as process {appliance.process.pid} |  | "  # type: ignore[union-attr]
        monkeypatch.setattr(runs, "edgeq_version", lambda: "99.0")
        assert "and 99.0 is installed" in patient.told(runs.running)
    finally:
        appliance.kill()
    assert "warn: edgeq doesn't run" in patient.told(runs.running)
    assert states(patient.found(store.opened)) == ["ok", "ok"], "killed, it leaves its log"


# Rights


def test_files_that_the_appliance_may_not_write_or_strangers_may(patient: Patient) -> None:
    make("edgeq.db")
    path = patient.folder / "edgeq.db"
    os.chmod(path, 0o666)
    assert "bad: " in patient.told(rights.database)
    assert f"chmod o-w {path}" in patient.told(rights.database)
    nobody = 65534
    stranger = os.stat_result((0o100644, 0, 0, 1, os.geteuid(), os.getegid(), 0, 0, 0, 0))
    assert not rights.may_write(stranger, nobody)
    assert rights.may_write(stranger, os.geteuid())
    patient.configure("store: {url: missing/edgeq.db}\n")
    assert "install -d" in patient.told(rights.database)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_whose_the_database_is_another_user_is_not_told_to_take_it(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("edgeq.db")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert states(patient.found(rights.database)) == ["ok"]
    os.chown("edgeq.db", 65534, 65534)
    assert "may not write in" in patient.told(rights.database)


def test_secrets_that_everybody_may_read(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "_is_reached", lambda path: True)  # the folders of tests are closed to strangers
    (patient.folder / "pw").write_text("secret\n")
    (patient.folder / "hook").write_text("secret\n")
    os.chmod(patient.folder / "hook", 0o644)
    os.chmod(patient.folder / "pw", 0o640)
    patient.configure(
        "mqtt: {username: edgeq, password_file: pw}\n"
        "channels: {hook: {kind: webhook, url: 'http://localhost/', token_file: hook}}\n"
    )
    os.chmod(patient.folder / "edgeq.yaml", 0o644)
    told = patient.told(rights.secrets)
    assert told.count("warn: ") == 1
    assert f"{patient.folder / 'hook'} holds a secret" in told
    os.chmod(patient.folder / "pw", 0o644)
    assert patient.told(rights.secrets).count("warn: ") == 2
    patient.configure("web: {listen: 127.0.0.1:8321, token: 0123456789abcdef0123456789abcdef}\n")
    assert "edgeq.yaml holds a secret" in patient.told(rights.secrets)
    os.chmod(patient.folder / "edgeq.yaml", 0o600)
    assert states(patient.found(rights.secrets)) == ["ok"]
    assert states(patient.found(rights.configuration)) == ["ok"]
    os.chmod(patient.folder / "edgeq.yaml", 0o602)
    assert "can be changed by everybody" in patient.told(rights.configuration)


def test_a_secret_in_a_folder_that_is_closed_is_safe(patient: Patient) -> None:
    closed = patient.folder / "secrets"
    closed.mkdir(mode=0o700)
    (closed / "pw").write_text("secret\n")
    os.chmod(closed / "pw", 0o644)
    patient.configure("mqtt: {username: edgeq, password_file: secrets/pw}\n")
    assert states(patient.found(rights.secrets)) == ["ok"]
    assert not rights._is_reached(closed / "pw")
    assert rights._is_reached(Path("/etc/passwd"))


# PostgreSQL


def test_a_database_on_a_server(postgres_url: str, tmp_path: Path) -> None:
    patient = Patient(tmp_path, f"store: {{url: '{postgres_url}'}}\n")
    assert "warn: " in patient.told(store.opened)
    assert "has no tables of edgeq yet" in patient.told(store.opened)
    make(postgres_url)
    found = patient.found(store.opened)
    assert [each.state for each in found if "fsync" not in each.what and "full_page" not in each.what] == ["ok", "ok"]
    assert found[0].what.startswith("PostgreSQL ")
    with psycopg.connect(postgres_url, autocommit=True) as there:
        there.execute("ALTER TABLE events DISABLE TRIGGER events_in_commit_order")
    assert "processors may miss events" in patient.told(store.opened)


def test_what_a_user_may_not_do_there(postgres_url: str, postgres: Postgres, tmp_path: Path) -> None:
    make(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as there:
        there.execute("REVOKE DELETE ON jobs FROM CURRENT_USER")
    told = Patient(tmp_path, f"store: {{url: '{postgres_url}'}}\n").told(store.opened)
    assert "has no right to DELETE on jobs" in told


def test_a_server_that_is_not_there_and_one_that_is_full(own_postgres: Callable[..., Postgres], tmp_path: Path) -> None:
    patient = Patient(tmp_path, "store: {url: 'postgresql://u:geheim@127.0.0.1:1/d?connect_timeout=1'}\n")
    told = patient.told(store.opened)
    assert "bad: the store can't be opened" in told
    assert "geheim" not in told
    server = own_postgres(max_connections="20", superuser_reserved_connections="3")
    url = server.fresh_database()
    make(url)
    patient.configure(f"store: {{url: '{url}'}}\n")
    assert "of 17 connections are taken" in patient.told(store.opened)
    held = [psycopg.connect(url) for _ in range(14)]
    try:
        assert "raise max_connections" in patient.told(store.opened)
    finally:
        for each in held:
            each.close()


def test_the_range_of_the_bug_is_known() -> None:
    assert looking.has_wal_bug() == (sqlite3.sqlite_version_info < (3, 51, 3))
