"""Direct on PostgreSQL. See direct.

A connection that is lost between two units is made anew, and what wasn't committed is done again, once. When it is lost
in the midst of a commit, what has become of that is asked of the database, for up to OUTCOME_SECONDS. Only if it can't
be reached until then, StoreUnavailable says that nobody knows. A server that doesn't answer a statement within
HUNG_SECONDS counts as lost, too; that goes for the caller's own statements in a `transaction` as well.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import peewee as pw
import psycopg
from psycopg.pq import TransactionStatus

from ...backoff import Backoff
from ...errors import StoreError, StoreUnavailable
from ..direct import Direct
from ..store import Row, Statement, Tx, Unit
from . import borrowed, faults, schema
from .connecting import place
from .dispatch import FoundTx, Marker, SingleTx, Unmarked
from .engine import PostgresEngine
from .listening import Listener, PostgresListening

T = TypeVar("T")

OUTCOME_SECONDS = 5.0
HUNG_SECONDS = 30.0
_AGAIN = Backoff(0.05, 1.0)
_PART = "program"


class PostgresDirect(Direct):
    """The database at `url`. `transaction` and `within` are for a psycopg.Connection."""

    driver_error = psycopg.Error
    forked = ("this process was forked in the midst of a transaction, which is its parent's", "fork outside of them")
    _engine: PostgresEngine

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__(place(url))

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._marker = Marker()
        self._tables: tuple[Any, ...] | None = None
        self._listener = Listener(self._url, _PART)

    def _make_engine(self) -> PostgresEngine:
        return PostgresEngine(self._url, _PART, "full", answer_seconds=HUNG_SECONDS)

    def _make_tables(self) -> None:
        schema.prepare(self._url, may_change=True)

    def close(self) -> None:
        """See Direct.close."""
        if self._pid == os.getpid():
            with self._lock, contextlib.suppress(psycopg.Error):
                if self._engine.is_connected:  # else it isn't worth connecting for
                    self._marker.take_away(self._engine.connected()[0])
                    self._engine.forget()
        super().close()

    # Units

    def _run(self, unit: Unit[T], *, single: bool) -> T:
        return self._again(lambda: self._single(unit) if single else self._whole(unit))

    def _again(self, work: Callable[[], T]) -> T:
        """Do it; on another connection if the one there was turns out to be lost."""
        if self._engine.is_connected and _speaks(self._engine.connected()[0]):
            self._engine.disconnect()
        connection, _ = self._engine.connected()
        try:
            return work()
        except psycopg.Error:
            if not connection.closed:
                raise
        return work()

    def _whole(self, unit: Unit[T]) -> T:
        result = unit(self._engine.begin())
        self._commit()
        return result

    def _commit(self) -> None:
        try:
            self._engine.commit()
        except psycopg.Error as error:
            if self._engine.is_connected or not self._engine.unsure or not self._outcome(self._engine.landed, error):
                raise

    def _single(self, unit: Unit[T]) -> T:
        connection, _ = self._engine.connected()
        if self._marker.last is None:
            self._marker.make(connection)
        try:
            return unit(SingleTx(connection, self._marker, self._engine.sender))
        except Unmarked:
            self._marker.last = None
            return self._single(unit)
        except psycopg.Error as error:
            if self._engine.is_connected:
                raise
            found = self._outcome(lambda: self._marker.take_away(self._engine.connected()[0]), error)
            if found is None:
                raise self._unknown(error) from error
            if found == 0:
                raise
            return unit(FoundTx(found))

    def _outcome(self, ask: Callable[[], T], lost: psycopg.Error) -> T:
        """What the database answers as soon as it can be reached again."""
        until = time.monotonic() + OUTCOME_SECONDS
        attempt = 0
        while True:
            try:
                return ask()
            except psycopg.Error as error:
                attempt += 1
                pause = _AGAIN.delay(attempt)
                if time.monotonic() + pause > until:
                    raise self._unknown(lost) from error
            self._engine.disconnect()
            time.sleep(pause)

    def _unknown(self, error: psycopg.Error) -> StoreUnavailable:
        return StoreUnavailable(
            f"the connection was lost during a commit, which may be done or not: {self._refusal(error)}",
            hint="look whether it is there before it is done again; jobs with a unique key can be dispatched again",
        )

    def _begin(self) -> Tx:
        self._again(self._engine.begin)
        _, tx = self._engine.connected()
        tx.wrote = True  # statements of the caller's own can't be seen
        return tx

    def _borrow(self, connection: object, unit: Unit[T], *, plain: bool) -> T:
        if not isinstance(connection, psycopg.Connection):
            raise StoreError(
                f"connection must be a psycopg.Connection, not {type(connection).__name__}",
                hint="libraries that wrap one give it out, as connection.driver_connection or the like",
            )
        with self._turn(), self._errors():
            if self._tables is None:
                self._tables = self._again(lambda: borrowed.tables(self._engine.connected()[0]))
        try:
            return borrowed.run(connection, self._tables, self._engine.sender, unit, plain=plain)
        except psycopg.ProgrammingError:
            raise  # such as: the connection is closed
        except psycopg.Error as error:
            raise self._refusal(error) from error

    def _is_open(self, connection: psycopg.Connection[Any]) -> bool:
        # On one that was lost, the commit says so.
        return connection.closed or connection.info.transaction_status != TransactionStatus.IDLE

    # Reading

    def _fetch(self, query: Statement | pw.Node, params: Sequence[Any]) -> list[Row]:
        return self._again(lambda: self._engine.connected()[1].rows(query, params))

    def listen(self, timeout_seconds: float | None) -> PostgresListening:
        """See Direct.listen."""
        return PostgresListening(self._listener, timeout_seconds)

    def _refusal(self, error: psycopg.Error) -> StoreError:
        return faults.refusal(error, self.place)


def _speaks(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has said something unasked, which most often is goodbye: better known before than after."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
