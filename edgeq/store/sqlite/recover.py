"""A new store out of what can be read of a damaged one.

What can be relied on:

- No number that was ever used is used again: the new store goes on above the greatest of the old one, or, where that
  can't be told for sure, far above the greatest that was seen.
- First comes what edgeq goes by: cursors, contract states, notifications and jobs that aren't done, and the events
  that a processor has yet to see, the newest first. That ends after `seconds`, or when the disk is full.
- A processor whose next events aren't there by then is held: it is paused, and goes on when `history` has them.
- The damaged file is only read. Until the new store is whole, it stays where it is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from ...failpoints import failpoint
from ..copying.tables import TABLES, Copied
from ..meta import COPY_OF, RECOVERY
from ..schema import migrate
from ..store import Row
from . import faults
from .replace import put_in_place
from .salvage import Salvage, Unreadable

MARGIN = 1_000_000
ROWS_AT_ONCE = 500
HISTORY = ("dead_letters", "events", "jobs", "notifications")
"""The tables of which `history` may have more."""

BY_NAME = {table.name: table for table in TABLES}

_FIRST = ("cursors", "contract_states", "threads", "silences", "schedules", "queues", "breakers", "limits")
_OPEN = {
    "notifications": ("queued",),
    "jobs": ("available", "executing", "scheduled", "retryable"),
}
_NOT_TAKEN = ("schema_version", COPY_OF, RECOVERY)
_EVENTS_AT_ONCE = 5000


class Recovery(msgspec.Struct):
    """What was recovered of a damaged store that is now at `aside`.

    `rows` were taken over, `rejected` were none, `gaps` are ids that could not be read, by table. `readable`: anything
    at all was. `numbers` are the greatest ids that the old store gave, `sure` that no greater ones were. `above`: up to
    these ids nothing was looked at yet, by table; of those above, all that is not done was. The `held` processors wait
    for events up to there.
    """

    aside: str
    rows: dict[str, int] = {}
    rejected: dict[str, int] = {}
    gaps: dict[str, list[tuple[int, int]]] = {}
    readable: bool = True
    sure: bool = True
    numbers: dict[str, int] = {}
    above: dict[str, int] = {}
    held: list[str] = []

    def summary(self) -> str:
        """What was recovered, and what can't be, for people."""
        if not self.readable:
            return "nothing, as none of it can be read"
        taken = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.rows.items() if count)
        lost = [
            f"{name.replace('_', ' ')} {', '.join(f'{low + 1} to {high}' for low, high in gaps) or 'in part'}"
            for name, gaps in self.gaps.items()
        ]
        return (taken or "nothing yet") + (f"; unreadable: {'; '.join(lost)}" if lost else "")

    def note(self, salvage: Salvage) -> None:
        """Take over what the reader has come upon."""
        for name, count in salvage.rejected.items():
            self.rejected[name] = self.rejected.get(name, 0) + count
        for name, gaps in salvage.gaps.items():
            last = self.numbers.get(name, 0)
            self.gaps.setdefault(name, []).extend((low, min(high, last)) for low, high in gaps if low < last)
        salvage.forget()


def begin_anew(path: str, aside: str, seconds: float) -> Recovery:
    """Have a new store stand at `path`, with what edgeq goes by of the damaged one there, which goes to `aside`. Nobody
    else uses it. Raises OSError, sqlite3.Error and StoreError; then the damaged one is where it was."""
    new = f"{path}.recovered"
    _remove(new)
    try:
        found = _recover(path, new, aside, seconds)
        put_in_place(new, path, aside)
    finally:
        _remove(new)
    return found


def history(salvage: Salvage, name: str, found: Recovery) -> Iterator[list[Row]]:
    """What `begin_anew` has left of a table, the greatest id first, in lists of at most ROWS_AT_ONCE rows."""
    table, above, states = BY_NAME[name], found.above.get(name, 0), _OPEN.get(name, ())
    columns = salvage.columns(table)
    if not columns:
        return
    rows: Iterator[Row] = salvage.numbered(table, 0, above if name == "events" else found.numbers.get(name, 0))
    if states:
        place = columns.index("state")
        rows = (row for row in rows if row[0] <= above or row[place] not in states)
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk


def _recover(path: str, new: str, aside: str, seconds: float) -> Recovery:
    migrate(new, may_change=True)
    until = time.monotonic() + seconds
    found = Recovery(aside)
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous=OFF")  # until it is complete it is none
        try:
            with Salvage(path) as salvage:
                _numbers(salvage, target, found)
                _first(salvage, target, found)
                _unfinished(salvage, target, found, until)
                _events(salvage, target, found, until)
                found.note(salvage)
        except Unreadable:
            found.readable = False
        else:
            text = msgspec.json.encode(found).decode()
            target.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (RECOVERY, text))
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return found


def _numbers(salvage: Salvage, target: sqlite3.Connection, found: Recovery) -> None:
    """Have new rows begin above the old ones, and the store know of itself what the old one did."""
    numbers, found.sure = salvage.numbers()
    found.numbers = {table.name: numbers.get(table.name, 0) for table in TABLES if table.numbered}
    cursors = salvage.columns(BY_NAME["cursors"])
    if cursors:
        place = cursors.index("last_consumed_id")
        stand = [row[place] for row in salvage.keyed(BY_NAME["cursors"])]
        found.numbers["events"] = max([found.numbers["events"], *stand])
    margin = 0 if found.sure else MARGIN
    for name, number in found.numbers.items():
        if name == "jobs":
            target.execute("UPDATE removed_jobs SET last_id = ?", (number + margin,))
        else:
            target.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number + margin))
    meta = {key: value for key, value in salvage.meta().items() if key not in _NOT_TAKEN}
    target.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", meta.items())
    salvage.forget()


def _first(salvage: Salvage, target: sqlite3.Connection, found: Recovery) -> None:
    for name in _FIRST:
        table = BY_NAME[name]
        _add(target, salvage, table, salvage.numbered(table) if table.numbered else salvage.keyed(table), found)


def _unfinished(salvage: Salvage, target: sqlite3.Connection, found: Recovery, until: float) -> None:
    for name, states in _OPEN.items():
        table = BY_NAME[name]
        if columns := salvage.columns(table):
            place = columns.index("state")
            rows = _in_time(salvage.numbered(table, 0, found.numbers[name]), name, found, until)
            _add(target, salvage, table, (row for row in rows if row[place] in states), found)


def _events(salvage: Salvage, target: sqlite3.Connection, found: Recovery, until: float) -> None:
    """The events that a processor has yet to see, as many as there are time and room for."""
    table, head = BY_NAME["events"], found.numbers["events"]
    (floor,) = target.execute("SELECT min(last_consumed_id) FROM cursors").fetchone()
    floor = head if floor is None else floor
    rows = _in_time(salvage.numbered(table, floor, head), "events", found, until)
    above = head
    while chunk := list(islice(rows, _EVENTS_AT_ONCE)):
        try:
            _add(target, salvage, table, chunk, found)
        except sqlite3.Error as error:
            if faults.code(error) != sqlite3.SQLITE_FULL:
                raise
            break
        above = chunk[-1][0] - 1
    else:
        above = found.above.get("events", floor)
    found.above["events"] = above
    late = target.execute(
        "SELECT processor FROM cursors WHERE last_consumed_id < ? AND NOT paused", (above,)
    ).fetchall()
    found.held = [row[0] for row in late]
    why = f"held until its next events are recovered from {found.aside}"
    target.executemany("UPDATE cursors SET paused = 1, error = ? WHERE processor = ?", [(why, *row) for row in late])


def _in_time(rows: Iterable[Row], name: str, found: Recovery, until: float) -> Iterator[Row]:
    for row in rows:
        yield row
        if time.monotonic() > until:
            found.above[name] = row[0] - 1
            return


def _add(target: sqlite3.Connection, salvage: Salvage, table: Copied, rows: Iterable[Row], found: Recovery) -> None:
    """Add rows in one commit. Raises sqlite3.Error, and adds none then."""
    columns = salvage.columns(table)
    if not columns:
        return
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" for _ in columns)
    before = target.total_changes
    target.execute("BEGIN IMMEDIATE")
    try:
        target.executemany(f"INSERT OR IGNORE INTO {table.name} ({names}) VALUES ({marks})", rows)  # noqa: S608
        target.execute("COMMIT")
    except BaseException:
        if target.in_transaction:
            target.execute("ROLLBACK")
        raise
    failpoint("recover.step")
    found.rows[table.name] = found.rows.get(table.name, 0) + target.total_changes - before


def _remove(path: str) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
