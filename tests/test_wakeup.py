"""What other processes commit is noticed at once: here each of them is a real one, and looking now and then, the net
below, is out of reach wherever the point is that nobody needs it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeq.clock import Clock
from edgeq.errors import StoreError
from edgeq.events import NewEvent
from edgeq.store import events, files, making, schema, watch, writer
from edgeq.store.files import FileLock
from edgeq.store.sqlite import SqliteEngine, SqliteStore
from edgeq.store.watch import Watch
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

# Does what it is told, a line at a time, on a connection like anybody's.
OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("PRAGMA synchronous=FULL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("PRAGMA data_version").fetchone()
number = int(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    if line == "commit\\n":
        number += 1
        connection.execute("INSERT INTO meta VALUES (?, 'x')", (f"other-{number}",))
    else:
        connection.execute(line)
    print("done", flush=True)
"""


class Other:
    """Another process with a connection to the database."""

    numbers = 0

    def __init__(self, path: Path, *around: str) -> None:
        Other.numbers += 1000
        self.process = subprocess.Popen(
            [*around, sys.executable, "-c", OTHER, str(path), str(Other.numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.expect("ready")

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"

    async def run(self, line: str) -> None:
        self.say(line)
        await asyncio.to_thread(self.expect, "done")


@contextmanager
def other(path: Path, *around: str) -> Iterator[Other]:
    made = Other(path, *around)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


@asynccontextmanager
async def opened(path: Path, **keys: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(path), metrics=Metrics(), clock=Clock(), **keys)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@pytest.fixture
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks now and then: what isn't heard is never noticed."""
    monkeypatch.setattr(writer, "FOREIGN_NET_SECONDS", 3600.0)


@pytest.fixture
def no_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(ctypes, "PyDLL", refused)


async def noticed(store: SqliteStore, seen: int) -> None:
    assert await store.signal.wait("notifications", seen, 60), "nobody has noticed the commit"


async def quiet(store: SqliteStore) -> None:
    """Return when what connections do to the log as they are made has been heard."""
    for _ in range(2):  # what comes while the writer rests after hearing something is heard next
        await asyncio.sleep(5 * writer._REST_SECONDS)
        await until(lambda: not store._writer._heard, "the writer to have looked")


def add(*types: str) -> Any:
    new = [NewEvent(name, subject="", occurred_at=0, recorded_at=0) for name in types]
    return lambda tx: events.append(tx, new)


# Hearing


def test_a_watch_hears_of_writes_unless_it_is_muted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    heard = Watch(str(path))
    with contextlib.closing(heard):
        assert heard.listen()
        assert not heard.wait(0)
        path.write_text("a")
        assert heard.wait(60)
        heard.drain()
        assert not heard.wait(0)
        heard.mute()
        path.write_text("b")
        assert not heard.wait(0)
        heard.listen()
        path.write_text("c")
        assert heard.wait(60)


def test_a_watch_follows_the_path_to_another_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    heard = Watch(str(path))
    with contextlib.closing(heard):
        assert not heard.listen(), "there is nothing to listen to"
        path.touch()
        assert heard.listen()
        with path.open("ab") as old:
            path.unlink()
            assert heard.wait(60), "the file has lost its name"
            path.touch()
            heard.drain()
            assert heard.listen()
            path.write_text("new")
            assert heard.wait(60)
            assert old.tell() == 0


async def test_a_coroutine_can_wait_for_a_watch(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    heard = Watch(str(path))
    with contextlib.closing(heard):
        heard.listen()
        waiting = asyncio.create_task(heard.heard(20))
        await asyncio.sleep(0)
        path.write_text("a")
        assert await waiting
        heard.drain()
        assert not await heard.heard(0.01)


@pytest.mark.usefixtures("no_inotify")
async def test_where_the_system_tells_nothing_a_watch_only_waits(tmp_path: Path) -> None:
    heard = Watch(str(tmp_path))
    with contextlib.closing(heard):
        assert heard.descriptor is None
        assert not heard.listen()
        heard.mute()
        heard.drain()
        assert not heard.wait(0.001)
        assert not await heard.heard(0.001)


# Commits of other processes


@pytest.mark.usefixtures("no_net")
async def test_every_commit_of_another_process_is_noticed(tmp_path: Path) -> None:
    async with opened(tmp_path / "edgeq.db") as store:
        with other(tmp_path / "edgeq.db") as process:
            for _ in range(100):
                seen = store.signal.version("notifications")
                await process.run("commit")
                await noticed(store, seen)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """What to start a process with, so that the disk takes its time for each of its commits."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace isn't installed: apt-get install strace")
    trace = tmp_path / "trace"
    yield (strace, "-f", "-o", str(trace), "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=300000")
    assert "(DELAYED)" in trace.read_text(), "nothing was delayed, so this shows nothing"


@pytest.mark.usefixtures("no_net")
async def test_a_commit_that_takes_its_time_is_noticed_when_it_is_done(tmp_path: Path, slow: tuple[str, ...]) -> None:
    """It is heard when it is written, and can be seen only when the disk has it."""
    async with opened(tmp_path / "edgeq.db") as store:
        with other(tmp_path / "edgeq.db", *slow) as process:
            for _ in range(3):
                seen = store.signal.version("notifications")
                await process.run("commit")
                await noticed(store, seen)


@pytest.mark.usefixtures("no_net")
async def test_a_commit_right_after_our_own_is_noticed(
    tmp_path: Path, slow: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own commits aren't heard. What another process writes before we listen again, and which can't be seen yet
    then, must be looked for."""
    async with opened(tmp_path / "edgeq.db") as store:
        await store.write(add("a"))
        with other(tmp_path / "edgeq.db", *slow) as process:
            await quiet(store)
            log = tmp_path / "edgeq.db-wal"
            listen = store._engine.listen
            late = False

            def listen_late() -> None:
                nonlocal late
                if not late:
                    late = True
                    before = log.stat().st_mtime_ns
                    process.say("commit")
                    while log.stat().st_mtime_ns == before:
                        time.sleep(0.001)
                    time.sleep(0.1)  # all is written, and the disk is at it
                listen()

            seen = store.signal.version("notifications")
            monkeypatch.setattr(store._engine, "listen", listen_late)
            await store.write(add("b"))
            assert late
            await noticed(store, seen)
            await asyncio.to_thread(process.expect, "done")


@pytest.mark.usefixtures("no_net")
async def test_commits_of_another_process_among_our_own_are_noticed(tmp_path: Path) -> None:
    async with opened(tmp_path / "edgeq.db") as store:
        with other(tmp_path / "edgeq.db") as process:
            for _ in range(100):
                seen = store.signal.version("notifications")
                await asyncio.gather(process.run("commit"), store.write(add("a")), store.write(add("b")))
                await noticed(store, seen)


@pytest.mark.usefixtures("no_net")
async def test_our_own_commits_wake_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = 0
    hear = writer.Writer._hear

    def counted(self: writer.Writer) -> None:
        nonlocal heard
        heard += 1
        hear(self)

    monkeypatch.setattr(writer.Writer, "_hear", counted)
    async with opened(tmp_path / "edgeq.db") as store:
        await store.write(add("a"))
        await quiet(store)
        heard_before, seen = heard, store.signal.version("notifications")
        for _ in range(10):
            await store.write(add("a"))
            await asyncio.sleep(1.5 * writer._REST_SECONDS)
        assert heard == heard_before
        assert store.signal.version("notifications") == seen


@pytest.mark.usefixtures("no_net")
async def test_a_log_that_was_made_anew_is_listened_to(tmp_path: Path) -> None:
    """The last connection to go takes the log along."""
    log = tmp_path / "edgeq.db-wal"
    async with opened(tmp_path / "edgeq.db") as store:
        await store.write(add("a"))
        first = log.stat().st_ino

        def loses_its_connection(tx: Any) -> None:
            store._engine.disconnect()
            raise ValueError("lost")

        await store._close_reader()
        with log.open("rb"):  # so that the new one isn't given the number of the old one
            with pytest.raises(ValueError, match="lost"):
                await store.write(loses_its_connection)
            await store.write(add("b"))
            assert log.stat().st_ino != first, "the log is the old one, so this shows nothing"
        with other(tmp_path / "edgeq.db") as process:
            seen = store.signal.version("notifications")
            await process.run("commit")
            await noticed(store, seen)


@pytest.mark.usefixtures("no_net")
async def test_a_database_behind_a_link_is_listened_to(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk" / "edgeq.db", tmp_path / "edgeq.db")
    async with opened(tmp_path / "edgeq.db") as store:
        with other(tmp_path / "edgeq.db") as process:
            seen = store.signal.version("notifications")
            await process.run("commit")
            await noticed(store, seen)


@pytest.mark.usefixtures("no_inotify")
async def test_without_inotify_they_are_noticed_by_looking(tmp_path: Path) -> None:
    async with opened(tmp_path / "edgeq.db") as store:
        assert not store._engine.listens
        with other(tmp_path / "edgeq.db") as process:
            for _ in range(3):
                seen = store.signal.version("notifications")
                await process.run("commit")
                await noticed(store, seen)


async def test_a_transaction_that_is_written_long_before_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FOREIGN_POLL_SECONDS", 0.05)
    async with opened(tmp_path / "edgeq.db") as store:
        looks = 0
        look = store._engine.others_commit

        def others_commit() -> bool:
            nonlocal looks
            looks += 1
            return look()

        monkeypatch.setattr(store._engine, "others_commit", others_commit)
        with other(tmp_path / "edgeq.db") as process:
            seen = store.signal.version("notifications")
            await process.run("PRAGMA cache_spill=1")
            await process.run("PRAGMA cache_size=1")
            await process.run("BEGIN IMMEDIATE")
            for number in range(50):  # more than its memory holds goes to the log before the commit
                await process.run(f"INSERT INTO meta VALUES ('big-{number}', hex(zeroblob(4000)))")
            await until(lambda: looks >= 3)
            assert store.signal.version("notifications") == seen
            await process.run("COMMIT")
            await noticed(store, seen)


async def test_lazy_units_are_done_in_time_though_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FOREIGN_NET_SECONDS", 3600.0)
    async with opened(tmp_path / "edgeq.db") as store:
        await store.write(add("a"))
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        store.submit_lazily(lambda tx: loop.call_soon_threadsafe(done.set), 0.02)
        async with asyncio.timeout(60):
            await done.wait()


# Checkpoints


def engine_on(path: Path) -> SqliteEngine:
    import peewee as pw

    schema.migrate(str(path), may_change=True)
    made = SqliteEngine(str(path), "full", pw.SqliteDatabase(None))
    made.connect()
    return made


def test_no_checkpoint_is_made_while_somebody_else_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edgeq.db"
    engine = engine_on(path)
    monkeypatch.setattr("edgeq.store.sqlite.engine._CHECKPOINT_COMMITS", 1)
    monkeypatch.setattr("edgeq.store.sqlite.engine._LOOK_COMMITS", 1)
    another = sqlite3.connect(path, isolation_level=None, timeout=0)
    with contextlib.closing(another):
        tx = engine.begin()
        tx.rows(sqlite_insert("x" * 100_000))
        engine.commit()
        before = path.stat().st_size
        another.execute("BEGIN IMMEDIATE")
        engine.tend()
        assert path.stat().st_size == before
        another.execute("ROLLBACK")
        engine.tend()
        assert path.stat().st_size > before
        another.execute("BEGIN IMMEDIATE")  # nobody holds the lock that was taken for the checkpoint
        another.execute("ROLLBACK")
    engine.disconnect()


def sqlite_insert(value: str) -> Any:
    from edgeq.store.tables import Meta

    return Meta.insert(key="big", value=value)


async def test_what_others_write_to_the_log_is_taken_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.store.sqlite.engine._CHECKPOINT_COMMITS", 20)
    path = tmp_path / "edgeq.db"
    async with opened(path, log_bytes_kept=200_000) as store:
        before = path.stat().st_size
        with other(path) as process:
            for number in range(4):
                seen = store.signal.version("notifications")
                await process.run(f"INSERT INTO meta VALUES ('big-{number}', hex(zeroblob(100000)))")
                await noticed(store, seen)
            await until(lambda: path.stat().st_size > before + 200_000, "a checkpoint")


# Making the database


def test_an_appliance_waits_while_a_program_makes_the_database(tmp_path: Path) -> None:
    path = str(tmp_path / "edgeq.db-lock")
    maker, appliance = FileLock(path), FileLock(path)
    maker.acquire(to_make=True)
    tries = []

    def sleep(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            maker.release()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.time, "sleep", sleep)
        appliance.acquire()
    assert len(tries) == 3
    with pytest.raises(files.Held, match=f"process {os.getpid()}"):
        FileLock(path).acquire(to_make=True)
    appliance.release()


def test_a_program_waits_for_the_tables_that_an_appliance_makes(tmp_path: Path) -> None:
    path = str(tmp_path / "edgeq.db")
    appliance = FileLock(path + "-lock")
    appliance.acquire()

    def sleep(seconds: float) -> None:
        schema.migrate(path, may_change=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making.time, "sleep", sleep)
        making.ensure(path)
    appliance.release()
    assert schema.current(path)


def test_an_appliance_of_an_older_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "edgeq.db")
    appliance = FileLock(path + "-lock")
    appliance.acquire()
    monkeypatch.setattr(making, "MAKING_SECONDS", 0.1)
    with pytest.raises(
        StoreError, match="no tables of this version yet, and an edgeq of another version runs"
    ) as caught:
        making.ensure(path)
    assert caught.value.hint == "start it anew with this version"
    appliance.release()


async def test_a_store_beside_the_appliance_makes_the_file_if_it_may(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"):
        async with opened(tmp_path / "edgeq.db", exclusive=False):
            pass
    assert not (tmp_path / "edgeq.db").exists()
    async with opened(tmp_path / "edgeq.db", exclusive=False, make=True) as store:
        await store.write(add("a"))
        async with opened(tmp_path / "edgeq.db") as appliance:
            assert [event.type for event in await events.after(appliance, 0, 10)] == ["a"]


def test_waiting_has_a_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody hears, the log not being there yet, is looked for all the same; and the log is listened to then."""
    monkeypatch.setattr(watch, "_NET_SECONDS", 0.06)
    path = tmp_path / "log"
    waiting = watch.Waiting(str(path), None)
    with contextlib.closing(waiting):
        assert waiting.seconds == 0.06
        waiting.wait()
        path.touch()
        waiting.wait()
        path.write_text("x")
        assert waiting._watch.wait(60)
