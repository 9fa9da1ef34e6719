"""The id of a job is given once: however the last job is removed, and whoever adds the next one. What a dispatch writes
into the log, and what becomes of a database of an older version.

SQLite by itself gives the greatest id there is, plus one, so that of a removed job whenever that was the last.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.job_table import NOW, new, opened
from support.stores import Database

from edgeq import Job, Queue
from edgeq.config.schema import Retention as Ages
from edgeq.store import jobs, schema
from edgeq.store.jobs import FINISHED, INCOMPLETE, STATES
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.units import Duration
from edgeq.upkeep.retention import Retention

PAGE_BYTES = 4096 + 24  # in the log, with its header
NEEDED = {"id", "queue", "kind", "args", "priority", "state", "attempt", "max_attempts", "run_at", "created_at"}


class Greet(Job):
    number: int = 0

    async def handle(self, ctx: Any) -> None: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edgeq.db"


@pytest.fixture
def queue(path: Path) -> Iterator[Queue]:
    with Queue(path) as opened_queue:
        yield opened_queue


def one(queue: Queue) -> int:
    return queue.dispatch(Greet()).id


def delayed(queue: Queue) -> int:
    return queue.dispatch(Greet(), delay="1h", expires="1h").id


def unique(queue: Queue) -> int:
    return queue.dispatch(Greet(), unique_key=f"key-{queue.stats()}").id


def many(queue: Queue) -> int:
    first, second, *_ = (each.id for each in queue.dispatch_many(Greet(number=number) for number in range(7)))
    assert second == first + 1
    return first


def on_a_connection(queue: Queue) -> int:
    with closing(sqlite3.connect(queue.path)) as connection:
        dispatched = queue.dispatch(Greet(), connection=connection)
        connection.commit()
        return dispatched.id


def in_a_transaction(queue: Queue) -> int:
    with queue.transaction():
        return queue.dispatch(Greet()).id


def by_another_process(queue: Queue) -> int:
    program = """\
import sys
from edgeq.store import jobs
from edgeq.store.direct_sqlite import SqliteDirect
new = jobs.NewJob(queue="default", kind="m:Work", args="{}")
print(SqliteDirect(sys.argv[1]).write(lambda tx: jobs.add(tx, [new]), single=True)[0].id)
"""
    done = subprocess.run([sys.executable, "-c", program, queue.path], capture_output=True, check=True, timeout=60)
    return int(done.stdout)


def purged(queue: Queue, last: int) -> None:
    assert queue.purge(states=["available"]) == last


def purged_once_cancelled(queue: Queue, last: int) -> None:
    queue.cancel(*range(1, last + 1))
    assert queue.purge(older_than=0) == last


def removed_one_by_one(queue: Queue, last: int) -> None:
    for job_id in (last, *range(1, last)):  # the greatest first, and one that is the last only then
        queue.cancel(job_id)
        assert queue._direct.write(lambda tx, job_id=job_id: jobs.remove(tx, [job_id])) == 1  # type: ignore[misc]


def removed_by_hand(queue: Queue, last: int) -> None:
    with closing(sqlite3.connect(queue.path, isolation_level=None)) as connection:
        assert connection.execute("DELETE FROM jobs").rowcount == last


def removed_but_for_the_first(queue: Queue, last: int) -> None:
    with closing(sqlite3.connect(queue.path, isolation_level=None)) as connection:
        assert connection.execute("DELETE FROM jobs WHERE id > 1").rowcount == last - 1


@pytest.mark.parametrize("add", [one, delayed, unique, many, on_a_connection, in_a_transaction, by_another_process])
@pytest.mark.parametrize(
    "remove", [purged, purged_once_cancelled, removed_one_by_one, removed_by_hand, removed_but_for_the_first]
)
def test_the_last_job_leaves_its_id_to_nobody(
    queue: Queue, add: Callable[[Queue], int], remove: Callable[[Queue, int], None]
) -> None:
    queue.dispatch_many(Greet(number=number) for number in range(5))
    remove(queue, 5)
    assert add(queue) == 6
    latest = queue.find(limit=1)[0].id
    assert add(queue) == latest + 1, "and the next one comes after it"


async def test_retention_leaves_the_id_of_the_last_job_to_nobody(database: Database) -> None:
    clock = FakeClock()
    async with opened(database) as store:
        for expected in (1, 2, 3):
            [added] = await store.write(lambda tx: jobs.add(tx, [new()]))
            assert added.id == expected
            await store.write(lambda tx, job_id=added.id: jobs.cancel(tx, [job_id], clock.now()))  # type: ignore[misc]
            clock.advance(3601)
            await Retention(Ages(jobs=Duration(3600)), store, clock, Metrics()).look()
            assert await jobs.find(store, limit=9) == []


def test_what_is_rolled_back_was_neither_removed_nor_added(queue: Queue) -> None:
    for expected in (1, 2):
        assert one(queue) == expected

    def fail() -> None:
        with queue.transaction():
            queue.purge(states=["available"])
            assert one(queue) == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [job.id for job in queue.find()] == [2, 1]
    assert one(queue) == 3


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What is done, in this order: so many jobs are added; those whose ids leave this rest when divided by 3 are
    removed; the last so many are; the database is opened anew."""
    step = st.tuples(st.sampled_from(["add", "remove every third", "remove last", "open"]), st.integers(0, 6))
    return draw(st.lists(step, max_size=30))


@settings(max_examples=60)
@given(histories())
def test_ids_only_grow(tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int]]) -> None:
    path = tmp_path_factory.mktemp("ids") / "edgeq.db"
    queue, given_ids, left = Queue(path), [0], set[int]()
    for what, number in history:
        if what == "add":
            some = [each.id for each in queue.dispatch_many([Greet()] * number)]
            assert some == sorted(set(some))
            assert not some or some[0] > given_ids[-1]
            given_ids += some
            left.update(some)
        elif what == "open":
            queue.close()
            queue = Queue(path)
        else:
            gone = (
                sorted(left)[-number:] if what == "remove last" else [each for each in left if each % 3 == number % 3]
            )
            queue.cancel(*gone)
            queue._direct.write(lambda tx, gone=gone: jobs.remove(tx, gone))  # type: ignore[misc]
            left.difference_update(gone)
        assert {job.id for job in queue.find(limit=999)} == left
    queue.close()
    shutil.rmtree(path.parent)


def test_a_dispatch_writes_two_pages(queue: Queue) -> None:
    """The row and its place in the queue. Each page more is a page more on the flash, in every commit."""
    written, log = Counter[float](), Path(f"{queue.path}-wal")
    for _ in range(100):
        before = log.stat().st_size
        one(queue)
        written[(log.stat().st_size - before) / PAGE_BYTES] += 1
    assert written.most_common(1)[0][0] == 2
    assert written[2] > 90, f"the others begin a page: {written}"


# A database of the version before


@pytest.fixture
def old(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of the version before, with 500 jobs in all states, of which the last three were removed."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for first in ("0001", "0002"):
        [migration] = schema.FOLDER.glob(f"{first}_*.py")
        shutil.copy(migration, folder)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "FOLDER", folder)
        schema.migrate(str(path), may_change=True)
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        insert = f"INSERT INTO jobs ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"
        for number in range(1, 501):
            job: dict[str, Any] = {name: f"{name} ä {number}" for name in columns}
            job |= {name: NOW + number for name in columns if name.endswith(("_at", "_id", "_token", "ty", "attempts"))}
            job |= {"id": number, "attempt": 1, "state": STATES[number % 7], "queue": f"q{number % 3}", "options": None}
            connection.execute(insert, [job[name] if number % 2 or name in NEEDED else None for name in columns])
        connection.execute("DELETE FROM jobs WHERE id > 497")
        connection.commit()
    return path


def rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM jobs ORDER BY id").fetchall()


def test_a_database_of_the_version_before_goes_on_as_it_was(old: Path) -> None:
    before = rows(old)
    with Queue(old) as queue:
        assert rows(old) == before
        assert one(queue) == 501, "what dead letters tell of a removed job isn't told of another one"
        assert Counter(job.state for job in queue.find(limit=999)) == Counter(
            [*(row[5] for row in before), "available"]
        )
        assert queue.purge() == sum(row[5] in FINISHED for row in before)
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE jobs SET state = 'lost'")


def test_the_tables_are_the_same_whether_they_are_old_or_new(old: Path, tmp_path: Path) -> None:
    def tables(path: Path) -> list[tuple[str, str]]:
        Queue(path).__enter__().close()
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()

    assert tables(old) == tables(tmp_path / "new.db")


def test_only_jobs_that_have_ended_are_removed(old: Path) -> None:
    with Queue(old) as queue:
        assert queue._direct.write(lambda tx: jobs.remove(tx, range(1, 498))) == 3 * 71
        assert {job.state for job in queue.find(limit=999)} == set(INCOMPLETE)


def test_a_program_of_the_version_before_that_still_runs_stands_in_nobodys_way(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as program, Queue(old) as queue:
        for _ in range(2):
            program.execute(
                "INSERT INTO jobs (queue, kind, args, priority, state, attempt, max_attempts, run_at, created_at) "
                "VALUES ('q', 'm:Work', '{}', 0, 'available', 0, 5, 1, 1)"
            )
            latest = queue.find(limit=1)[0].id
            assert one(queue) == max(latest, 500) + 1
