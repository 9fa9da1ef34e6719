"""Verbs of the table `cursors`: how far each processor has come, and who may say so."""

from __future__ import annotations

import msgspec

from ..errors import EdgeqError
from .store import NULL, ZERO, Row, Statement, Store, Tx
from .tables import Cursors, Events

_ALL = (
    Cursors.processor, Cursors.last_consumed_id, Cursors.updated_at, Cursors.paused, Cursors.generation,
    Cursors.attempt, Cursors.failed_id, Cursors.retry_at, Cursors.error,
)  # fmt: skip
_ONE = Statement(lambda p: Cursors.select(*_ALL).where(Cursors.processor == p))
_EVERY = Statement(lambda p: Cursors.select(*_ALL).order_by(Cursors.processor))
_HEAD = Statement(lambda p: Events.select(Events.id).order_by(Events.id.desc()).limit(p))
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


class CursorMoved(EdgeqError):
    """Somebody else has moved or taken the cursor since it was read: nothing of this unit may stay."""


def take(tx: Tx, processor: str, start: str | int, now: int) -> Cursor:
    """Take the cursor of `processor` for this process, making it at `start` (`latest`, `beginning`, or the id before the
    first event to process) when there is none. Any earlier owner can't move it from now on."""
    rows = tx.rows(_ONE, (processor,))
    if rows:
        tx.run(
            Cursors.update({Cursors.generation: Cursors.generation + 1}).where(Cursors.processor == processor)
        )
    else:
        first = start if isinstance(start, int) else 0 if start == "beginning" else _head(tx)
        tx.run(
            Cursors.insert(
                processor=processor,
                last_consumed_id=first,
                updated_at=now,
                paused=False,
                generation=1,
                attempt=0,
            )
        )
    return _cursor(tx.rows(_ONE, (processor,))[0])


def move(tx: Tx, cursor: Cursor, to: int, now: int) -> None:
    """Move to event id `to`, forgetting any failure. Raises CursorMoved when `cursor` isn't current any more."""
    if tx.run(_MOVE, (to, now, cursor.processor, cursor.generation)) == 0:
        raise CursorMoved(f"the cursor of {cursor.processor} was moved by somebody else")


def fail(tx: Tx, cursor: Cursor, *, failed_id: int, attempt: int, retry_at: int, error: str) -> None:
    """Remember that event `failed_id` failed for the `attempt`th time and is tried next at `retry_at` microseconds.

    Raises CursorMoved when `cursor` isn't current any more.
    """
    query = Cursors.update(
        {
            Cursors.failed_id: failed_id,
            Cursors.attempt: attempt,
            Cursors.retry_at: retry_at,
            Cursors.error: error,
        }
    ).where((Cursors.processor == cursor.processor) & (Cursors.generation == cursor.generation))
    if tx.run(query) == 0:
        raise CursorMoved(f"the cursor of {cursor.processor} was moved by somebody else")


def pause(tx: Tx, processor: str, paused: bool) -> bool:
    """Pause or resume; False when there is no such processor. A running appliance notices by itself."""
    tx.touch("cursors")
    return tx.run(Cursors.update({Cursors.paused: paused}).where(Cursors.processor == processor)) > 0


def seek(tx: Tx, processor: str, to: int | str, now: int) -> int | None:
    """Put the cursor to event id `to` (or `start`, `latest`) and forget any failure: the new id, None when there is no
    such processor. The processor goes on from there even if it is running: what it decided from the old place and
    has not committed yet is dropped."""
    target = to if isinstance(to, int) else 0 if to == "start" else _head(tx)
    query = Cursors.update(
        {
            Cursors.last_consumed_id: target, Cursors.updated_at: now, Cursors.generation: Cursors.generation + 1,
            Cursors.attempt: 0, Cursors.failed_id: None, Cursors.retry_at: None, Cursors.error: None,
        }
    ).where(Cursors.processor == processor)  # fmt: skip
    tx.touch("cursors")
    return target if tx.run(query) else None


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


def _head(tx: Tx) -> int:
    rows = tx.rows(_HEAD, (1,))
    return int(rows[0][0]) if rows else 0


def _cursor(row: Row) -> Cursor:
    name, last, updated, paused, *rest = row
    return Cursor(name, last, updated, bool(paused), *rest)
