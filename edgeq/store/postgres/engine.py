"""The writing connection to PostgreSQL. See writer.Engine.

Every transaction begins by taking the store's lock, an advisory one whose number is that of the table `events`: alone,
or beside others that share it. The trigger on `events` takes it too, so that nobody appends events without it, and ids
become visible in their order (G6). It is let go of when the commit can be seen.

Each commit leaves its number in this writer's row of `writers`. When the connection is lost in the midst of a COMMIT,
that row tells what has become of it.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from ...errors import StoreError
from ..store import Tx
from . import faults
from .connecting import ANSWER_SECONDS, WRITES, connect, cut, place
from .transaction import PostgresTx

log = logging.getLogger("edgeq.store")

CHANNEL = "edgeq"
REPLACED = "the tables are gone, or others than before, as after a restored backup"
_NOW = (
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, coalesce(to_regclass('events')::oid::bigint, 0)"
)
_HOLDERS = b"""
SELECT string_agg(format('pid %s, %s', pid, coalesce(nullif(application_name, ''), 'no name')), '; ')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0 AND objid = 'events'::regclass::oid
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class PostgresEngine:
    """Used by one thread at a time. `database_clock` says whether leases go by the database's clock. When the server
    doesn't answer a statement within `answer_seconds`, the connection is lost; by default, `cut` has to see to that."""

    savepoints = False
    listens = True
    ear: int | None = None

    def __init__(
        self, url: str, part: str, durability: str, *, database_clock: bool = True, answer_seconds: float | None = None
    ) -> None:
        self.name = uuid.uuid4().hex
        self._url = url
        self._part = part
        self._place = place(url)
        self._wanted_commit = durability
        self._database_clock = database_clock
        self._answer_seconds = answer_seconds
        self._connection: psycopg.Connection[Any] | None = None
        self._tx: PostgresTx | None = None
        self._batch = 0
        self._unknown = False
        self._lock = 0

    # Connecting

    def connect(self) -> None:
        """Open the connection. Raises psycopg.Error; then there is none."""
        connection = connect(self._url, self._part, WRITES, answer_seconds=ANSWER_SECONDS)
        try:
            connection.execute(_commit_setting(connection, self._wanted_commit))
            [(self._lock,)] = connection.execute(b"SELECT 'events'::regclass::oid::bigint").fetchall()
        except BaseException:
            connection.close()
            raise
        connection.answer_seconds = self._answer_seconds
        self._connection, self._tx = connection, PostgresTx(connection)

    def disconnect(self) -> None:
        """See Engine.disconnect."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def cut(self) -> None:
        """Make a call that waits for the server fail, now. Any thread may do so."""
        cut(self._connection)

    def forget(self) -> None:
        """Remove this writer's row: its last commit is known. Never raises."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute(b"DELETE FROM writers WHERE name = %s", (self.name,))

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and not self._connection.closed

    @property
    def sender(self) -> str:
        """How notifications of this writer begin: the store's number, and who tells."""
        return f"{self._lock} {self.name}"

    @property
    def unsure(self) -> bool:
        """Whether a commit was sent of which it isn't known what has become of it. See `landed`."""
        return self._unknown

    def connected(self) -> tuple[psycopg.Connection[Any], PostgresTx]:
        """The connection, made if there is none; outside of a transaction, what it runs stands alone."""
        if self._connection is None or self._connection.closed or self._tx is None:
            self.connect()
        assert self._connection is not None
        assert self._tx is not None
        return self._connection, self._tx

    # Transactions

    def _begun(self) -> tuple[psycopg.Connection[Any], PostgresTx]:
        """The connection with the transaction on it: on another one, there would be nothing to commit."""
        if self._connection is None or self._connection.closed or self._tx is None:
            raise psycopg.OperationalError("the connection was lost in the midst of a transaction")
        return self._connection, self._tx

    def begin(self, *, shared: bool = False) -> Tx:
        """See Engine.begin."""
        connection, tx = self.connected()
        self._unknown = False
        now = self._begin(connection, "_shared" if shared else "")
        tx.shared, tx.stored_now = shared, now if self._database_clock else None
        tx.touched.clear()
        tx.wrote = False
        return tx

    def _begin(self, connection: psycopg.Connection[Any], mode: str) -> int:
        """One way there and back. Statements that follow see what was committed before the lock was ours."""
        text = f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock{mode}({self._lock}); {_NOW}"
        cursor = connection.execute(text.encode())
        while cursor.nextset():
            pass
        [(now, store)] = cursor.fetchall()
        if store != self._lock:
            connection.close()
            raise psycopg.errors.UndefinedTable(REPLACED)
        return int(now)

    def commit(self) -> None:
        """See Engine.commit. The marker, the notification of others, and the commit go in one way there and back."""
        connection, tx = self._begun()
        text = ""
        if tx.wrote:
            self._batch += 1
            text = (
                f"INSERT INTO writers (name, batch, used_at) VALUES ('{self.name}', {self._batch}, now()) "  # noqa: S608
                "ON CONFLICT (name) DO UPDATE SET batch = excluded.batch, used_at = excluded.used_at; "
            )
        if tx.touched:
            text += f"SELECT pg_notify('{CHANNEL}', '{self.sender} {' '.join(sorted(tx.touched))}'); "
        self._unknown = tx.wrote
        connection.execute(f"{text}COMMIT".encode())
        self._unknown = False

    def landed(self) -> bool:
        """See Engine.landed."""
        if not self._unknown:
            return False
        connection, _ = self.connected()
        # The server may still be at that commit; it has the store's lock until it is done.
        self._begin(connection, "")
        found = connection.execute(b"SELECT batch FROM writers WHERE name = %s", (self.name,)).fetchone()
        connection.execute(b"COMMIT")
        self._unknown = False
        there = found is not None and found[0] == self._batch
        log.info("the commit of which the outcome was unknown %s", "is there" if there else "is made again")
        return there

    def rollback(self) -> None:
        """See Engine.rollback."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute(b"ROLLBACK")
        except psycopg.Error as error:
            log.debug("rollback failed: %s", error)

    def savepoint(self) -> None:
        """See Engine.savepoint."""
        self._begun()[0].execute(b"SAVEPOINT unit")

    def release(self) -> None:
        """See Engine.release."""
        self.check()
        self._begun()[0].execute(b"RELEASE SAVEPOINT unit")

    def check(self) -> None:
        """See Engine.check."""
        if self._begun()[0].info.transaction_status == TransactionStatus.INERROR:
            raise StoreError("the unit went on after one of its statements had failed: nothing of it can be kept")

    def rollback_to(self) -> None:
        """See Engine.rollback_to."""
        self._begun()[0].execute(b"ROLLBACK TO SAVEPOINT unit; RELEASE SAVEPOINT unit")

    def unavailable(self, error: Exception) -> str:
        """See Engine.unavailable."""
        said = faults.reason(error, self._place)
        if isinstance(error, psycopg.errors.LockNotAvailable):
            said += self._holders()
        return said

    def _holders(self) -> str:
        """Who holds the store's lock, for an operator who may end them."""
        with contextlib.suppress(psycopg.Error):
            self.rollback()
            [(found,)] = self.connected()[0].execute(_HOLDERS).fetchall()
            if found:
                return f"; held by {found}: end what keeps a transaction open there"
        return ""

    # Other processes tell of their commits by NOTIFY: see `session`.

    def listen(self) -> None:
        """See Engine.listen."""

    def others_commit(self) -> bool:
        """See Engine.others_commit."""
        return False

    def foreign_commit(self) -> bool:
        """See Engine.foreign_commit."""
        return False

    def lacks_room(self) -> str:
        """See Engine.lacks_room. It isn't this machine's disk."""
        return ""

    def tend(self, *, foreign: bool = False) -> None:
        """See Engine.tend. The server does that itself."""


def _commit_setting(connection: psycopg.Connection[Any], durability: str) -> bytes:
    """With `full`, a server that was told not to wait for its disk is told to, for us, also when it is told so later;
    stricter settings stay."""
    [(found,)] = connection.execute(b"SHOW synchronous_commit").fetchall()
    if durability == "full":
        return b"SET synchronous_commit = " + (b"on" if found == "off" else found.encode())
    return b"SET synchronous_commit = off"
