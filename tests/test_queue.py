"""edgeq.Queue in one process: dispatching, looking, waiting, changing, and what it says when that can't be done."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.queued_jobs import Greet, Limited, Needy, Other
from support.stores import Database

from edgeq import EdgeqError, Queue
from edgeq.clock import Clock
from edgeq.errors import StoreError, StoreUnavailable
from edgeq.jobs import queue as queue_module
from edgeq.store import claims, watch
from edgeq.store.claims import Buried, Completed
from edgeq.store.jobs import StoredJob
from edgeq.store.sqlite import engine, patience

# What is about SQLite: its file, its log, its connections. See test_postgres_queue.
on_file = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
HOUR_US = 3_600_000_000
NOBODY = 65534


@pytest.fixture
def queue(database: Database) -> Iterator[Queue]:
    with Queue(database.where) as opened:
        yield opened


def claim(queue: Queue, name: str = "default", limit: int = 100) -> list[StoredJob]:
    """What a worker does first."""
    now = Clock().now()
    return queue._direct.write(
        lambda tx: claims.claim(tx, queue=name, owner="me", lease_seconds=60, limit=limit, now=now)
    )


def complete(queue: Queue) -> None:
    """Do what a worker does with all that is there."""
    ends = [Completed(job, result='"done"') for job in claim(queue)]
    queue._direct.write(lambda tx: claims.end(tx, ends, now=Clock().now()))


def bury(queue: Queue, reason: str = "failed") -> None:
    """Let all that is there die."""
    ends = [Buried(job, reason=reason, error="it broke") for job in claim(queue)]
    queue._direct.write(lambda tx: claims.end(tx, ends, now=Clock().now()))


def ids(queue: Queue) -> list[int]:
    return sorted(job.id for job in queue.find())


def second(queue: Queue, **keys: Any) -> sqlite3.Connection:
    """A connection of a program's own to the same database."""
    return sqlite3.connect(queue.path, timeout=0.1, **keys)


# Dispatching


def test_a_job_is_there_when_dispatch_returns(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "edgeq.db")
    answer = queue.dispatch(Greet(name="you"))
    with closing(second(queue)) as connection:
        rows = connection.execute("SELECT id, kind, args, state FROM jobs").fetchall()
    queue.close()
    assert rows == [(answer.id, "support.queued_jobs:Greet", '{"name":"you"}', "available")]
    assert not answer.existed


@pytest.mark.parametrize("form", ["{path}", "sqlite:///{path}"])
def test_a_queue_is_named_as_in_the_configuration(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = form.format(path="jobs.db")
    with Queue(url) as queue:
        assert queue.path == str(tmp_path / "jobs.db")
    with Queue(form.format(path=tmp_path / "jobs.db")) as queue:
        assert queue.path == str(tmp_path / "jobs.db")


@pytest.mark.parametrize(
    "url",
    ["", ":memory:", "http://here", "postgresql://u:s3cr3t@h/a/b", "postgresql://u:s3cr3t%@h/a",
     "postgresql://u:s3cr3t@h/a?nosuch=1"],
)  # fmt: skip
def test_a_queue_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"the url of a Queue must be ") as failed:
        Queue(url)
    assert "s3cr3t" not in str(failed.value)


def test_how_a_job_is_to_run_can_be_said(queue: Queue) -> None:
    now = Clock().now()
    late = queue.get(queue.dispatch(Greet(), delay="1h", queue="slow", priority="high", max_attempts=2).id)
    at = queue.get(queue.dispatch(Greet(), run_at=datetime(2100, 1, 1, tzinfo=UTC)).id)
    assert late is not None
    assert at is not None
    assert (late.state, late.queue, late.priority, late.max_attempts) == ("scheduled", "slow", 10, 2)
    assert 0 <= late.run_at - now - HOUR_US < 60_000_000
    assert at.run_at == 4_102_444_800_000_000


def test_a_unique_job_is_answered_with_the_one_that_is_there(queue: Queue) -> None:
    first = queue.dispatch(Greet(), unique_key="k")
    again = queue.dispatch(Greet(), unique_key="k")
    assert (again.id, again.existed) == (first.id, True)
    assert ids(queue) == [first.id]


@on_file
def test_many_jobs_are_one_commit(queue: Queue) -> None:
    with closing(second(queue)) as connection:
        version = connection.execute("PRAGMA data_version").fetchone()
        answers = queue.dispatch_many((Greet(name=str(n)) for n in range(1200)), priority="low")
        changed = connection.execute("PRAGMA data_version").fetchone()
        names = [row[0] for row in connection.execute("SELECT json_extract(args, '$.name') FROM jobs ORDER BY id")]
    assert changed[0] == version[0] + 1
    assert names == [str(n) for n in range(1200)]
    assert [answer.id for answer in answers] == list(range(1, 1201))
    assert {job.priority for job in queue.find()} == {-10}


def test_of_many_jobs_one_of_which_is_wrong_none_is_stored(queue: Queue) -> None:
    with pytest.raises(ValueError, match="Greet"):
        queue.dispatch_many([Greet(), Greet().configure(unique_key="x" * 2000)])
    assert queue.find() == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"delay": -1}, "must not be negative"),
        ({"delay": "soon"}, "soon"),
        ({"run_at": 12.5}, "microseconds"),
        ({"delay": 1, "run_at": 1}, "either delay or run_at"),
        ({"unique_key": "x" * 10_240}, "unique_key"),
        ({"priority": "urgent"}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
    ],
)
def test_what_is_wrong_with_a_dispatch_is_said(queue: Queue, how: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        queue.dispatch(Greet(), **how)
    assert queue.find() == []


def test_only_jobs_are_dispatched(queue: Queue) -> None:
    with pytest.raises(TypeError, match="only a job can be dispatched"):
        queue.dispatch(Greet)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only a job can be dispatched"):
        queue.dispatch_many(["greet"])  # type: ignore[list-item]


MAIN = """
import sys
sys.path[:0] = {path!r}
from edgeq import EdgeqError, Job, Queue
class Mine(Job):
    async def handle(self, ctx): ...
import jobs_of_the_shop
queue = Queue(sys.argv[1])
for job in (Mine(), jobs_of_the_shop.Send().configure(on_failure=Mine())):
    try:
        queue.dispatch(job)
    except EdgeqError as error:
        print(error, "/", error.hint)
print(queue.find())
"""


def test_a_job_of_the_programs_own_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs_of_the_shop.py").write_text(
        "from edgeq import Job\nclass Send(Job):\n    async def handle(self, ctx): ...\n"
    )
    (tmp_path / "shop.py").write_text(MAIN.format(path=sys.path))
    command = [sys.executable, "shop.py", "edgeq.db"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    sentence = (
        "job Mine is defined in the program's own file, where no worker finds it / "
        "move it to a module that app.modules names, and import it from there\n"
    )
    assert said == 2 * sentence + "[]\n"


@on_file
def test_a_dispatch_is_one_transaction_however_many_statements_it_takes(queue: Queue) -> None:
    """A job without anything special is a single statement, which needs no BEGIN; if it became two, it would."""
    queue.dispatch(Greet())
    connection = queue._direct._engine.connected()[0]
    said: list[str] = []
    connection.set_trace_callback(said.append)
    queue.dispatch(Greet())
    queue.dispatch(Greet(), delay=60, priority=3, on_failure=Greet())
    assert [text.split()[0] for text in said] == ["INSERT", "INSERT"]
    said.clear()
    queue.dispatch(Greet(), unique_key="k")
    assert (said[0], said[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    for job in (Limited(), Needy()):
        said.clear()
        queue.dispatch(job)
        assert (said[0], said[-1]) == ("BEGIN IMMEDIATE", "COMMIT")


# Transactions


@on_file
def test_a_transaction_is_one_commit(queue: Queue) -> None:
    with closing(second(queue)) as connection:
        with queue.transaction() as own:
            own.execute("INSERT INTO meta VALUES ('order', '17')")
            first = queue.dispatch(Greet())
            queue.cancel(first.id)
            queue.dispatch(Greet(), connection=own)
            assert len(queue.find()) == 2, "it sees what it has done so far"
            assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
        assert connection.execute("SELECT value FROM meta WHERE key = 'order'").fetchone() == ("17",)


@on_file
def test_a_transaction_that_raises_leaves_nothing(queue: Queue) -> None:
    def order() -> None:
        with queue.transaction() as own:
            queue.dispatch(Greet())
            own.execute("INSERT INTO meta SELECT key, value FROM meta")

    with pytest.raises(sqlite3.IntegrityError):
        order()
    assert queue.find() == []
    queue.dispatch(Greet())


def test_a_dispatch_that_fails_inside_of_a_transaction_leaves_the_rest(queue: Queue) -> None:
    def unit(tx: Any) -> None:
        queue_module.jobs.add(tx, [Greet().new_job(now=1)])
        raise ValueError("half done")

    with queue.transaction():
        queue.dispatch(Greet(name="first"))
        with pytest.raises(ValueError, match="half done"):
            queue._direct.write(unit)
    assert [job.args for job in queue.find()] == ['{"name":"first"}']


def test_transactions_do_not_nest_and_end_with_their_block(queue: Queue) -> None:
    with queue.transaction(), pytest.raises(StoreError, match="open already"):
        queue.transaction().__enter__()
    with pytest.raises(StoreError, match="was ended inside of its block"), queue.transaction() as own:
        own.commit()
    queue.dispatch(Greet())


def test_threads_wait_for_the_end_of_a_transaction(queue: Queue) -> None:
    thread = threading.Thread(target=lambda: queue.dispatch(Greet(name="thread")))
    with queue.transaction() as own:
        thread.start()
        queue.dispatch(Greet(name="transaction"))
        own.execute("SELECT 1")
    thread.join(60)
    assert [job.args for job in reversed(queue.find())] == ['{"name":"transaction"}', '{"name":"thread"}']


async def test_a_coroutine_may_have_a_transaction_but_not_share_it(queue: Queue) -> None:
    async def meddles() -> None:
        queue.dispatch(Greet(name="meddler"))

    with queue.transaction():
        await queue.dispatch_async(Greet(name="mine"))
        with pytest.raises(StoreError, match="another task of this event loop") as caught:
            await asyncio.create_task(meddles())
        assert caught.value.hint == "don't await anything inside of `with queue.transaction()`"
    assert [job.args for job in queue.find()] == ['{"name":"mine"}']


# Transactions on connections of the program's own

KINDS: list[dict[str, Any]] = [{}, {"isolation_level": "DEFERRED"}, {"isolation_level": "EXCLUSIVE"}]
if sys.version_info >= (3, 12):
    KINDS.append({"autocommit": False})


@on_file
@pytest.mark.parametrize("keys", KINDS, ids=str)
def test_a_job_on_a_connection_is_there_when_that_commits(queue: Queue, keys: dict[str, Any]) -> None:
    with closing(second(queue, **keys)) as connection:
        connection.execute("INSERT INTO meta VALUES ('order', '17')")
        answer = queue.dispatch(Greet(), connection=connection)
        assert queue.find() == []
        connection.commit()
        assert ids(queue) == [answer.id]
        queue.dispatch(Greet(), connection=connection)
        connection.rollback()
        assert ids(queue) == [answer.id]
        queue.dispatch_many([Greet(), Greet()], connection=connection)
    assert ids(queue) == [answer.id], "the connection was closed without a commit"


@on_file
def test_a_job_on_a_connection_without_transactions_needs_one(queue: Queue) -> None:
    kinds: list[dict[str, Any]] = [{"isolation_level": None}]
    if sys.version_info >= (3, 12):
        kinds.append({"autocommit": True})
    for keys in kinds:
        with closing(second(queue, **keys)) as connection:
            with pytest.raises(StoreError, match="no transaction open, and commits each statement") as caught:
                queue.dispatch(Greet(), connection=connection)
            assert caught.value.hint == "execute BEGIN IMMEDIATE before, and COMMIT when all is in"
            connection.execute("BEGIN")
            queue.dispatch(Greet(), connection=connection)
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            answer = queue.dispatch(Greet(), connection=connection)
            connection.execute("COMMIT")
        assert max(ids(queue)) == answer.id


@on_file
def test_what_a_connection_makes_of_rows_does_not_matter(queue: Queue) -> None:
    for factory in (sqlite3.Row, lambda cursor, row: dict.fromkeys("ab")):
        with closing(second(queue)) as connection:
            connection.row_factory = factory
            connection.text_factory = bytes
            queue.dispatch_many([Greet(), Greet()], connection=connection)
            queue.dispatch(Greet(), connection=connection, unique_key="k")
            again = queue.dispatch(Greet(), connection=connection, unique_key="k")
            assert again.existed
            assert (connection.row_factory, connection.text_factory) == (factory, bytes)
            connection.rollback()


@on_file
def test_a_dispatch_that_fails_leaves_the_rest_of_the_connections_transaction(queue: Queue) -> None:
    with closing(second(queue)) as connection:
        connection.execute("INSERT INTO meta VALUES ('order', '17')")
        with pytest.raises(StoreError, match="no more"):
            queue._direct.within(connection, broken)
        connection.commit()
        assert connection.execute("SELECT value FROM meta WHERE key = 'order'").fetchone() == ("17",)
        with pytest.raises(ZeroDivisionError):
            queue._direct.within(connection, lambda tx: 1 // 0)
        assert not connection.in_transaction, "what it has begun it ends"
    assert queue.find() == []


def broken(tx: Any) -> None:
    queue_module.jobs.add(tx, [Greet().new_job(now=1)])
    raise sqlite3.OperationalError("no more")


@on_file
def test_a_connection_to_another_database_is_refused(queue: Queue, tmp_path: Path) -> None:
    for other in (tmp_path / "other.db", ":memory:"):
        with closing(sqlite3.connect(other)) as connection:
            with pytest.raises(
                StoreError, match=r"the connection is to .*(other\.db|in memory), and the queue is .*edgeq"
            ):
                queue.dispatch(Greet(), connection=connection)
            assert not connection.in_transaction
    with pytest.raises(StoreError, match=r"must be a sqlite3\.Connection, not str"):
        queue.dispatch(Greet(), connection="edgeq.db")  # type: ignore[arg-type]
    os.symlink(queue.path, tmp_path / "same.db")
    with closing(sqlite3.connect(tmp_path / "same.db")) as connection:
        queue.dispatch(Greet(), connection=connection)
        connection.commit()
    assert len(queue.find()) == 1


@on_file
def test_a_connection_that_has_read_what_is_old_now_cannot_write(queue: Queue) -> None:
    with closing(second(queue, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM jobs").fetchone()
        queue.dispatch(Greet())
        with pytest.raises(StoreUnavailable, match="somebody else has written since") as caught:
            queue.dispatch(Greet(), connection=connection)
        assert "BEGIN IMMEDIATE" in caught.value.hint


@on_file
def test_a_connection_makes_no_checkpoints_of_its_own(queue: Queue) -> None:
    with closing(second(queue)) as connection:
        queue.dispatch(Greet(), connection=connection)
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)


# Looking and changing


def test_jobs_are_found_and_counted(queue: Queue) -> None:
    first = queue.dispatch(Greet())
    queue.dispatch(Greet(), delay=60)
    queue.dispatch(Other())
    assert [job.id for job in queue.find(queue="default")] == [2, 1]
    assert [job.id for job in queue.find(state="scheduled")] == [2]
    assert [job.id for job in queue.find(kind="support.queued_jobs:Other")] == [3]
    assert [job.id for job in queue.find(limit=1, before_id=3)] == [2]
    counts = queue.stats()
    assert set(counts) == {"default", "other"}
    assert {name: counts["default"][name] for name in ("ready", "delayed", "dead", "paused")} == {
        "ready": 1, "delayed": 1, "dead": 0, "paused": False,
    }  # fmt: skip
    assert queue.get(first.id) == queue.find()[2]
    assert queue.get(99) is None
    assert queue.get(-1) is None
    with pytest.raises(ValueError, match="there is no state 'done'; there are scheduled, available"):
        queue.find(state="done")


def test_jobs_are_cancelled_retried_and_purged(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "_PAGE", 2)
    queue.dispatch_many([Greet() for _ in range(5)])
    assert queue.cancel(1, 99) == 1
    assert queue.cancel(1) == 0
    bury(queue)
    assert queue.retry(2, 1) == 1
    assert queue.retry_all(queue="other") == 0
    assert queue.retry_all(reason="timeout") == 0
    assert queue.retry_all(reason="failed") == 3
    complete(queue)
    assert queue.stats()["default"]["completed"] == 4
    assert queue.purge(older_than="1h") == 0
    assert queue.purge(states=["completed"]) == 4
    assert [job.state for job in queue.find()] == ["cancelled"]
    assert queue.purge() == 1
    with pytest.raises(ValueError, match="no state 'gone'"):
        queue.purge(states=["gone"])
    with pytest.raises(ValueError, match="ago"):
        queue.purge(older_than="ago")


def test_a_queue_is_paused_and_resumed(queue: Queue) -> None:
    queue.dispatch(Greet())
    assert queue.pause("default")
    assert not queue.pause("default")
    assert queue.stats()["default"]["paused"]
    assert claim(queue) == []
    assert queue.resume("default")
    assert len(claim(queue)) == 1
    with pytest.raises(ValueError, match="must be a name of up to 64"):
        queue.pause("no such queue")
    assert list(queue.stats()) == ["default"]


def test_waiting_ends_with_the_job(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_NET_SECONDS", 3600.0)
    answer = queue.dispatch(Greet())
    threading.Timer(0.2, lambda: complete(queue)).start()
    job = queue.wait(answer.id, 60)
    assert (job.state, job.result) == ("completed", '"done"')
    assert queue.wait(answer.id, 0).id == answer.id


async def test_coroutines_wait_and_do_all_else_too(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_NET_SECONDS", 3600.0)
    first, second_one = await queue.dispatch_many_async([Greet(), Greet()])
    waiting = [asyncio.create_task(queue.wait_async(answer.id, 60)) for answer in (first, second_one)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    await asyncio.to_thread(complete, queue)
    assert [job.id for job in await asyncio.gather(*waiting)] == [first.id, second_one.id]
    third = await queue.dispatch_async(Greet(), priority="low")
    with pytest.raises(TimeoutError):
        await queue.wait_async(third.id, 0.01)
    job = await queue.get_async(third.id)
    assert job is not None
    assert job.priority == -10
    assert [job.id for job in await queue.find_async(state="available")] == [third.id]
    assert await queue.pause_async("default")
    assert (await queue.stats_async())["default"]["paused"]
    assert await queue.resume_async("default")
    assert await queue.cancel_async(third.id) == 1
    assert await queue.retry_async(third.id) == 0
    assert await queue.retry_all_async() == 0
    assert await queue.purge_async() == 3


@on_file
async def test_a_coroutine_may_dispatch_on_a_connection_of_its_own(queue: Queue) -> None:
    with closing(second(queue)) as connection:
        await queue.dispatch_async(Greet(), connection=connection)
        await queue.dispatch_many_async([Greet()], connection=connection)
        assert await queue.find_async() == []
        connection.commit()
    assert len(await queue.find_async()) == 2


def test_waiting_for_too_long_or_for_nothing_is_an_error(queue: Queue) -> None:
    answer = queue.dispatch(Greet())
    with pytest.raises(TimeoutError, match=f"job {answer.id} isn't finished after 0.05s"):
        queue.wait(answer.id, 0.05)
    with pytest.raises(EdgeqError, match="there is no job 99"):
        queue.wait(99)


def test_waiting_goes_on_where_the_system_tells_nothing(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr("ctypes.PyDLL", refused)
    answer = queue.dispatch(Greet())
    threading.Timer(0.05, lambda: complete(queue)).start()
    assert queue.wait(answer.id, 60).state == "completed"


def test_a_queue_leaves_nothing_behind(tmp_path: Path) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with Queue(tmp_path / "edgeq.db") as queue:
        answer = queue.dispatch(Greet())
        queue.cancel(answer.id)
        queue.wait(answer.id)
    assert threading.active_count() <= threads  # what an earlier test left may end meanwhile
    assert len(os.listdir("/proc/self/fd")) <= files
    assert sorted(os.listdir(tmp_path)) == ["edgeq.db", "edgeq.db-lock"]
    queue.close()
    with pytest.raises(StoreUnavailable, match="the queue is closed"):
        queue.dispatch(Greet())


def test_threads_may_share_a_queue(queue: Queue) -> None:
    def work() -> None:
        for _ in range(25):
            got.append(queue.dispatch(Greet()).id)
            assert queue.get(got[-1]) is not None

    got: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(1, 201))
    assert queue.stats()["default"]["ready"] == 200


@on_file
def test_the_log_does_not_grow_without_end(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CHECKPOINT_COMMITS", 10)
    for _ in range(200):
        queue.dispatch(Greet(name="x" * 1000))
    assert Path(f"{queue.path}-wal").stat().st_size < 500_000


# What can't be done


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "gone" / "edgeq.db")
    with pytest.raises(StoreError, match=r"the folder .*gone doesn't exist") as caught:
        queue.dispatch(Greet())
    assert caught.value.hint == "make it, or change store.url"
    (tmp_path / "gone").mkdir()
    with queue:
        queue.dispatch(Greet())


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[Path]:
    """A folder of a user who isn't root, and this process as that user."""
    folder = Path(tempfile.mkdtemp(prefix="edgeq-"))
    root = os.geteuid() == 0
    with Queue(tmp_path / "first.db"):
        pass  # what is imported for that may be somewhere where only root can read
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    folder.chmod(0o755)
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_what_may_not_be_written_is_an_error(unprivileged: Path) -> None:
    path = unprivileged / "edgeq.db"
    with Queue(path) as queue:
        queue.dispatch(Greet())
    path.chmod(0o444)
    with Queue(path) as queue:
        with pytest.raises(StoreUnavailable, match="read-only") as caught:
            queue.dispatch(Greet())
        assert caught.value.hint.startswith("look at the rights of the file and its folder")
        for file in unprivileged.iterdir():  # SQLite has given the log the rights of the file
            file.chmod(0o644)
        queue.dispatch(Greet())
    unprivileged.chmod(0o555)
    with pytest.raises(StoreError, match=r"can't write beside the database: .*Permission denied"):
        Queue(unprivileged / "new.db").dispatch(Greet())


def test_what_is_not_a_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    path.write_text("shopping list: " + "milk " * 1000)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"damaged: .*edgeq\.db \(file is not a database\)") as caught:
        Queue(path).dispatch(Greet())
    assert caught.value.hint == "give the path of the file that store.url names"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["edgeq.db"]


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Queue(tmp_path / "edgeq.db") as queue, queue.transaction() as own:
        own.execute("UPDATE schema_migration SET name = '9999_future' WHERE name LIKE '0002%'")
    with pytest.raises(StoreError, match="written by a newer edgeq") as caught:
        Queue(tmp_path / "edgeq.db").dispatch(Greet())
    assert caught.value.hint == "install that version or a later one"


@on_file
def test_a_database_that_somebody_keeps_locked_is_an_error(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.close()
    monkeypatch.setattr(patience, "BUSY_SECONDS", 0.1)
    with Queue(queue.path) as again, closing(second(queue, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="the database is locked by another program") as caught:
            again.dispatch(Greet())
        assert caught.value.hint.startswith("end the program that keeps a transaction open")
        with pytest.raises(StoreUnavailable, match="locked"):
            again.dispatch(Greet(), connection=second(queue))
        holder.execute("ROLLBACK")
        again.dispatch(Greet())
        assert len(again.find()) == 1


def test_a_lock_that_is_held_for_moments_is_waited_for(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY

    def attempt() -> str:
        if len(pauses) < tries:
            raise locked
        return "in"

    tries = 100
    assert patience.patiently(attempt) == "in"
    assert max(pauses) <= 0.0075, "a longer one would miss the moment"
    tries = 1_000_000
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        patience.patiently(attempt)
    assert patience.BUSY_SECONDS <= sum(pauses) < patience.BUSY_SECONDS + 1.5


@on_file
def test_a_full_disk_is_an_error_and_leaves_nothing(queue: Queue) -> None:
    with queue.transaction() as own:
        own.execute("PRAGMA max_page_count = 1")  # the smallest that is: as many as there are
    with pytest.raises(StoreUnavailable, match="the disk is full") as caught:
        queue.dispatch_many([Greet(name="x" * 5000) for _ in range(100)])
    assert caught.value.hint == "make room on it"
    assert queue.find() == [], "and it goes on by itself, with a connection made anew"
    queue.dispatch(Greet(name="x" * 50_000))


@on_file
def test_a_disk_that_is_full_in_a_transaction_leaves_nothing(queue: Queue) -> None:
    def order() -> None:
        with queue.transaction() as own:
            queue.dispatch(Greet())
            own.execute("PRAGMA max_page_count = 1")
            queue.dispatch_many([Greet(name="x" * 5000) for _ in range(100)])

    with pytest.raises(StoreUnavailable, match="the disk is full"):
        order()
    assert queue.find() == []


@on_file
def test_a_file_that_was_replaced_is_taken_as_it_is_now(queue: Queue, tmp_path: Path) -> None:
    queue.dispatch(Greet(name="old"))
    with Queue(tmp_path / "new.db") as new:
        new.dispatch(Greet(name="restored"))
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{queue.path}{suffix}")
    os.replace(tmp_path / "new.db", queue.path)
    assert [job.args for job in queue.find()] == ['{"name":"restored"}']
    queue.dispatch(Greet(name="new"))
    with closing(second(queue)) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    for suffix in ("", "-wal", "-shm"):
        os.unlink(f"{queue.path}{suffix}")
    queue.dispatch(Greet(name="fresh"))
    assert [job.args for job in queue.find()] == ['{"name":"fresh"}']
