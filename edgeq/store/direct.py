"""The store for ordinary programs: each unit runs in the thread that asks for it, which waits for its commit.

- `write` returns when what the unit did is on disk, or raises, and then nothing of it is left behind. Units of other
  processes are waited for up to BUSY_SECONDS; what the store can't take now (disk full, locked) is an error at once.
- Any number of threads may share one Direct; they take turns. Before a fork it disconnects, and parent and child go on
  with connections of their own: SQLite's locks don't pass on to a child.
- The database is made when it isn't there, at the first use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar, cast

import peewee as pw

from ..errors import StoreError, StoreUnavailable
from . import borrowed
from .making import ensure
from .sqlite import BUSY_SECONDS, FileGone, SqliteEngine, log_path, patiently
from .store import Row, Statement, Store, Tx, Unit
from .watch import Waiting

log = logging.getLogger("edgeq.store")
T = TypeVar("T")

_all: weakref.WeakSet[Direct] = weakref.WeakSet()
_minds_forks = False
_forking: list[Direct] = []
_left_to_parents: list[SqliteEngine] = []
_ORPHANED = "this process was forked while its parent was connected, and SQLite can't be used here"
_ORPHANED_HINT = "fork outside of transactions and with os.fork (or multiprocessing), or before the queue is used"


class Direct:
    """See the module's text for what can be relied on. Every method raises StoreError for what the store can't do,
    and StoreUnavailable (of that kind, too) for what may be tried again later."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._database = pw.SqliteDatabase(None)
        self._lock = threading.Lock()
        self._begin_anew()
        self._closed = self._orphaned = False
        _mind_forks()
        _all.add(self)

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._engine = SqliteEngine(self.path, "full", self._database)
        self._made = False
        self._owner: tuple[int, object] | None = None

    def open(self) -> None:
        """Connect now rather than at the first use."""
        with self._turn():
            self._engine.connected()

    def close(self) -> None:
        """Disconnect. Safe to call twice; whatever is asked for later raises StoreUnavailable."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        with self._lock:
            self._closed = True
            self._engine.disconnect()

    # Units

    def write(self, unit: Unit[T], *, single: bool = False) -> T:
        """Run the unit and commit it; within `transaction`, in the same thread, as a part of that one.

        `single`: the unit runs a single statement, which by itself is a transaction to SQLite, too, at less cost.
        """
        if self._owner is not None and self.joined:
            return self._join(unit)
        if self._pid != os.getpid():
            self._leave_to_parent()
        with self._lock:
            self._prepare()
            try:
                if single:
                    tx = self._connected()
                    result = patiently(lambda: unit(tx))
                else:
                    result = unit(self._begin())
                    self._engine.commit()
            except BaseException as error:
                self._engine.rollback()
                self._refuse(error)
                raise
            self._tend()
            return result

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything that this thread writes in the block is one commit, made at its end unless it raises.

        It yields the connection, for statements of the caller's own. Others can't write meanwhile.
        """
        if self.joined:
            raise StoreError("a transaction is open already", hint="transactions don't nest")
        with self._turn():
            with self._errors():
                self._begin()
                engine = self._engine
                connection, _ = engine.connected()
            self._owner = _caller()
            try:
                yield connection
                if self._engine is not engine:
                    raise StoreError(_ORPHANED, hint=_ORPHANED_HINT)
                if not connection.in_transaction:
                    raise StoreError("the transaction was ended inside of its block", hint="leave that to the block")
                with self._errors():
                    engine.commit()
            except BaseException:
                if self._engine is engine:
                    engine.rollback()
                raise
            finally:
                self._owner = None
            self._tend()

    def within(self, connection: object, unit: Unit[T]) -> T:
        """Run the unit as a part of the transaction that is open on the caller's own connection, or that is begun with
        it: what it does is done when the caller commits. See `borrowed`."""
        if not isinstance(connection, sqlite3.Connection):
            raise StoreError(
                f"connection must be a sqlite3.Connection, not {type(connection).__name__}",
                hint="libraries that wrap one give it out, as connection.driver_connection or the like",
            )
        if self.joined and connection is self._engine.connected()[0]:
            return self._join(unit)
        if not self._made:
            with self._turn():
                pass
        try:
            return borrowed.run(connection, self.path, unit, self._database)
        except sqlite3.ProgrammingError:
            raise  # such as: the connection belongs to another thread
        except sqlite3.Error as error:
            raise self._engine.refusal(error) from error

    @property
    def joined(self) -> bool:
        """Whether this thread has a `transaction` open. Raises StoreError when another task on the same event loop has
        one: waiting for it would be waiting for ever."""
        owner = self._owner
        if owner is None or owner[0] != threading.get_ident() or self._pid != os.getpid():
            return False
        if owner != _caller():
            raise StoreError(
                "another task of this event loop has a transaction open",
                hint="don't await anything inside of `with queue.transaction()`",
            )
        return True

    def _join(self, unit: Unit[T]) -> T:
        tx = self._engine.connected()[1]
        with self._errors():
            self._engine.savepoint()
            try:
                result = unit(tx)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has ended the transaction itself
                    self._engine.rollback_to()
                raise
            self._engine.release()
            return result

    def _connected(self) -> Tx:
        try:
            return self._engine.connected()[1]
        except FileGone:
            self._take_new_file()
            return self._engine.connected()[1]

    def _begin(self) -> Tx:
        self._connected()
        return self._engine.begin()

    def _tend(self) -> None:
        try:
            self._engine.tend()
        except (sqlite3.Error, OSError) as error:  # the commit is done; the next one will say what is wrong
            log.debug("housekeeping failed: %s", error)

    # Reading

    def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query, which sees what was committed before it began."""
        if self.joined:
            with self._errors():
                return self._engine.connected()[1].rows(query, params)
        with self._turn(), self._errors():
            tx = self._connected()
            return patiently(lambda: tx.rows(query, params))

    def ask(self, question: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """What one of the store's questions answers, such as `ask(lambda store: jobs.one(store, 5))`: they are written
        for an event loop, but wait for nothing here."""
        asked = question(cast(Store, _Reader(self)))
        try:
            asked.send(None)
        except StopIteration as answered:
            return cast(T, answered.value)
        asked.close()
        raise TypeError("a question that does more than read")

    def wait_for(self, look: Callable[[], T | None], timeout_seconds: float | None) -> T | None:
        """The first answer of `look` that isn't None: it is asked again when anybody has written, and a last time when
        the time is over. None: wait for as long as it takes."""
        with contextlib.closing(Waiting(log_path(self.path), timeout_seconds)) as waiting:
            while (found := look()) is None and waiting.seconds > 0:
                waiting.waited(waiting.watch.wait(waiting.seconds))
            return found

    async def wait_for_async(self, look: Callable[[], Awaitable[T | None]], timeout_seconds: float | None) -> T | None:
        """`wait_for` for a coroutine."""
        with contextlib.closing(Waiting(log_path(self.path), timeout_seconds)) as waiting:
            while (found := await look()) is None and waiting.seconds > 0:
                waiting.waited(await waiting.watch.heard(waiting.seconds))
            return found

    # Turns, errors, forks

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the connection for this thread alone."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        lock = self._lock
        with lock:
            self._prepare()
            yield

    def _prepare(self) -> None:
        if self._closed:
            raise StoreUnavailable("the queue is closed")
        if self._orphaned:
            raise StoreError(_ORPHANED, hint=_ORPHANED_HINT)
        if not self._made:
            with self._errors():
                ensure(self.path)
            self._made = True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._refuse(error)
            raise

    def _refuse(self, error: BaseException) -> None:
        """Raise what says what is wrong, instead of an error of the driver."""
        if isinstance(error, sqlite3.Error):
            refusal = self._engine.refusal(error)
            if self._owner is None:
                self._engine.disconnect()
            raise refusal from error

    def _take_new_file(self) -> None:
        """Somebody has removed or replaced the file. Nothing of ours is under way: go on with what is there now."""
        self._engine.disconnect()
        self._begin_anew()
        self._prepare()

    def _leave_to_parent(self) -> None:
        """Forget the connection without closing it, which would touch the parent's locks.

        If there was one, SQLite takes those for locks of this process: a connection of our own wouldn't have any.
        """
        _left_to_parents.append(self._engine)
        self._orphaned = self._engine.is_connected
        self._lock = threading.Lock()
        self._begin_anew()

    def _before_fork(self) -> bool:
        """Disconnect and keep the lock. False when that can't be: this thread or another one is in a transaction."""
        if self._owner is not None and self._owner[0] == threading.get_ident():
            return False
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            return False
        self._engine.disconnect()
        return True

    def _after_fork(self) -> None:
        self._lock.release()


class _Reader:
    """As much of a Store as a question needs."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct

    async def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """See Store.read."""
        return self._direct.read(query, params)


def _caller() -> tuple[int, object]:
    """Who is calling: a thread and, where it runs an event loop, the task."""
    try:
        return threading.get_ident(), asyncio.current_task()
    except RuntimeError:
        return threading.get_ident(), None


def _mind_forks() -> None:
    global _minds_forks
    if not _minds_forks:
        _minds_forks = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def _before_fork() -> None:
    _forking[:] = [direct for direct in list(_all) if direct._before_fork()]


def _after_fork() -> None:
    for direct in _forking:
        direct._after_fork()
    _forking.clear()


def _after_fork_in_child() -> None:
    for direct in list(_all):
        if direct not in _forking:
            direct._leave_to_parent()
    _after_fork()
