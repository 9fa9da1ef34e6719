"""The store for ordinary programs: each unit runs in the thread that asks for it, which waits for its commit.

- `write` returns when what the unit did is on disk, or raises, and then nothing of it is left behind. Units of other
  processes are waited for up to BUSY_SECONDS; what the store can't take now (disk full, locked) is an error at once.
- Any number of threads may share one Direct; they take turns. A process that forks goes on with connections of its own
  on both sides.
- The tables are made when they aren't there, at the first use.

What the two databases do in different ways is in `direct_sqlite` and `postgres.direct`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, cast

import peewee as pw

from ..errors import StoreError, StoreUnavailable
from . import forks, writer
from .listening import Listening
from .store import Row, Statement, Store, Tx, Unit

T = TypeVar("T")


class Engine(writer.Engine, Protocol):
    """The writing connection."""

    def connected(self) -> tuple[Any, Tx]:
        """The connection, made if there is none; outside of a transaction, what it runs stands alone."""


class Direct(ABC):
    """See the module's text for what can be relied on. Every method raises StoreError for what the store can't do,
    and StoreUnavailable (of that kind, too) for what may be tried again later. `place` says where the store is."""

    driver_error: ClassVar[type[Exception]]
    forked: ClassVar[tuple[str, str]]
    """What to say, and what to do, when the child of a fork can't go on."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._closed = False
        self._lock = threading.Lock()
        self._begin_anew()
        forks.mind(self)

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._engine = self._make_engine()
        self._made = False
        self._owner: tuple[int, object] | None = None

    # What each database does in its own way

    @abstractmethod
    def _make_engine(self) -> Engine:
        """What connects, not connected yet."""

    def _begin(self) -> Tx:
        """Open a transaction that has the store for itself."""
        return self._engine.begin()

    @abstractmethod
    def _make_tables(self) -> None:
        """Have the tables there. Raises StoreError, or an error of the driver."""

    @abstractmethod
    def _run(self, unit: Unit[T], *, single: bool) -> T:
        """Run the unit and commit it."""

    @abstractmethod
    def _commit(self) -> None:
        """Commit a transaction that can't be run again."""

    @abstractmethod
    def _fetch(self, query: Statement | pw.Node, params: Sequence[Any]) -> list[Row]:
        """All rows of a query, outside of a transaction."""

    @abstractmethod
    def _borrow(self, connection: object, unit: Unit[T], *, plain: bool) -> T:
        """See `within`."""

    @abstractmethod
    def _is_open(self, connection: Any) -> bool:
        """Whether there is still a transaction on the connection."""

    @abstractmethod
    def _refusal(self, error: Any) -> StoreError:
        """What to raise for an error of the driver."""

    def _check(self) -> None:  # noqa: B027 - most have nothing to check
        """Raise StoreError when nothing can be used any more."""

    # Its life

    @abstractmethod
    def listen(self, timeout_seconds: float | None) -> Listening:
        """Begin to listen to what others commit, for so long (None: for as long as it takes)."""

    def open(self) -> None:
        """Connect now rather than at the first use."""
        with self._turn(), self._errors():
            self._engine.connected()

    def close(self) -> None:
        """Disconnect. Safe to call twice; whatever is asked for later raises StoreUnavailable."""
        if self._pid != os.getpid():
            self.leave_to_parent()
        with self._lock:
            self._closed = True
            self._engine.disconnect()

    # Units

    def write(self, unit: Unit[T], *, single: bool = False) -> T:
        """Run the unit and commit it; within `transaction`, in the same thread, as a part of that one.

        `single`: the unit inserts a single row that depends on no others. That is one statement, which by itself is a
        transaction to the database, too, at less cost.
        """
        if self._owner is not None and self.joined:
            return self._join(unit)
        if self._pid != os.getpid():
            self.leave_to_parent()
        with self._lock:
            self._prepare()
            try:
                return self._run(unit, single=single)
            except BaseException as error:
                self._engine.rollback()
                self._refuse(error)
                raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
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
                    raise StoreError(self.forked[0], hint=self.forked[1])
                if not self._is_open(connection):
                    raise StoreError("the transaction was ended inside of its block", hint="leave that to the block")
                with self._errors():
                    self._commit()
            except BaseException:
                if self._engine is engine:
                    engine.rollback()
                raise
            finally:
                self._owner = None

    def within(self, connection: object, unit: Unit[T], *, plain: bool = False) -> T:
        """Run the unit as a part of the transaction that is open on the caller's own connection, or that is begun with
        it: what it does is done when the caller commits. `plain`: it only adds rows, and depends on no others."""
        if self.joined and connection is self._engine.connected()[0]:
            return self._join(unit)
        if not self._made:
            with self._turn():
                pass
        return self._borrow(connection, unit, plain=plain)

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
                with contextlib.suppress(self.driver_error):  # a full disk has ended the transaction itself
                    self._engine.rollback_to()
                raise
            self._engine.release()
            return result

    # Reading

    def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query, which sees what was committed before it began."""
        if self.joined:
            with self._errors():
                return self._engine.connected()[1].rows(query, params)
        with self._turn(), self._errors():
            return self._fetch(query, params)

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

    # Turns, errors, forks

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the connection for this thread alone."""
        if self._pid != os.getpid():
            self.leave_to_parent()
        lock = self._lock
        with lock:
            self._prepare()
            yield

    def _prepare(self) -> None:
        if self._closed:
            raise StoreUnavailable("the queue is closed")
        self._check()
        if not self._made:
            with self._errors():
                self._make_tables()
            self._made = True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self.driver_error as error:
            self._refuse(error)
            raise

    def _refuse(self, error: BaseException) -> None:
        """Raise what says what is wrong, instead of an error of the driver."""
        if isinstance(error, self.driver_error):
            refusal = self._refusal(error)
            if self._owner is None:
                self._engine.disconnect()
            raise refusal from error

    # Forks: see `forks`

    def before_fork(self) -> bool:
        """Whether `after_fork` is to be called, in the parent and in the child, and not `leave_to_parent` there."""
        return False

    def after_fork(self) -> None:  # noqa: B027 - see before_fork
        """Undo what `before_fork` has done."""

    def leave_to_parent(self) -> None:
        """Forget the connection without closing it: to the database, it is the parent's."""
        forks.keep(self._engine)
        self._lock = threading.Lock()
        self._begin_anew()


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
