"""Verbs of retention: the oldest rows of a table, a few at a time, and deleting them.

Rows of a table with numbers stand in the order in which they were written: a smaller id is older, whatever a clock said
at the time. Every verb looks at a bounded number of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import peewee as pw
from peewee import SQL, fn

from .batches import batch, elements
from .dialect import ByDialect
from .job_records import IS_FINISHED
from .store import ZERO, Row, Statement, Store, Tx, literal
from .tables import Cursors, DeadLetters, Events, Jobs, Notifications, Silences, Threads

ID_MAX = 2**63 - 1
HELD = 9
"""The rank of a row that somebody still needs. Of others, those of a smaller rank go first."""

_ONE, _HELD = SQL("1"), SQL("9")
_THREAD = fn.EXISTS(Threads.select(_ONE).where(Threads.fingerprint == Notifications.fingerprint))


def _page(number: pw.Field, moment: pw.Field, rank: pw.Node, only: pw.Node | None = None) -> Statement:
    def build(p: pw.SQL) -> pw.Node:
        where = (number > p) & (number <= p)
        query = number.model.select(number, moment, rank).order_by(number).limit(p)
        found: pw.Node = query.where(where if only is None else where & only)
        return found

    return Statement(build)


def _nth(number: pw.Field) -> Statement:
    return Statement(lambda p: number.model.select(number).order_by(number.desc()).limit(_ONE).offset(p))


def _delete(number: pw.Field) -> Statement:
    return Statement(lambda p: number.model.delete().where(number.in_(elements(p, int))))


EVENTS_PAGE = _page(Events.id, Events.recorded_at, Events.keep)
LOW_EVENTS_PAGE = _page(Events.id, Events.recorded_at, Events.keep, Events.keep < ZERO)
EVENTS_DELETE = _delete(Events.id)
# One that was redriven is history, one that is about to be is needed.
LETTERS_PAGE = _page(
    DeadLetters.id,
    DeadLetters.created_at,
    pw.Case(
        None,
        (
            (DeadLetters.redriven_at.is_null(False), ZERO),
            (DeadLetters.redrive_requested_at.is_null(), _ONE),
        ),
        _HELD,
    ),
)
LETTERS_DELETE = _delete(DeadLetters.id)
NOTIFICATIONS_PAGE = _page(
    Notifications.id,
    Notifications.created_at,
    pw.Case(None, (((Notifications.state == literal("queued")) | _THREAD, _HELD),), ZERO),
)
NOTIFICATIONS_DELETE = _delete(Notifications.id)
SILENCES_PAGE = _page(Silences.id, Silences.ends_at, ZERO)
SILENCES_DELETE = _delete(Silences.id)
LETTERS_NTH = _nth(DeadLetters.id)
NOTIFICATIONS_NTH = _nth(Notifications.id)
COUNT = Statement(
    lambda p: pw.Select(
        [
            Events.select(Events.id)
            .where((Events.id > p) & (Events.id <= p))
            .order_by(Events.id)
            .limit(p)
            .alias("found")
        ],
        [fn.COUNT(SQL("found.id")), fn.MAX(SQL("found.id"))],
    )
)
OLDEST = Statement(lambda p: Events.select(Events.id, Events.recorded_at).order_by(Events.id).limit(p))
OLD_JOBS = Statement(
    lambda p: Jobs.select(fn.COUNT(Jobs.finished_at)).where(IS_FINISHED & (Jobs.state == p) & (Jobs.finished_at < p))
)
PLACES = Statement(
    lambda p: Cursors.select(Cursors.processor, Cursors.last_consumed_id, Cursors.updated_at).order_by(
        Cursors.processor
    )
)
# The marks of writers that have ended. No outcome stays unknown for so long. SQLite has none.
FORGET_WRITERS = Statement(
    lambda p: ByDialect(
        sqlite=SQL("SELECT 1 WHERE 0"),
        postgresql=SQL("DELETE FROM writers WHERE used_at < now() - interval '7 days'"),
    )
)


@dataclass(frozen=True)
class History:
    """A table of which old rows go. `page` finds id, moment and rank of rows after an id and up to another one, so many
    at most; `nth` the id of the last row but so many."""

    name: str
    page: Statement
    delete: Statement
    nth: Statement | None = None


EVENTS = History("events", EVENTS_PAGE, EVENTS_DELETE)
LOW_EVENTS = History("events", LOW_EVENTS_PAGE, EVENTS_DELETE)
DEAD_LETTERS = History("dead_letters", LETTERS_PAGE, LETTERS_DELETE, LETTERS_NTH)
NOTIFICATIONS = History("notifications", NOTIFICATIONS_PAGE, NOTIFICATIONS_DELETE, NOTIFICATIONS_NTH)
SILENCES = History("silences", SILENCES_PAGE, SILENCES_DELETE)


async def page(store: Store, history: History, after: int, until: int, limit: int) -> list[Row]:
    """Up to `limit` rows (id, moment, rank) with ids from after `after` up to `until`, in order of id."""
    return await store.read(history.page, (after, until, limit))


def take(tx: Tx, history: History, after: int, until: int, limit: int) -> list[Row]:
    """`page`, as the transaction sees it."""
    return tx.rows(history.page, (after, until, limit))


def delete(tx: Tx, history: History, ids: Sequence[int]) -> int:
    """Delete rows; how many there were. Whoever waits for rows of the table isn't woken: none has come."""
    return tx.run(history.delete, (batch(ids),)) if ids else 0


async def last_but(store: Store, history: History, count: int) -> int:
    """The highest id that has `count` rows after it; 0 when there is none."""
    rows = [] if history.nth is None else await store.read(history.nth, (count,))
    return int(rows[0][0]) if rows else 0


async def count_some(store: Store, after: int, until: int, limit: int) -> tuple[int, int]:
    """How many events have ids from after `after` up to `until`, of up to `limit` of them; and the last of these."""
    count, last = (await store.read(COUNT, (after, until, limit)))[0]
    return count, last or until


async def count_jobs(store: Store, state: str, before: int) -> int:
    """How many jobs ended in `state` before that moment."""
    return int((await store.read(OLD_JOBS, (state, before)))[0][0])


async def oldest(store: Store) -> tuple[int, int] | None:
    """Id and `recorded_at` of the event that was stored first of those that are still there."""
    rows = await store.read(OLDEST, (1,))
    return (rows[0][0], rows[0][1]) if rows else None


def places(tx: Tx, configured: Collection[str], moved_since: int) -> dict[str, int]:
    """See `places_of`."""
    return places_of(tx.rows(PLACES), configured, moved_since)


async def read_places(store: Store, configured: Collection[str], moved_since: int) -> dict[str, int]:
    """See `places_of`."""
    return places_of(await store.read(PLACES), configured, moved_since)


def places_of(rows: Sequence[Row], configured: Collection[str], moved_since: int) -> dict[str, int]:
    """How far each processor has come that events are kept for: those that are `configured`, paused and halted ones
    too, and those of others of which the cursor has moved since `moved_since`."""
    return {name: last for name, last, moved_at in rows if name in configured or moved_at >= moved_since}


def forget_writers(tx: Tx) -> None:
    """Forget the marks by which programs that ended long ago knew what became of their commits."""
    tx.run(FORGET_WRITERS)
