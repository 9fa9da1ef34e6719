"""The tables in PostgreSQL: migrations, run once each, and whether what keeps the order of events is there."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import peewee as pw
import psycopg

from ...errors import StoreError, StoreMissing
from ..meta import COPY_OF, incomplete
from .connecting import ANSWER_SECONDS, WRITES, Connection, connect, place
from .faults import refusal

FOLDER = Path(__file__).parent.parent / "migrations" / "postgresql"

# Any number will do that nobody else locks: held while tables are made.
_MAKING = 0x65646765_71303031 & 0x7FFF_FFFF_FFFF_FFFF
# Before the statement, so before it takes an id; of type 6: for each statement, before INSERT, and for nothing else.
_TRIGGER = b"""
SELECT tgenabled IN ('O', 'A') AND tgtype = 6 AND tgqual IS NULL AND prosrc LIKE %s
FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE tgrelid = 'events'::regclass AND tgname = 'events_in_commit_order'
"""
_TAKES_LOCK = "%PERFORM pg_advisory_xact_lock(TG_RELID::bigint);%"
_IDENTITY = b"""
SELECT attidentity = 'a', seqcache = 1, seqincrement > 0 AND NOT seqcycle FROM pg_attribute, pg_sequence
WHERE attrelid = 'events'::regclass AND attname = 'id'
AND seqrelid = pg_get_serial_sequence('events', 'id')::regclass
"""

# The marks of writers that have ended. No outcome stays unknown for so long.
_FORGET = b"DELETE FROM writers WHERE used_at < now() - interval '7 days'"


def prepare(url: str, *, may_change: bool, copying: bool = False) -> str:
    """Bring the tables up to date; the store's own id.

    Raises StoreError when the server or the tables don't fit; unless `may_change`, when they need a migration; unless
    that goes on (`copying`), when they are an incomplete copy; psycopg.Error.
    """
    connection = connect(url, "schema", WRITES, answer_seconds=ANSWER_SECONDS)
    try:
        done = _applied(connection, url)
        if done != known():
            if not may_change:
                if not done:
                    raise StoreMissing(
                        f"{place(url)} has no tables of edgeq yet",
                        hint="start edgeq once, or name the right configuration with -c",
                    )
                raise StoreError(
                    f"{place(url)} has no tables of this version yet", hint="start the new edgeq once, then try again"
                )
            connection.execute(b"SELECT pg_advisory_lock(%s)", (_MAKING,))
            if _applied(connection, url) != known():
                _migrate(connection)
            connection.answer_seconds = ANSWER_SECONDS
        check_order(connection, url)
        known_facts = dict(connection.execute(b"SELECT key, value FROM meta").fetchall())
        if COPY_OF in known_facts and not copying:
            raise incomplete(place(url))
        if may_change:
            with contextlib.suppress(psycopg.Error):  # a standby lets nobody
                connection.execute(_FORGET)
        return str(known_facts["store_id"])
    finally:
        connection.close()


def upgrade(url: str) -> tuple[str, str]:
    """Bring the tables up to date; their last migration then and now, the same if there was nothing to do, and "" for
    none. Raises StoreError."""
    try:
        connection = connect(url, "schema", WRITES, answer_seconds=ANSWER_SECONDS)
        try:
            before = _applied(connection, url)
        finally:
            connection.close()
        prepare(url, may_change=True)
    except psycopg.Error as error:
        raise refusal(error, place(url)) from error
    return (before[-1] if before else ""), known()[-1]


def known() -> list[str]:
    """The names of all migrations of this version, in order."""
    return sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def _applied(connection: psycopg.Connection[Any], url: str) -> list[str]:
    """The names of the migrations that the database has seen. Raises StoreError when a newer version wrote it."""
    there = connection.execute(b"SELECT to_regclass('schema_migration') IS NOT NULL").fetchall()[0][0]
    done = [row[0] for row in connection.execute(b"SELECT name FROM schema_migration").fetchall()] if there else []
    strange = sorted(set(done) - set(known()))
    if strange:
        raise StoreError(
            f"{place(url)} was written by a newer edgeq (it has {strange[-1]})",
            hint="install that version or a later one",
        )
    return sorted(done)


class _Borrowed(pw.PostgresqlDatabase):
    """A connection of ours in the hands of peewee."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._borrowed = connection
        super().__init__("borrowed")

    def _connect(self) -> psycopg.Connection[Any]:
        return self._borrowed

    def _close(self, connection: psycopg.Connection[Any]) -> None:
        pass

    def _set_server_version(self, connection: psycopg.Connection[Any]) -> None:
        self.server_version = connection.info.server_version


def _migrate(connection: Connection) -> None:
    """All in one transaction: who looks meanwhile finds the tables whole, or not there. Large ones take their time."""
    connection.answer_seconds = None
    # Imported when needed: a start with nothing to migrate doesn't pay its memory.
    from playhouse.migrations import Runner

    try:
        with _Borrowed(connection) as database:
            Runner(database, directory=os.fspath(FOLDER)).up()
            put = b"INSERT INTO meta (key, value) VALUES (%s, %s) ON CONFLICT (key) DO "
            connection.execute(put + b"NOTHING", ("store_id", uuid.uuid4().hex))
            connection.execute(put + b"UPDATE SET value = excluded.value", ("schema_version", known()[-1]))
    except pw.DatabaseError as error:
        raise getattr(error, "orig", error) from None  # the driver's own error, which the caller knows


def check_order(connection: psycopg.Connection[Any], url: str) -> None:
    """Raise StoreError unless events can only become visible in the order of their ids."""
    missing = []
    if connection.execute(_TRIGGER, (_TAKES_LOCK,)).fetchall() != [(True,)]:
        missing.append("the trigger events_in_commit_order is missing, disabled or another one")
    always, cached, grows = (connection.execute(_IDENTITY).fetchall() or [(False, False, False)])[0]
    if not always:
        missing.append("events.id is not GENERATED ALWAYS AS IDENTITY")
    if not cached:
        missing.append("the sequence of events.id must have CACHE 1")
    if not grows:
        missing.append("the sequence of events.id must only grow")
    if missing:
        raise StoreError(
            f"{place(url)} doesn't keep the order of events: {'; '.join(missing)}",
            hint=f"without that, processors may miss events: what makes it is in {FOLDER / known()[0]}.py",
        )
