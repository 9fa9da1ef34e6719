"""Verbs of the table `cursors`: how far each processor has come, and who may say so."""

from __future__ import annotations

import msgspec

from ..errors import EdgeqError
from . import events
from .store import NULL, ZERO, Row, Statement, Store, Tx, storable
from .tables import Cursors

_ALL = (
    Cursors.processor, Cursors.last_consumed_id, Cursors.updated_at, Cursors.paused, Cursors.generation,
    Cursors.attempt, Cursors.failed_id, Cursors.retry_at, Cursors.error,
)  # fmt: skip
_ONE = Statement(lambda p: Cursors.select(*_ALL).where(Cursors.processor == p))
_EVERY = Statement(lambda p: Cursors.select(*_ALL).order_by(Cursors.processor))
_NO_FAILURE: dict[object, object] = {
    Cursors.attempt: 0, Cursors.failed_id: None, Cursors.retry_at: None, Cursors.error: None,
}  # fmt: skip
_IS_CURRENT = Statement(
    lambda p: Cursors.select(Cursors.generation).where((Cursors.processor == p) & (Cursors.generation == p))
)
_MOVE = Statement(
    lambda p: Cursors.update(
        {
            Cursors.last_consumed_id: p, Cursors.updated_at: p, Cursors.attempt: ZERO, Cursors.failed_id: NULL,
            Cursors.retry_at: NULL, Cursors.error: NULL,
        }
    ).where((Cursors.processor == p) & (Cursors.generation == p))
)  # fmt: skip


class Cursor(msgspec.Struct, frozen=True):
    """A processor's place: it has done everything up to and including `last_consumed_id`.

    While it is stuck at an event, `failed_id` is that event's id, `attempt` how often it was tried, `retry_at` when it
    is tried next and `error` why it failed. `generation` is the fence: see `move`.
    """

    processor: str
    last_consumed_id: int
    updated_at: int
    paused: bool
    generation: int
    attempt: int
    failed_id: int | None
    retry_at: int | None
    error: str | None

    @property
    def halted(self) -> bool:
        """Whether it is paused at an event that failed, rather than between two events."""
        return self.paused and self.failed_id is not None

    @property
    def ahead(self) -> bool:
        """Whether it was halted because it stood ahead of all events: see `take`."""
        return self.failed_id is not None and self.failed_id <= self.last_consumed_id

    @property
    def failure(self) -> Failure | None:
        """The failure at which the processor is stuck, if it is."""
        if self.failed_id is None:
            return None
        return Failure(self.failed_id, self.attempt, self.retry_at or 0, self.error or "", self.halted)


class Failure(msgspec.Struct, frozen=True):
    """Event `event_id` failed for the `attempt`th time because of `error`. It is tried next at `retry_at` microseconds
    since 1970 UTC, or, if it `halts` the processor, when somebody resumes it."""

    event_id: int
    attempt: int
    retry_at: int
    error: str
    halts: bool = False


class CursorMoved(EdgeqError):
    """Somebody else has moved or taken the cursor since it was read: nothing of this unit may stay."""


def take(tx: Tx, processor: str, start: str | int, now: int) -> Cursor:
    """Take the cursor of `processor` for this process: any earlier owner can't move it from now on.

    When there is none, it is made at `start`: `latest`, `beginning`, or the id before the first event to process (at
    most the head). One that stands ahead of all events that ever were, as when the store was restored from a backup and
    the cursor was not, is halted: waiting there, it would pass over those to come.
    """
    query = Cursors.update({Cursors.generation: Cursors.generation + 1}).where(Cursors.processor == processor)
    if not tx.run(query):
        first = 0 if start == "beginning" else _at_most_head(tx, start)
        tx.insert(Cursors, ("processor", "last_consumed_id", "updated_at"), [(processor, first, now)])
    cursor = _current(tx, processor)
    given = events.newest_given(tx)
    if cursor.last_consumed_id > given:
        text = (
            f"the cursor stands at event {cursor.last_consumed_id}, and the newest that ever was is {given}: the store "
            f"is older than the cursor, as after a restored backup. `edgeq processors seek {processor} --to …` says "
            "after which event to go on"
        )
        fail(tx, cursor, Failure(cursor.last_consumed_id, 0, 0, text, halts=True))
        return _current(tx, processor)
    if cursor.ahead and not cursor.paused:  # somebody has resumed it there
        tx.run(Cursors.update(_NO_FAILURE).where(Cursors.processor == processor))
        return _current(tx, processor)
    return cursor


def check(tx: Tx, cursor: Cursor) -> None:
    """Raise CursorMoved when `cursor` isn't current any more."""
    if not tx.rows(_IS_CURRENT, (cursor.processor, cursor.generation)):
        raise _moved(cursor)


def move(tx: Tx, cursor: Cursor, to: int, now: int) -> None:
    """Move to event id `to`, forgetting any failure. Raises CursorMoved when `cursor` isn't current any more."""
    if tx.run(_MOVE, (to, now, cursor.processor, cursor.generation)) == 0:
        raise _moved(cursor)


def fail(tx: Tx, cursor: Cursor, failure: Failure) -> None:
    """Remember that an event failed. Raises CursorMoved when `cursor` isn't current any more."""
    change: dict[object, object] = {
        Cursors.failed_id: failure.event_id, Cursors.attempt: failure.attempt, Cursors.retry_at: failure.retry_at,
        Cursors.error: storable(failure.error),
    }  # fmt: skip
    if failure.halts:
        change[Cursors.paused] = True
    query = Cursors.update(change).where(
        (Cursors.processor == cursor.processor) & (Cursors.generation == cursor.generation)
    )
    if tx.run(query) == 0:
        raise _moved(cursor)


def pause(tx: Tx, processor: str, paused: bool) -> bool:
    """Pause or resume; False when there is no such processor. A running appliance notices by itself.

    Resumed, the processor tries the event at which it is stuck at once, and with all its attempts again.
    """
    change: dict[object, object] = {Cursors.paused: paused}
    if not paused:
        change |= {Cursors.attempt: 0, Cursors.retry_at: None}
    tx.touch("cursors")
    return tx.run(Cursors.update(change).where(Cursors.processor == processor)) > 0


def seek(tx: Tx, processor: str, to: int | str, now: int) -> int | None:
    """Put the cursor to event id `to` (at most the head), `start` or `latest`, and forget any failure: the new id, None
    when there is no such processor. It goes on from there even if it is running: what it decided from the old place
    and has not committed yet is dropped."""
    target = 0 if to == "start" else _at_most_head(tx, to)
    query = Cursors.update(
        {
            Cursors.last_consumed_id: target, Cursors.updated_at: now, Cursors.generation: Cursors.generation + 1,
            **_NO_FAILURE,
        }
    ).where(Cursors.processor == processor)  # fmt: skip
    tx.touch("cursors")
    if is_ahead(tx, processor):
        pause(tx, processor, False)
    return target if tx.run(query) else None


def is_ahead(tx: Tx, processor: str) -> bool:
    """Whether it is halted because it stands ahead of all events. `seek` resumes it."""
    rows = tx.rows(_ONE, (processor,))
    return bool(rows) and _cursor(rows[0]).ahead


def forget(tx: Tx, processor: str) -> bool:
    """Delete the cursor of a processor that the configuration no longer has; False when there is none."""
    return tx.run(Cursors.delete().where(Cursors.processor == processor)) > 0


async def one(store: Store, processor: str) -> Cursor | None:
    """The cursor of `processor`, or None."""
    rows = await store.read(_ONE, (processor,))
    return _cursor(rows[0]) if rows else None


async def every(store: Store) -> list[Cursor]:
    """All cursors, by name."""
    return [_cursor(row) for row in await store.read(_EVERY)]


def _at_most_head(tx: Tx, to: int | str) -> int:
    """`to`, or the highest event id: beyond it, a cursor would skip events that are yet to come."""
    head = events.newest_id(tx)
    return max(0, min(to, head)) if isinstance(to, int) else head


def _current(tx: Tx, processor: str) -> Cursor:
    return _cursor(tx.rows(_ONE, (processor,))[0])


def _moved(cursor: Cursor) -> CursorMoved:
    return CursorMoved(f"the cursor of {cursor.processor} was moved by somebody else")


def _cursor(row: Row) -> Cursor:
    name, last, updated, paused, *rest = row
    return Cursor(name, last, updated, bool(paused), *rest)
