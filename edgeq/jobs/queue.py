"""Jobs from an ordinary program: a web application, a script, a notebook.

    queue = edgeq.Queue("/var/lib/edgeq/edgeq.db")
    queue.dispatch(CloseValve(device="m1"), delay="10s")

The job is on disk when `dispatch` returns, and a worker, in whatever process, begins with it at once. Nothing needs to
run for that: no thread, no event loop, and no `edgeq run` either; the job waits for one. The database file is made when
it isn't there, and so are the tables in a PostgreSQL database.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from ..clock import Clock
from ..config.checks import is_postgres, label, postgres_url, sqlite_path
from ..context import Dispatchable, How, delay_seconds, new_job
from ..errors import EdgeqError, MissingExtra
from ..store import jobs, queues
from ..store.direct import Direct
from ..store.direct_sqlite import SqliteDirect
from ..store.jobs import FINISHED, STATES, Dispatched, NewJob, StoredJob
from ..store.listening import wait_for, wait_for_async
from ..store.store import Tx, Unit

if TYPE_CHECKING:
    import sqlite3

    import psycopg

    Connection = sqlite3.Connection | psycopg.Connection[Any]

P = ParamSpec("P")
T = TypeVar("T")

_PAGE = 500


def _in_thread(method: Callable[Concatenate[Queue, P], T]) -> Callable[Concatenate[Queue, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: Queue, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Another thread could not use a connection that is this one's, and there is no commit to wait for.
        if self._direct.joined or kwargs.get("connection") is not None:
            return method(self, *args, **kwargs)
        return await asyncio.to_thread(method, self, *args, **kwargs)

    call.__name__ = f"{method.__name__}_async"
    call.__doc__ = f"`{method.__name__}` for a coroutine. Cancelled, it may be done all the same."
    return call


class Queue:
    """The jobs in a database. `url` is what `store.url` says: a path, `sqlite:///path` or `postgresql://…`, which needs
    the extra `edgeq[postgres]`. Raises ValueError for another, MissingExtra.

    Threads may share one, and a process that forks goes on with connections of its own on both sides. Every method is
    there for coroutines, too, as `dispatch_async` and so on. All raise StoreError (an EdgeqError) for what the database
    can't do, such as a disk that is full; nothing is stored then. On PostgreSQL there is one exception, and its message
    says so: when the connection is lost during a commit, and the server can't be reached to ask what became of it. A
    PostgreSQL server that doesn't answer a statement within 30 s counts as lost.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        try:
            self._direct = _direct(os.fspath(url))
        except ValueError as error:
            raise ValueError(f"the url of a Queue {error}") from None  # it may hold a password
        self._clock = Clock()

    @property
    def path(self) -> str:
        """The database file; or where the database is, without user and password."""
        return self._direct.place

    def close(self) -> None:
        """Disconnect, for good. Safe to call twice."""
        self._direct.close()

    def __enter__(self) -> Self:
        """Connect at once, so that what is wrong with the database shows here."""
        self._direct.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Dispatching

    def dispatch(
        self,
        job: Dispatchable,
        *,
        delay: str | float | None = None,
        run_at: int | datetime | None = None,
        connection: Connection | None = None,
        **how: Unpack[How],
    ) -> Dispatched:
        """Store a job, to run at once, after `delay` (`"10s"`, or seconds), or at `run_at` (microseconds since 1970
        UTC, or a datetime with a time zone). `how` is what is different for this one: see How.

        With `connection`, a sqlite3.Connection or psycopg.Connection of your own to the same database, the job is a
        part of its transaction: it is there once you commit, and never if you don't. Raises ValueError that names the
        job and what is wrong.
        """
        new = self._new(job, self._clock.now(), delay, run_at, how)
        return self._add([new], connection)[0]

    def dispatch_many(
        self,
        jobs_: Iterable[Dispatchable],
        /,
        *,
        delay: str | float | None = None,
        run_at: int | datetime | None = None,
        connection: Connection | None = None,
        **how: Unpack[How],
    ) -> list[Dispatched]:
        """Store many jobs in one commit, all or none of them; what became of each, in their order."""
        now = self._clock.now()
        new = [self._new(job, now, delay, run_at, how) for job in jobs_]
        return self._add(new, connection)

    def transaction(self) -> AbstractContextManager[Connection]:
        """`with queue.transaction() as connection:` all that this thread dispatches, cancels and so on in the block is
        one commit, or, if it raises, nothing is done. `connection` is for statements of your own in the same commit.

        Nobody else can write meanwhile, the appliance included: be quick, and await nothing. A PostgreSQL server ends
        one in which nothing happens for 4 seconds.
        """
        return self._direct.transaction()

    # Looking

    def get(self, job_id: int) -> StoredJob | None:
        """The job of that id, or None."""
        return self._direct.ask(lambda store: jobs.one(store, job_id))

    def find(
        self, *, queue: str = "", state: str = "", kind: str = "", limit: int = 100, before_id: int = 0
    ) -> list[StoredJob]:
        """The latest `limit` jobs that fit all given, newest first; `before_id` for the next page."""
        _check_states([state] if state else [])
        return self._direct.ask(
            lambda store: jobs.find(store, limit=limit, queue=queue, state=state, kind=kind, before_id=before_id)
        )

    def stats(self) -> dict[str, dict[str, Any]]:
        """For each queue that has jobs or is paused: how many are in each state, `ready`, `blocked` (by a limit or a
        breaker) and `delayed`; `oldest_ready_seconds`; whether it is `paused`."""
        counts = self._direct.ask(lambda store: jobs.counts(store, self._clock.now()))
        return {row["queue"]: row for row in counts}

    def wait(self, job_id: int, timeout_seconds: float | None = None) -> StoredJob:
        """The job, once it is completed, cancelled or dead for good.

        Raises TimeoutError after `timeout_seconds` (None: wait for as long as it takes), EdgeqError when there is no
        such job (any more).
        """
        found = wait_for(self._direct.listen(timeout_seconds), lambda: self._finished(job_id))
        return _in_time(found, job_id, timeout_seconds)

    async def wait_async(self, job_id: int, timeout_seconds: float | None = None) -> StoredJob:
        """`wait` for a coroutine."""
        listening = self._direct.listen(timeout_seconds)
        found = await wait_for_async(listening, lambda: asyncio.to_thread(self._finished, job_id))
        return _in_time(found, job_id, timeout_seconds)

    # Changing

    def cancel(self, *ids: int) -> int:
        """Cancel jobs that aren't finished; how many. One that runs is told to stop, and what it decides is void."""
        return self._write(lambda tx: jobs.cancel(tx, ids, self._clock.now()))

    def retry(self, *ids: int) -> int:
        """Let dead jobs run again, with all their attempts before them; how many were dead."""
        return self._write(lambda tx: jobs.retry(tx, ids, self._clock.now()))

    def retry_all(self, *, queue: str = "", kind: str = "", reason: str = "") -> int:
        """Let all dead jobs that fit all given run again; how many. `reason` is why they died, such as `timeout`."""
        now = self._clock.now()
        return self._pages(lambda tx: jobs.retry_where(tx, queue=queue, kind=kind, reason=reason, now=now, limit=_PAGE))

    def purge(
        self,
        *,
        queue: str = "",
        kind: str = "",
        states: Sequence[str] = FINISHED,
        older_than: str | float | None = None,
    ) -> int:
        """Remove jobs in one of `states` that fit all given, and that ended longer ago than `older_than` (`"7d"`, or
        seconds); how many. One that runs is never removed. Raises ValueError for a state that there isn't."""
        _check_states(states)
        before = None if older_than is None else self._clock.now() - round(delay_seconds(older_than) * 1e6)
        return self._pages(
            lambda tx: jobs.purge(tx, states=states, queue=queue, kind=kind, finished_before=before, limit=_PAGE)
        )

    def pause(self, queue: str) -> bool:
        """Let no more jobs of the queue begin; what runs goes on. Whether it wasn't paused already. Raises ValueError
        for a name that no queue can have."""
        label(queue)
        return self._write(lambda tx: queues.pause(tx, queue))

    def resume(self, queue: str) -> bool:
        """Let jobs of the queue begin again. Whether it was paused."""
        return self._write(lambda tx: queues.resume(tx, queue))

    dispatch_async = _in_thread(dispatch)
    dispatch_many_async = _in_thread(dispatch_many)
    get_async = _in_thread(get)
    find_async = _in_thread(find)
    stats_async = _in_thread(stats)
    cancel_async = _in_thread(cancel)
    retry_async = _in_thread(retry)
    retry_all_async = _in_thread(retry_all)
    purge_async = _in_thread(purge)
    pause_async = _in_thread(pause)
    resume_async = _in_thread(resume)

    def _new(
        self, job: Dispatchable, now: int, delay: str | float | None, run_at: int | datetime | None, how: How
    ) -> NewJob:
        new = new_job(job, now=now, delay=delay, run_at=run_at, **how)
        _check_importable(new)
        return new

    def _add(self, new: list[NewJob], connection: Connection | None) -> list[Dispatched]:
        def unit(tx: Tx) -> list[Dispatched]:
            return jobs.add(tx, new)

        plain = all(each.unique_key is None and each.limit is None and each.needs is None for each in new)
        if connection is not None:
            return self._direct.within(connection, unit, plain=plain)
        return self._direct.write(unit, single=plain and len(new) == 1)

    def _write(self, unit: Unit[T]) -> T:
        return self._direct.write(unit)

    def _pages(self, unit: Unit[int]) -> int:
        """A commit for each page: others can write in between."""
        total = 0
        while True:
            done = self._write(unit)
            total += done
            if done < _PAGE:
                return total

    def _finished(self, job_id: int) -> StoredJob | None:
        job = self.get(job_id)
        if job is None:
            raise EdgeqError(f"there is no job {job_id}", hint="finished jobs are removed after store.retention.jobs")
        return job if job.state in FINISHED else None


def _direct(url: str) -> Direct:
    if not is_postgres(url):
        return SqliteDirect(sqlite_path(url))
    postgres_url(url)
    try:
        from psycopg import ProgrammingError

        from ..store.postgres.direct import PostgresDirect  # who uses SQLite does without its driver
    except ImportError:
        raise MissingExtra("a queue on PostgreSQL", "postgres") from None
    try:
        return PostgresDirect(url)
    except ProgrammingError as error:
        raise ValueError(f"must be one that PostgreSQL's driver understands: {error}".strip()) from None


def _in_time(job: StoredJob | None, job_id: int, timeout_seconds: float | None) -> StoredJob:
    if job is None:
        raise TimeoutError(f"job {job_id} isn't finished after {timeout_seconds}s")
    return job


def _check_importable(new: NewJob) -> None:
    """A class in the program's main file has a name under which no worker finds it."""
    if new.kind.startswith("__main__:"):
        raise EdgeqError(
            f"job {new.kind.partition(':')[2]} is defined in the program's own file, where no worker finds it",
            hint="move it to a module that app.modules names, and import it from there",
        )
    for callback in (new.on_success, new.on_failure):
        if callback is not None:
            _check_importable(callback)


def _check_states(states: Sequence[str]) -> None:
    for state in states:
        if state not in STATES:
            raise ValueError(f"there is no state {state!r}; there are {', '.join(STATES)}")
