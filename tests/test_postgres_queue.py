"""edgeq.Queue on PostgreSQL: what it promises an ordinary program, and what becomes of a dispatch that loses its
connection.

What doesn't depend on the database is in test_queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.postgres import Postgres
from support.programs import of_tests
from support.queued_jobs import Greet, Limited, Needy
from support.readme import PAGES, files, section
from support.stores import PostgresDatabase

from edgeq import EdgeqError, Queue
from edgeq.clock import Clock
from edgeq.errors import StoreError, StoreUnavailable
from edgeq.events import NewEvent
from edgeq.store import claims, events
from edgeq.store.claims import Completed
from edgeq.store.jobs import StoredJob
from edgeq.store.postgres import connecting, direct, listening
from edgeq.store.postgres.dispatch import Marker, SingleTx, Unmarked

Connection = psycopg.Connection[Any]
HERE = "edgeq program%"


@pytest.fixture
def database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase.on(postgres)
    yield made
    made.drop()


@pytest.fixture
def queue(database: PostgresDatabase) -> Iterator[Queue]:
    with Queue(database.url) as opened:
        yield opened


def names(queue: Queue) -> list[str]:
    """What the jobs that are there have as their argument, in the order in which they came."""
    return [job.args.split('"')[3] for job in reversed(queue.find())]


def claim(queue: Queue) -> list[StoredJob]:
    """What a worker does first."""
    return queue._direct.write(
        lambda tx: claims.claim(tx, queue="default", owner="me", lease_seconds=60, limit=100, now=tx.now(Clock().now()))
    )


# Dispatching and looking


def test_the_tables_are_made_at_the_first_use(postgres: Postgres, postgres_url: str) -> None:
    with Queue(postgres_url) as queue:
        assert queue.get(queue.dispatch(Greet()).id) is not None
    assert postgres.sql(postgres_url, "SELECT kind, args, state FROM jobs") == [
        ("support.queued_jobs:Greet", '{"name":"world"}', "available")
    ]


def test_jobs_are_dispatched_one_by_one_and_many_at_once(database: PostgresDatabase, queue: Queue) -> None:
    first = queue.dispatch(Greet(name="0"))
    many = queue.dispatch_many(Greet(name=str(number)) for number in range(1, 3000))
    assert not any(answer.existed for answer in [first, *many])
    ids = [first.id, *(answer.id for answer in many)]
    assert ids == sorted(set(ids))
    assert database.sql("SELECT id, args FROM jobs ORDER BY id") == [
        (job_id, f'{{"name":"{number}"}}') for number, job_id in enumerate(ids)
    ]


def test_what_depends_on_other_jobs_is_dispatched_alone(queue: Queue) -> None:
    first = queue.dispatch(Greet(), unique_key="a")
    assert queue.dispatch(Greet(), unique_key="a") == type(first)(first.id, existed=True)
    queue.dispatch_many([Limited(), Limited(), Needy()])
    assert queue.stats()["default"]["ready"] == 3
    assert queue.stats()["default"]["blocked"] == 1


def test_a_plain_dispatch_is_one_way_there_and_back(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.dispatch(Greet())
    texts: list[Any] = []
    execute = psycopg.Connection.execute

    def noted(self: Connection, query: Any, *rest: Any, **more: Any) -> Any:
        texts.append(query)
        return execute(self, query, *rest, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", noted)
    queue.dispatch(Greet())
    assert len(texts) == 1


def test_a_plain_dispatch_waits_for_nobody(database: PostgresDatabase, queue: Queue) -> None:
    with database.locked():
        assert queue.get(queue.dispatch(Greet()).id) is not None


def test_others_are_told_of_a_dispatch(queue: Queue, database: PostgresDatabase) -> None:
    async def hear(dispatch: Callable[[], Any]) -> None:
        async with database.opened(beside=True) as store:
            seen = store.signal.version("jobs")
            while await store.signal.wait("jobs", seen, 0.5):  # until it is calm
                seen = store.signal.version("jobs")
            await asyncio.to_thread(dispatch)
            assert await store.signal.wait("jobs", seen, 60)

    asyncio.run(hear(lambda: queue.dispatch(Greet())))
    asyncio.run(hear(lambda: queue.dispatch_many([Greet()])))


def test_any_number_of_threads_may_dispatch(queue: Queue) -> None:
    def dispatch() -> None:
        for _ in range(10):
            queue.dispatch(Greet())
            queue.dispatch(Greet(), unique_key=str(threading.get_ident()))

    threads = [threading.Thread(target=dispatch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queue.find()) == 44


def test_a_closed_queue_leaves_nothing_and_refuses(database: PostgresDatabase) -> None:
    queue = Queue(database.url)
    queue.dispatch(Greet())
    queue.dispatch(Greet(), unique_key="a")
    queue.close()
    queue.close()
    assert database.sql("SELECT * FROM writers") == []
    with pytest.raises(StoreUnavailable, match="the queue is closed"):
        queue.dispatch(Greet())


def test_a_database_that_is_not_there_is_an_error_without_the_password(postgres: Postgres) -> None:
    url = f"postgresql://edgeq:secret@127.0.0.1:{postgres.port}/nowhere"
    with pytest.raises(StoreError, match="nowhere") as refused:
        Queue(url).dispatch(Greet())
    assert "secret" not in f"{refused.value} {refused.value.hint}"


def test_the_program_of_the_readme_does_what_it_says(database: PostgresDatabase, tmp_path: Path) -> None:
    [text] = files(section("## Jobs from programs", PAGES["docs/machines.md"])).values()
    (tmp_path / "packing.py").write_text(
        "from edgeq import Job\nclass PrintLabel(Job):\n    order: int\n    def handle(self, ctx): ...\n"
    )
    (tmp_path / "shop.py").write_text(text.replace("postgresql://site@db.example.net/site", database.url))
    done = subprocess.run(**of_tests("shop.py"), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("available 2\n", "")
    assert database.sql("SELECT args FROM jobs ORDER BY id") == [('{"order":8}',), ('{"order":9}',)]
    assert database.sql("SELECT id FROM orders") == [(9,)]


# Waiting


def finish(queue: Queue) -> None:
    ends = [Completed(job, result="1") for job in claim(queue)]
    assert queue._direct.write(lambda tx: claims.end(tx, ends, now=Clock().now())) == [True] * len(ends)


@pytest.mark.parametrize("how", ["wait", "wait_async"])
def test_who_waits_for_a_job_is_told_of_its_end(
    queue: Queue, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By what the database tells: the looks of its own accord come much too late."""
    monkeypatch.setattr("edgeq.store.postgres.listening.FOREIGN_NET_SECONDS", 1000.0)
    job_id = queue.dispatch(Greet()).id
    found: list[StoredJob] = []

    def wait() -> None:
        found.append(queue.wait(job_id, 60) if how == "wait" else asyncio.run(queue.wait_async(job_id, 60)))

    waiting = threading.Thread(target=wait)
    waiting.start()
    listens = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE '%listening' AND query LIKE 'SELECT%'"
    while not database.sql(listens):
        pass
    with Queue(database.url) as other:
        finish(other)
    waiting.join(60)
    assert [job.state for job in found] == ["completed"]


def test_waiting_ends_in_time_and_leaves_no_connection(queue: Queue, database: PostgresDatabase) -> None:
    with pytest.raises(TimeoutError):
        queue.wait(queue.dispatch(Greet()).id, 0.05)
    thread = queue._direct._listener._thread  # type: ignore[attr-defined]
    if thread is not None:
        thread.join(60)
    deadline = time.monotonic() + 60
    while database.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE '%listening'"):
        assert time.monotonic() < deadline  # the server may take a while to notice that it was closed


def test_who_waits_while_the_server_is_away_asks_it_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []
    enough = threading.Event()

    class Recorded:
        def delay(self, attempt: int) -> float:
            attempts.append(attempt)
            if len(attempts) == 3:
                enough.set()
            return 0.0

    monkeypatch.setattr(listening, "_AGAIN", Recorded(), raising=False)
    listener = listening.Listener("postgresql://u@127.0.0.1:1/d", "program")
    listener.add(enough.clear)
    try:
        assert enough.wait(60)
    finally:
        listener.remove(enough.clear)
    assert attempts[:3] == [1, 2, 3]


# A transaction of the queue's


def test_a_transaction_is_one_commit(queue: Queue, database: PostgresDatabase) -> None:
    with queue.transaction() as connection:
        queue.dispatch(Greet(name="1"))
        connection.execute("CREATE TABLE orders (id int)")
        queue.dispatch(Greet(name="2"), unique_key="a")
        assert database.sql("SELECT * FROM jobs") == []
    assert names(queue) == ["1", "2"]
    assert database.sql("SELECT * FROM orders") == []

    def fail() -> None:
        with queue.transaction():
            queue.dispatch(Greet(name="3"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(queue) == ["1", "2"]


def test_what_fails_in_a_transaction_leaves_the_rest(queue: Queue) -> None:
    with queue.transaction():
        queue.dispatch(Greet(name="1"))
        with pytest.raises(ZeroDivisionError):
            queue._direct.write(lambda tx: tx.run(claims.SHORTEN, (1, "default", 1)) // 0)
        queue.dispatch(Greet(name="2"))
    assert names(queue) == ["1", "2"]


def test_a_transaction_whose_statement_failed_does_not_end_as_if_it_were_done(queue: Queue) -> None:
    def go_on() -> None:
        with queue.transaction() as connection:
            queue.dispatch(Greet())
            with contextlib.suppress(psycopg.Error):
                connection.execute("SELECT 1 / 0")

    with pytest.raises(StoreError):
        go_on()
    assert names(queue) == []


def test_a_transaction_whose_connection_dies_is_an_error_and_nothing_is_there(queue: Queue, postgres: Postgres) -> None:
    def dispatch() -> None:
        with queue.transaction():
            queue.dispatch(Greet(name="1"))
            postgres.terminate(HERE)

    with pytest.raises(StoreUnavailable):
        dispatch()
    assert names(queue) == []
    queue.dispatch(Greet(name="2"))
    assert names(queue) == ["2"]


def test_a_transaction_that_its_block_has_ended_is_an_error(queue: Queue) -> None:
    def end() -> None:
        with queue.transaction() as connection:
            connection.execute("COMMIT")

    with pytest.raises(StoreError, match="the transaction was ended inside of its block"):
        end()


# Within a program's own transaction


@pytest.fixture
def own(database: PostgresDatabase, queue: Queue) -> Iterator[Connection]:
    with psycopg.connect(database.url, application_name="mine") as connection:
        connection.execute("CREATE TABLE orders (id int)")
        connection.commit()
        yield connection
        connection.rollback()


def test_a_job_is_there_if_and_only_if_the_program_commits(queue: Queue, own: Connection) -> None:
    own.execute("INSERT INTO orders VALUES (1)")
    queue.dispatch(Greet(name="1"), connection=own)
    queue.dispatch(Greet(name="2"), connection=own, unique_key="a")
    queue.dispatch_many([Limited(), Needy()], connection=own)
    own.rollback()
    assert queue.find() == []
    queue.dispatch(Greet(name="3"), connection=own)
    own.execute("INSERT INTO orders VALUES (3)")
    assert queue.find() == []
    own.commit()
    assert names(queue) == ["3"]
    assert own.execute("SELECT id FROM orders").fetchall() == [(3,)]


def test_what_fails_within_leaves_the_programs_transaction_as_it_was(queue: Queue, own: Connection) -> None:
    own.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(psycopg.errors.SyntaxError):
        queue._direct.within(own, lambda tx: own.execute("WRONG"))  # type: ignore[arg-type, return-value]
    own.commit()
    assert own.execute("SELECT id FROM orders").fetchall() == [(1,)]


def test_a_program_may_be_slow_to_commit_a_plain_job(queue: Queue, own: Connection, database: PostgresDatabase) -> None:
    queue.dispatch(Greet(name="1"), connection=own)

    async def go_on() -> None:
        async with database.opened(beside=True) as store:
            new = NewEvent("a", occurred_at=1, recorded_at=1)
            await store.write(lambda tx: events.append(tx, [new]), timeout_seconds=60)

    asyncio.run(go_on())
    own.commit()
    assert names(queue) == ["1"]


def test_nobody_adds_its_twin_until_the_program_commits(
    queue: Queue, own: Connection, database: PostgresDatabase
) -> None:
    queue.dispatch(Greet(name="1"), connection=own, unique_key="a")
    answers: list[Any] = []
    other = threading.Thread(target=lambda: answers.append(queue.dispatch(Greet(name="2"), unique_key="a")))
    other.start()
    while other.is_alive() and not database.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):
        pass
    own.commit()
    other.join(60)
    assert [answer.existed for answer in answers] == [True]
    assert names(queue) == ["1"]


def test_a_connection_with_settings_of_its_own_will_do(queue: Queue, database: PostgresDatabase) -> None:
    with psycopg.connect(
        database.url, row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.ClientCursor, autocommit=True
    ) as own:
        with own.transaction():
            assert not queue.dispatch(Greet(name="1"), connection=own).existed
            assert own.execute("SHOW lock_timeout").fetchall() == [{"lock_timeout": "0"}]
            queue.dispatch(Limited(), connection=own)
            assert own.execute("SHOW lock_timeout").fetchall() == [{"lock_timeout": "0"}]
        assert len(queue.find()) == 2


def refused(queue: Queue, own: Any, words: str, **how: Any) -> None:
    with pytest.raises(StoreError, match=words):
        queue.dispatch(Greet(), connection=own, **how)


def test_a_connection_on_which_it_would_not_be_so_is_refused(
    queue: Queue, own: Connection, database: PostgresDatabase
) -> None:
    refused(queue, object(), "must be a psycopg.Connection, not object")
    with psycopg.connect(database.fresh().url) as elsewhere:
        refused(queue, elsewhere, "doesn't see the queue's tables")
        assert elsewhere.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with psycopg.connect(database.url) as hidden:
        hidden.execute("CREATE SCHEMA app; CREATE TABLE app.jobs (id int); SET LOCAL search_path = app, public")
        refused(queue, hidden, "doesn't see the queue's tables")
        hidden.rollback()
    own.autocommit = True
    refused(queue, own, "commits each statement by itself")
    own.autocommit = False
    with pytest.raises(psycopg.Error):
        own.execute("SELECT 1 / 0")
    refused(queue, own, "has failed")
    own.rollback()
    own.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    refused(queue, own, "doesn't see what others have written", unique_key="a")
    queue.dispatch(Greet(), connection=own)  # it depends on nothing that others write
    own.commit()
    assert len(queue.find()) == 1


# Forks


def test_parent_and_child_go_on_with_connections_of_their_own(queue: Queue) -> None:
    queue.dispatch(Greet(name="1"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            queue.dispatch(Greet(name="2"))
            queue.dispatch(Greet(name="3"), unique_key="a")
            queue.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    queue.dispatch(Greet(name="4"))
    assert names(queue) == ["1", "2", "3", "4"]


def test_a_fork_inside_of_a_transaction_leaves_it_to_the_parent(queue: Queue) -> None:
    with queue.transaction():
        queue.dispatch(Greet(name="1"))
        child = os.fork()
        if child == 0:
            try:
                queue.dispatch(Greet(name="2"))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        queue.dispatch(Greet(name="3"))
    assert sorted(names(queue)) == ["1", "2", "3"]


# Connections that die


@pytest.mark.parametrize("how", [{}, {"unique_key": "a"}])
def test_a_connection_that_died_meanwhile_is_made_anew(queue: Queue, postgres: Postgres, how: dict[str, Any]) -> None:
    queue.dispatch(Greet(name="1"))
    assert postgres.terminate(HERE)
    queue.dispatch(Greet(name="2"), **how)
    assert postgres.terminate(HERE)
    assert names(queue) == ["1", "2"]
    assert postgres.terminate(HERE)
    with queue.transaction():
        queue.dispatch(Greet(name="3"))
    assert names(queue) == ["1", "2", "3"]


class Cut:
    """Cuts the connection at the statement whose text has `words` in it, once: before the server gets it, or `after`
    it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, words: bytes, *, after: bool, meanwhile: Callable[[], Any]):
        self.done = False
        execute = psycopg.Connection.execute

        def cut(connection: Connection, query: Any, *rest: Any, **more: Any) -> Any:
            if self.done or words not in query:
                return execute(connection, query, *rest, **more)
            self.done = True
            if after:
                execute(connection, query, *rest, **more)
            connection.close()
            meanwhile()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(psycopg.Connection, "execute", cut)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_what_was_lost_in_the_midst_of_a_commit_is_there_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, single: bool, after: bool
) -> None:
    queue.dispatch(Greet(name="0"))
    cut = Cut(monkeypatch, b"taken AS" if single else b"; COMMIT", after=after, meanwhile=lambda: None)
    new = [Greet(name="1"), Greet(name="2")]
    answer, _ = [queue.dispatch(job) for job in new] if single else queue.dispatch_many(new)
    assert cut.done
    assert names(queue) == ["0", "1", "2"]
    job = queue.get(answer.id)
    assert job is not None
    assert job.args == '{"name":"1"}'


@pytest.mark.parametrize("after", [False, True])
def test_a_transaction_lost_in_the_midst_of_its_commit_is_there_or_an_error(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    def dispatch() -> None:
        with queue.transaction():
            queue.dispatch(Greet(name="1"))

    cut = Cut(monkeypatch, b"; COMMIT", after=after, meanwhile=lambda: None)
    if after:
        dispatch()
    else:
        with pytest.raises(StoreUnavailable, match="the database can't be reached"):
            dispatch()
    assert cut.done
    assert names(queue) == (["1"] if after else [])


@pytest.mark.parametrize("single", [False, True])
def test_what_nobody_can_tell_is_said(
    own_postgres: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    monkeypatch.setattr(direct, "OUTCOME_SECONDS", 0.3)
    server = own_postgres()
    with Queue(server.fresh_database()) as queue:
        queue.dispatch(Greet(name="0"))
        Cut(monkeypatch, b"taken AS" if single else b"; COMMIT", after=True, meanwhile=server.stop)
        with pytest.raises(StoreUnavailable, match="may be done or not"):
            queue.dispatch(Greet(name="1"), **({} if single else {"unique_key": "a"}))
        server.start()
        queue.dispatch(Greet(name="2"))
        assert names(queue) == ["0", "1", "2"]


def test_a_statement_that_comes_too_late_does_nothing(database: PostgresDatabase, queue: Queue) -> None:
    """The server may get to it only after the program has asked what has become of it, and has done it again."""
    from edgeq.store import jobs

    with psycopg.connect(database.url, autocommit=True) as connection:
        marker = Marker()
        marker.make(connection)
        name, last = marker.name, marker.last
        assert marker.take_away(connection) == 0
        marker.name, marker.last = name, last
        new = Greet().new_job(now=1)
        with pytest.raises(Unmarked):
            jobs.add(SingleTx(connection, marker, "0 me"), [new])
    assert queue.find() == []


def test_what_became_of_a_statement_can_be_asked_again(database: PostgresDatabase, queue: Queue) -> None:
    """Else the row before would be taken for the one that isn't there."""
    from edgeq.store import jobs

    queue.find()
    with psycopg.connect(database.url, autocommit=True) as connection:
        marker = Marker()
        marker.make(connection)
        jobs.add(SingleTx(connection, marker, "0 me"), [Greet().new_job(now=1)])
        lost = psycopg.connect(database.url)
        lost.close()
        with pytest.raises(psycopg.OperationalError):
            marker.take_away(lost)
        assert marker.take_away(connection) == 0


def test_a_program_whose_mark_was_cleared_away_goes_on(database: PostgresDatabase, queue: Queue) -> None:
    queue.dispatch(Greet(name="1"))
    database.sql("DELETE FROM writers RETURNING 1")
    queue.dispatch(Greet(name="2"))
    assert names(queue) == ["1", "2"]


def test_a_new_mark_tells_what_became_of_its_first_statement(
    database: PostgresDatabase, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.dispatch(Greet(name="1"))
    database.sql("DELETE FROM writers RETURNING 1")
    make = Marker.make

    def made(marker: Marker, connection: Connection) -> None:
        make(marker, connection)
        Cut(monkeypatch, b"taken AS", after=True, meanwhile=lambda: None)

    monkeypatch.setattr(Marker, "make", made)
    queue.dispatch(Greet(name="2"))
    assert names(queue) == ["1", "2"]


def test_while_the_server_is_away_an_error_says_so(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    with Queue(server.fresh_database()) as queue:
        queue.dispatch(Greet(name="1"))
        server.stop()
        for number in (1, 2):
            with pytest.raises(StoreUnavailable, match="can't be reached"):
                queue.dispatch_many([Greet(name="2")] * number)
        with pytest.raises(EdgeqError, match="can't be reached"):
            queue.find()
        server.start()
        queue.dispatch(Greet(name="3"))
        assert names(queue) == ["1", "3"]


@pytest.mark.parametrize("what", ["single", "whole", "read", "transaction"])
def test_a_server_that_answers_nothing_is_an_error(
    own_postgres: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    server = own_postgres()
    with Queue(server.fresh_database()) as queue:
        queue.dispatch(Greet(name="1"))
        asks: dict[str, Callable[[], object]] = {
            "single": lambda: queue.dispatch(Greet(name="2")),
            "whole": lambda: queue.dispatch(Greet(name="2"), unique_key="a"),
            "read": queue.find,
            "transaction": lambda: contextlib.ExitStack().enter_context(queue.transaction()),
        }
        connection, _ = queue._direct._engine.connected()
        assert connection.answer_seconds == direct.HUNG_SECONDS
        server.freeze()
        try:
            with monkeypatch.context() as patch:  # no longer than it is frozen: else it may need more on a busy machine
                patch.setattr(connection, "answer_seconds", 0.5)
                patch.setattr(direct, "OUTCOME_SECONDS", 0.1)
                patch.setitem(connecting._DEFAULTS, "connect_timeout", "2")
                with pytest.raises(
                    StoreUnavailable, match="may be done or not" if what == "single" else "can't be reached"
                ):
                    asks[what]()
        finally:
            server.thaw()
        queue.dispatch(Greet(name="3"))
        # The server may get to the second one after all, before the third or after it.
        assert sorted(names(queue)) in ([["1", "2", "3"], ["1", "3"]] if what == "single" else [["1", "3"]])


def test_a_server_that_hangs_once_it_is_connected_is_an_error(
    own_postgres: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting.Connection, "answer_seconds", 0.5)
    monkeypatch.setattr(connecting, "_adapt", lambda connection: server.freeze())
    server = own_postgres()
    try:
        with pytest.raises(StoreUnavailable, match="hasn't answered for"):
            Queue(server.fresh_database()).find()
    finally:
        server.thaw()
