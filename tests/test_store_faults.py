"""The store when disk, file or neighbours misbehave: nothing is lost, it says so once, and goes on by itself (G8)."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.stores import Database

from edgeq.clock import Clock
from edgeq.errors import StoreError, StoreUnavailable
from edgeq.events import NewEvent
from edgeq.store import events, files
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Tx
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until

NOBODY = 65534

# Adds events, moves the first of them from the log into the file, and dies with the others in the log.
DIES = '''
import os, sqlite3, sys
sys.path[:0] = {path!r}
from edgeq.store.schema import migrate
migrate(sys.argv[1], may_change=True)
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA wal_autocheckpoint=0")
add = """INSERT INTO events (type, subject, data, tags, description, occurred_at, recorded_at)
VALUES (?, hex(randomblob(200)), '{{}}', '[]', '', 0, 0)"""
db.executemany(add, [("first",)] * 500)
db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
db.executemany(add, [("second",)] * 5)
os.kill(os.getpid(), 9)
'''

HOLDS = """
import fcntl, os, sys
file = os.open(sys.argv[1] + "-lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, str(os.getpid()).encode())
print("held", flush=True)
sys.stdin.read()
"""


def make_store(path: Path, **keys: Any) -> SqliteStore:
    return SqliteStore(str(path), metrics=Metrics(), clock=Clock(), **keys)


@asynccontextmanager
async def opened(path: Path, **keys: Any) -> AsyncIterator[SqliteStore]:
    store = make_store(path, **keys)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def add(*types: str, subject: str = "") -> Any:
    new = [NewEvent(name, subject=subject, occurred_at=0, recorded_at=0) for name in types]
    return lambda tx: events.append(tx, new)


async def types(store: SqliteStore) -> list[str]:
    return [event.type for event in await events.after(store, 0, 10_000)]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "edgeq.store" and record.levelno >= 30]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[Path]:
    """A folder of a user who isn't root, and this process as that user."""
    folder = Path(tempfile.mkdtemp(prefix="edgeq-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.sqlite.patience.BUSY_SECONDS", 0.1)


@contextmanager
def holder_of(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder


def overwrite(path: Path, pages: range) -> None:
    """Put garbage in place of these pages of a database file."""
    with open(path, "r+b") as file:
        for page in pages:
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return filler


# The disk


async def test_a_full_disk_makes_units_wait_and_then_go_on(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(small_disk / "edgeq.db") as store:
        await store.write(add("before"))
        filler = fill(small_disk)
        futures = [store.submit(add(f"e{n}", subject="x" * 5000)) for n in range(50)]
        await until(lambda: not store.health.ok, "the store to say so")
        assert "the disk is full" in store.health.reason
        assert store.health.since > 0
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await store.write(add("impatient"), timeout_seconds=0.3)
        assert await types(store) == ["before"], "reading goes on"
        assert not any(future.done() for future in futures)
        filler.unlink()
        await asyncio.gather(*futures)
        assert await types(store) == ["before", *(f"e{n}" for n in range(50))]
        assert store.health.ok
    errors = said(caplog)
    assert len(errors) == 2
    assert "can't take commits" in errors[0]
    assert "takes commits again" in errors[1]


async def test_a_disk_that_is_full_until_the_end_does_not_keep_it_from_ending(small_disk: Path) -> None:
    async with opened(small_disk / "edgeq.db") as store:
        await store.write(add("before"))
        fill(small_disk)
        futures = [store.submit(add(f"e{n}", subject="x" * 5000)) for n in range(50)]
        await until(lambda: not store.health.ok, "the store to say so")
    for future in futures:
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await future
    (small_disk / "filler").unlink()
    async with opened(small_disk / "edgeq.db") as store:
        assert await types(store) == ["before"]


async def test_a_disk_that_is_full_at_the_first_start(small_disk: Path) -> None:
    filler = fill(small_disk)
    store = make_store(small_disk / "edgeq.db")
    with pytest.raises(StoreUnavailable, match=r"full|No space left"):
        await store.open()
    filler.unlink()
    await store.open()
    await store.write(add("a"))
    assert store.id
    await store.close()


async def test_a_first_start_that_was_cut_short_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Exception):
        pass

    def cut() -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr("edgeq.store.schema.uuid.uuid4", cut)
        with pytest.raises(Cut):
            await make_store(tmp_path / "edgeq.db").open()
    async with opened(tmp_path / "edgeq.db") as store:
        assert len(store.id) == 32
        await store.write(add("a"))


async def test_a_file_that_is_read_only_for_a_while(unprivileged: Path, impatient: None) -> None:
    path = unprivileged / "edgeq.db"
    async with opened(path) as store:
        await store.write(add("before"))
    path.chmod(0o444)
    async with opened(path) as store:
        future = store.submit(add("after"))
        await until(lambda: not store.health.ok, "the store to say so")
        assert "read-only" in store.health.reason
        assert await types(store) == ["before"]
        for file in (path, f"{path}-wal", f"{path}-shm"):
            os.chmod(file, 0o644)

        async def stored() -> bool:
            return await types(store) == ["before", "after"]

        await until(stored, "the commit")
        await future
        assert store.health.ok


async def test_a_folder_without_the_right_to_write_is_said_plainly(unprivileged: Path) -> None:
    os.chmod(unprivileged, 0o555)
    with pytest.raises(StoreError, match=r"edgeq\.db-lock") as caught:
        await make_store(unprivileged / "edgeq.db").open()
    assert "rights" in caught.value.hint
    os.chmod(unprivileged, 0o755)


# Neighbours


async def test_locked_by_another_program(tmp_path: Path, impatient: None, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path / "edgeq.db") as store:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        futures = [store.submit(add(f"e{n}")) for n in range(5)]
        await until(lambda: not store.health.ok, "the store to say so")
        assert "locked by another program" in store.health.reason
        assert await events.head(store) == 0, "reading goes on"
        other.execute("INSERT INTO meta VALUES ('theirs', '1')")
        other.execute("COMMIT")
        other.close()
        await asyncio.gather(*futures)
        assert await types(store) == [f"e{n}" for n in range(5)]
    assert len(said(caplog)) == 2


async def test_a_connection_that_could_not_be_set_up_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reconnect that failed half-way, units must not run on what is left of the old connection."""
    async with opened(tmp_path / "edgeq.db") as store:
        connect = sqlite3.connect
        failures = 3

        class Half(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                if sql.startswith("PRAGMA synchronous"):
                    error = sqlite3.OperationalError("disk I/O error")
                    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                    raise error
                return super().execute(sql, *args)

        def flaky(*args: Any, **keys: Any) -> sqlite3.Connection:
            nonlocal failures
            failures -= 1
            return connect(*args, **keys, factory=Half if failures >= 0 else sqlite3.Connection)

        runs: list[int] = []

        def loses_its_connection(tx: Tx) -> None:
            runs.append(1)
            if len(runs) > 1:
                add("a")(tx)
            else:
                store._engine.disconnect()
                monkeypatch.setattr("edgeq.store.sqlite.engine.sqlite3.connect", flaky)

        await store.write(loses_its_connection)
        assert failures < 0
        assert await types(store) == ["a"]
        synchronous = await store.write(lambda tx: tx._connection.execute("PRAGMA synchronous").fetchone())  # type: ignore[attr-defined]
        assert synchronous == (2,)


async def test_a_commit_that_never_ends_is_no_reason_to_wait_for_ever(database: Database) -> None:
    """Others wait for the disk as long as it takes, and say why; for a thread that hangs they don't."""
    clock, go = FakeClock(), threading.Event()
    async with database.opened(clock=clock) as store:
        hangs = store.submit(lambda tx: go.wait(30))
        await until(lambda: store.busy, "the commit to begin")
        clock.advance(119)
        assert store.busy
        clock.advance(2)
        assert not store.busy
        go.set()
        await hangs
        await until(lambda: not store.busy, "the commit to end")


async def test_a_second_appliance_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "edgeq.db") as store:
        with pytest.raises(StoreError, match=f"another edgeq .*{os.getpid()}.* runs on .*edgeq.db$") as caught:
            await make_store(tmp_path / "edgeq.db").open()
        assert "stop it first" in caught.value.hint
        await store.write(add("a"))
        async with opened(tmp_path / "edgeq.db", exclusive=False) as beside:
            assert await types(beside) == ["a"]
    async with opened(tmp_path / "edgeq.db") as store:
        assert await types(store) == ["a"]


async def test_the_lock_of_a_killed_appliance_is_free(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    with holder_of(path) as holder:
        with pytest.raises(StoreError, match=str(holder.pid)):
            await make_store(path).open()
        holder.kill()
    async with opened(path) as store:
        await store.write(add("a"))


# The file


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    async with opened(path) as store:
        await store.write(add("a"))
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', '2090-01-01')")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for exclusive in (True, False, True):
        with pytest.raises(StoreError, match=r"newer edgeq.*9999_future"):
            await make_store(path, exclusive=exclusive).open()
    assert path.read_bytes() == before


async def test_a_missing_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder .*nowhere doesn't exist"):
        await make_store(tmp_path / "nowhere" / "edgeq.db").open()
    with pytest.raises(StoreError, match="there is no database"):
        await make_store(tmp_path / "edgeq.db", exclusive=False).open()
    assert os.listdir(tmp_path) == []
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match=r"can't be opened.*folder\.db"):
        await make_store(tmp_path / "folder.db").open()


async def test_a_command_does_not_touch_the_tables_of_another_version(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "edgeq.db").close()
    with pytest.raises(StoreError, match="no tables of this version") as caught:
        await make_store(tmp_path / "edgeq.db", exclusive=False).open()
    assert "start the new edgeq" in caught.value.hint


def killed_with_a_full_log(path: Path) -> None:
    program = DIES.format(path=[str(Path(__file__).parents[1])])
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -9
    assert Path(f"{path}-wal").stat().st_size > 0


async def test_what_a_killed_process_committed_is_there(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    killed_with_a_full_log(path)
    async with opened(path) as store:
        assert store.quarantined is None
        found = await types(store)
    assert (found.count("first"), found.count("second")) == (500, 5)


@pytest.mark.parametrize("damage", ["header", "page", "short", "empty"])
async def test_a_damaged_file_is_put_aside_and_a_fresh_one_starts(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "edgeq.db"
    killed_with_a_full_log(path)
    if damage == "short":
        os.truncate(path, 30 * 4096 + 17)
    elif damage == "empty":
        os.truncate(path, 0)
    elif damage == "header":
        os.unlink(f"{path}-wal")
        overwrite(path, range(1))
    else:
        overwrite(path, range(20, 30))
    async with opened(path) as store:
        assert store.quarantined is not None
        assert store.quarantined.startswith(f"{path}.damaged-")
        log = f"{store.quarantined}-wal" if damage == "empty" else store.quarantined
        assert os.stat(log).st_size > 50_000
        await store.write(add("a"))
        assert (await types(store))[-1] == "a"
        found = store.id, await types(store)
    assert "put aside" in "".join(said(caplog))
    async with opened(path) as store:
        assert store.quarantined is None
        assert (store.id, await types(store)) == found


async def test_what_is_damaged_in_the_file_but_whole_in_the_log_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    killed_with_a_full_log(path)
    overwrite(path, range(1))
    async with opened(path) as store:
        assert store.quarantined is None
        assert len(await types(store)) == 505


def test_a_file_that_others_write_to_meanwhile_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and producers in other processes don't wait while the appliance looks."""
    path = tmp_path / "edgeq.db"
    killed_with_a_full_log(path)
    add_one = "INSERT INTO meta VALUES (hex(randomblob(1000)), '')"
    with closing(sqlite3.connect(path, isolation_level=None)) as others:
        connect = sqlite3.connect

        def late(*args: Any, **keys: Any) -> sqlite3.Connection:
            others.executemany(add_one, [()] * 100)
            others.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            others.execute(add_one)
            return connect(*args, **keys)

        monkeypatch.setattr(files.sqlite3, "connect", late)
        before = path.stat().st_size
        assert files.damaged(str(path)) == ""
        assert path.stat().st_size > before + 100_000


def test_opening_the_store_takes_no_locks_from_this_process(tmp_path: Path) -> None:
    """Who opens and closes a file of SQLite's by other means takes the locks of all connections that its process has to
    it. The next process to leave would think that it is the last one, and take the log along."""
    path = tmp_path / "edgeq.db"
    asyncio.run(open_and_close(path))
    mine = sqlite3.connect(path, isolation_level=None)
    mine.execute("INSERT INTO meta VALUES ('mine', 1)")
    asyncio.run(open_and_close(path))
    leaves = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM meta').fetchall()"
    subprocess.run([sys.executable, "-c", leaves, path], check=True)
    assert Path(f"{path}-wal").exists()
    mine.close()


async def open_and_close(path: Path) -> None:
    async with opened(path):
        pass


async def test_damage_that_is_found_while_it_runs_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    async with opened(path) as store:
        for _ in range(20):
            await store.write(add(*["a"] * 100, subject="x" * 100))
    async with opened(path) as store:
        overwrite(path, range(10, 60))
        with pytest.raises(StoreError, match="damaged"):
            await types(store)
        assert "is damaged" in str(store.fault)
    async with opened(path) as store:
        assert store.quarantined is not None
        assert await types(store) == []


async def test_a_file_that_sqlite_complained_about_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    async with opened(path) as store:
        await store.write(add(*["a"] * 1000, subject="x" * 100))
    overwrite(path, range(20, 30))
    files.mark_suspect(str(path))
    async with opened(path) as store:
        assert store.quarantined is not None
    assert "edgeq.db-suspect" not in os.listdir(tmp_path)
    files.mark_suspect(str(path))
    async with opened(path) as store:
        assert store.quarantined is None, "it is whole"
    assert "edgeq.db-suspect" not in os.listdir(tmp_path)


async def test_damage_that_shows_only_at_the_start_is_put_aside_at_once(tmp_path: Path) -> None:
    """A file that was closed in peace isn't looked at as a whole."""
    path = tmp_path / "edgeq.db"
    async with opened(path) as store:
        await store.write(add(*["a"] * 1000))
    with closing(sqlite3.connect(path)) as connection:
        text = "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'schema_migration'"
        roots = connection.execute(text).fetchall()
    for (root,) in roots:
        overwrite(path, range(root - 1, root))
    assert files.damaged(str(path)) == ""
    async with opened(path) as store:
        assert store.quarantined is not None
        assert store.fault is None
        await store.write(add("a"))


async def test_a_file_that_was_emptied_while_it_was_used_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    path.touch()
    files.mark_suspect(str(path))
    async with opened(path) as store:
        assert store.quarantined is not None
    assert "edgeq.db-suspect" not in os.listdir(tmp_path)


async def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "edgeq.db").touch()
    async with opened(tmp_path / "edgeq.db") as store:
        assert store.quarantined is None
        await store.write(add("a"))
