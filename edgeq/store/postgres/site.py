"""The store of a site, as a gateway's forwarder writes to it: only batches of events, and no tables of its own."""

from __future__ import annotations

import threading

import psycopg
from msgspec.structs import replace
from psycopg.conninfo import make_conninfo

from ...errors import EdgeqError, StoreError, StoreUnavailable
from ..events import Appended
from ..forwarded import Batch, receive
from ..tables import Events
from . import faults, schema
from .connecting import WRITES, connect, place
from .engine import PostgresEngine

_COLUMNS = b"""
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name IN ('events', 'meta', 'writers')
"""
# What is written here.
_NEEDED = {("meta", "key"), ("meta", "value"), ("writers", "name"), ("writers", "batch"), ("writers", "used_at")} | {
    ("events", column.column_name) for column in Events._meta.sorted_fields
}


class WrongEvents(EdgeqError):
    """The database refuses the events themselves."""


class Site:
    """The store at `url`; `part` names us to the server. Its methods block, and may be called from any thread."""

    def __init__(self, url: str, password: str | None, part: str) -> None:
        self.place = place(url)
        self._url = url if password is None else make_conninfo(url, password=password)
        self._engine = PostgresEngine(self._url, part, "full")
        self._known = False
        self._lock = threading.Lock()

    def receive(self, batch: Batch) -> Appended:
        """Store a batch, in one commit. When it isn't known whether that was made, the batch may be given again.

        Raises WrongEvents, Restored, and StoreError for all that isn't the batch's fault.
        """
        with self._lock:
            try:
                if not self._known:
                    _check(self._url)
                    self._known = True
                tx = self._engine.begin()
                recorded_at = tx.now(0)
                own = [replace(event, recorded_at=recorded_at) for event in batch.events]
                found = receive(tx, replace(batch, events=own))
                self._engine.commit()
            except psycopg.Error as error:
                self._close()
                said = faults.reason(error, self.place)
                if isinstance(error, psycopg.DataError | psycopg.IntegrityError) and not said:
                    raise WrongEvents(f"{self.place}: {str(error).strip().splitlines()[0]}") from error
                raise StoreUnavailable(said or str(faults.refusal(error, self.place))) from error
            except BaseException:
                self._close()
                raise
            return found

    def close(self) -> None:
        """Let go of the connection; the next batch makes another one."""
        with self._lock:
            self._engine.rollback()
            self._engine.forget()
            self._engine.disconnect()
            self._known = False

    def cut(self) -> None:
        """Make a call that waits for the server fail, now. Any thread may do so."""
        self._engine.cut()

    def _close(self) -> None:
        self._engine.disconnect()
        self._known = False


def _check(url: str) -> None:
    """Raise StoreError unless a gateway of this version can put events into the tables of what may be another one."""
    connection = connect(url, "schema", WRITES)
    try:
        found = connection.execute(_COLUMNS).fetchall()
        missing = sorted(_NEEDED - {(table, column) for table, column in found})
        if missing:
            raise StoreError(
                f"{place(url)} has no {'.'.join(missing[0])}: it isn't the store of an edgeq that fits",
                hint="start the site's edgeq once, which makes the tables",
            )
        schema.check_order(connection, url)
    finally:
        connection.close()
