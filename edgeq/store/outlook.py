"""Verbs of the table `notifications` about time: when there is something to do on a channel, and what is overdue."""

from __future__ import annotations

import msgspec
import peewee as pw

from .notifications import ALL, ONE, QUEUED, QUIET, WAIT_SECONDS_MAX, StoredNotification, stored
from .store import ZERO, Statement, Store, Tx, literal
from .tables import Notifications

# A row that was raised so much later than now was raised before the clock was set back.
AHEAD_SECONDS = 60

# Quiet hours end within a week, and a change of the clocks.
QUIET_SECONDS_MAX = 8 * 86400

_DAY_SECONDS = 86400
_MICROSECONDS = 1_000_000
_row = Notifications
_Other = Notifications.alias()


def _earliest(p: pw.SQL, column: pw.Field, *conditions: pw.Node) -> pw.Node:
    return _row.select(pw.fn.MIN(column)).where((_row.channel == p) & QUEUED, *conditions)


_OUTLOOK = Statement(
    lambda p: pw.Select(
        None,
        [
            _earliest(p, _row.next_attempt_at),
            _earliest(p, _row.expires_at, _row.expires_at.is_null(False)),
            _earliest(p, _row.next_attempt_at, _row.failover.is_null(False)),
        ],
    )
)


_prefix = pw.fn.COALESCE(pw.fn.SUBSTR(_row.group_key, ONE, pw.SQL(str(len(QUIET)))), literal(""))
_QUIETLY = _prefix == literal(QUIET)
_NOT_QUIETLY = _prefix != literal(QUIET)


def _held_ahead(p: pw.SQL) -> pw.Node:
    """Quiet hours hold it for longer than those of a clock that is right can."""
    days = ((_row.created_at > p) & (_row.next_attempt_at > p)) | (_row.next_attempt_at > p)
    return _QUIETLY & days


_IS_AHEAD = Statement(
    lambda p: pw.Select(
        None,
        [
            _row.select(pw.fn.MAX(_row.created_at)).where((_row.channel == p) & QUEUED),
            pw.fn.EXISTS(
                _row.select(_row.id).where(
                    (_row.channel == p) & QUEUED & (_row.attempt > ZERO) & (_row.next_attempt_at > p) & _NOT_QUIETLY
                )
            ),
            pw.fn.EXISTS(
                _row.select(_row.id).where((_row.channel == p) & QUEUED & (_row.next_attempt_at > p) & _QUIETLY)
            ),
        ],
    )
)
_EXPIRED = Statement(
    lambda p: (
        _row.select(*ALL)
        .where((_row.channel == p) & QUEUED & _row.expires_at.is_null(False) & (_row.expires_at <= p))
        .order_by(_row.expires_at, _row.id)
        .limit(p)
    )
)
# Of a sum: by when they were raised, all that wait would be looked at.
_PUT_OFF_ENDS = Statement(
    lambda p: _row.update({_row.expires_at: _row.expires_at + p}).where(
        (_row.channel == p) & QUEUED & _row.expires_at.is_null(False) & (_row.created_at + ZERO <= p)
    )
)
_STUCK = Statement(
    lambda p: (
        _row.select(*ALL)
        .where((_row.channel == p) & QUEUED & _row.failover.is_null(False) & (_row.next_attempt_at <= p))
        .order_by(_row.next_attempt_at, _row.id)
        .limit(p)
    )
)


def _ahead(p: pw.SQL) -> pw.Node:
    behind_one = _Other.select(_Other.id).where(
        (_Other.channel == _row.channel)
        & (_Other.next_attempt_at == _row.next_attempt_at)
        & (_Other.state == literal("queued"))
        & (_Other.attempt > ZERO)
    )
    return _row.update({_row.next_attempt_at: p}).where(
        (_row.channel == p) & QUEUED & (_row.next_attempt_at > p) & _NOT_QUIETLY,
        (_row.created_at > p) | ((_row.next_attempt_at > p) & ((_row.attempt > ZERO) | pw.fn.EXISTS(behind_one))),
    )


_AHEAD = Statement(_ahead)
# By whole days, to a moment within a day: so it stays the time of day at which quiet hours end.
_HELD_AHEAD = Statement(
    lambda p: _row.update({_row.next_attempt_at: _row.next_attempt_at - (_row.next_attempt_at - p) / p * p}).where(
        (_row.channel == p) & QUEUED & (_row.next_attempt_at > p), _held_ahead(p)
    )
)


class Outlook(msgspec.Struct, frozen=True):
    """When the next queued notification of a channel is due, expires, and (of those that may fail over) was due; None
    when there is none. Microseconds since 1970 UTC."""

    due_at: int | None
    expires_at: int | None
    failover_at: int | None


async def outlook(store: Store, channel: str) -> Outlook:
    """What there is to do on `channel`, and when."""
    return Outlook(*(await store.read(_OUTLOOK, (channel, channel, channel)))[0])


async def is_ahead(store: Store, channel: str, now: int) -> bool:
    """Whether something of `channel` may be put off by a clock that was set back since; see `undo_ahead`."""
    params = (channel, channel, _after(now, WAIT_SECONDS_MAX), channel, _after(now, QUIET_SECONDS_MAX))
    raised_at, put_off, held = (await store.read(_IS_AHEAD, params))[0]
    return bool(put_off or held or (raised_at is not None and raised_at > _after(now, AHEAD_SECONDS)))


def undo_ahead(tx: Tx, channel: str, now: int) -> int:
    """Make due what a clock that was set back since has put off; how many. What quiet hours hold stays held, but not
    for days that are only by that clock still to come."""
    raised, day = _after(now, AHEAD_SECONDS), _DAY_SECONDS * _MICROSECONDS
    put_off = tx.run(_AHEAD, (now, channel, now, raised, _after(now, WAIT_SECONDS_MAX)))
    held = (channel, now, raised, now + day, _after(now, QUIET_SECONDS_MAX))
    return put_off + tx.run(_HELD_AHEAD, (now + 1, day, day, *held))


def _after(now: int, seconds: float) -> int:
    return now + round(seconds * _MICROSECONDS)


def expired(tx: Tx, channel: str, now: int, limit: int) -> list[StoredNotification]:
    """Up to `limit` queued notifications that are past their time."""
    return [stored(row) for row in tx.rows(_EXPIRED, (channel, now, limit))]


def put_off_ends(tx: Tx, channel: str, now: int, step_microseconds: int) -> int:
    """Let what waits, and was raised before the clock was set ahead by so much, to `now`, live so much longer; how many
    have an end."""
    return tx.run(_PUT_OFF_ENDS, (step_microseconds, channel, now - step_microseconds))


def stuck(tx: Tx, channel: str, due_before: int, limit: int) -> list[StoredNotification]:
    """Up to `limit` queued notifications that may fail over, and are due since before `due_before`."""
    return [stored(row) for row in tx.rows(_STUCK, (channel, due_before, limit))]
