"""Verbs of the table `notifications` for those who send: what goes out next on a channel, and what came of it.

The notifications of one channel that share a fingerprint are sent in the order of their ids: one that failed holds back
those behind it until its next attempt. What was handed to its target once (`tried_at`) stays as it is: the target may
have it, and must get the same again. Every look costs the same, however many wait or are finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import peewee as pw

from .notifications import ALL, ONE, QUEUED, QUIET, TRIED, NewNotification, StoredNotification, put, stored
from .store import NULL, ZERO, Statement, Store, Tx, literal, storable
from .tables import Notifications

# So many rows are looked at to see how many fingerprints are due.
LOOK_ROWS_MAX = 1000

# In no digest yet, within a unit.
_NOWHERE = pw.SQL("-1")
_Other = Notifications.alias()
_row = Notifications
_DIGEST = _row.kind == literal("digest")
_CRITICAL = _row.severity == literal("critical")
_BELOW = _row.severity != literal("critical")
_UNTRIED = (_row.attempt == ZERO) & ~TRIED & ~_DIGEST


def _head(p: pw.SQL, *conditions: pw.Node) -> pw.Select:
    query = _row.select(*ALL).where((_row.channel == p) & QUEUED & (_row.next_attempt_at <= p))
    return query.where(*conditions).order_by(_row.next_attempt_at, _row.id).limit(ONE)


_FRESH, _AGAIN = _row.attempt == ZERO, _row.attempt > ZERO
_HEADS = {
    (True, False): Statement(lambda p: _head(p, _CRITICAL, _FRESH)),
    (True, True): Statement(lambda p: _head(p, _CRITICAL, _AGAIN)),
    (False, False): Statement(lambda p: _head(p, _FRESH)),
    (False, True): Statement(lambda p: _head(p, _AGAIN)),
}


def _waiting(p: pw.SQL, *conditions: pw.Node) -> pw.Select:
    """What waits of one fingerprint on a channel, oldest first."""
    return (
        _row.select(*ALL)
        .where((_row.channel == p) & (_row.fingerprint == p) & QUEUED)
        .where(*conditions)
        .order_by(_row.id)
    )


_PAGE = Statement(lambda p: _waiting(p, _row.id > p).limit(p))
_BEGUN = Statement(lambda p: _waiting(p, (_row.attempt > ZERO) | TRIED).limit(ONE))


def _is_next(p: pw.SQL) -> pw.Node:
    heads = [
        _head(p, *conditions).columns(_row.id)
        for conditions in ((_CRITICAL, _FRESH), (_FRESH,), (_CRITICAL, _AGAIN), (_AGAIN,))
    ]
    both = _waiting(p).columns(_row.id).limit(pw.SQL("2")).alias("both")
    return pw.Select(None, [pw.fn.COALESCE(*heads), pw.Select([both], [pw.fn.COUNT(both.c.id)])])


_IS_NEXT = Statement(_is_next)


def _digest_with(p: pw.SQL) -> pw.Node:
    member = _Other.select(_Other.id).where((_Other.digest_id == _row.id) & (_Other.fingerprint == p))
    return (
        _row.select(*ALL)
        .where((_row.channel == p) & QUEUED & _DIGEST & pw.fn.EXISTS(member))
        .order_by(_row.id)
        .limit(ONE)
    )


def _next_late(p: pw.SQL, severity: pw.Node) -> pw.Node:
    return (
        _row.select(*ALL)
        .where(
            (_row.channel == p)
            & severity
            & QUEUED
            & (_row.next_attempt_at >= p)
            & (_row.next_attempt_at <= p)
            & _UNTRIED
        )
        .where((_row.next_attempt_at > p) | (_row.id > p))
        .order_by(_row.next_attempt_at, _row.id)
        .limit(ONE)
    )


def _different(p: pw.SQL, severity: pw.Node) -> pw.Node:
    due = (
        _row.select(_row.fingerprint)
        .where((_row.channel == p) & severity & QUEUED & (_row.next_attempt_at <= p) & _UNTRIED)
        .order_by(_row.next_attempt_at, _row.id)
        .limit(p)
        .alias("due")
    )
    return pw.Select([due], [pw.fn.COUNT(due.c.fingerprint.distinct())])


_DIGEST_WITH = Statement(_digest_with)
_NEXT_LATE = {
    True: Statement(lambda p: _next_late(p, _CRITICAL)),
    False: Statement(lambda p: _next_late(p, _BELOW)),
}
_DIFFERENT = {
    True: Statement(lambda p: _different(p, _CRITICAL)),
    False: Statement(lambda p: _different(p, _BELOW)),
}
_NEXT_OF_GROUP = Statement(
    lambda p: (
        _row.select(*ALL)
        .where((_row.channel == p) & (_row.group_key == p) & QUEUED & (_row.id > p))
        .where((_row.next_attempt_at <= p) & _UNTRIED)
        .order_by(_row.id)
        .limit(ONE)
    )
)


def _critical_behind(row: Any) -> pw.Node:
    return _Other.select(_Other.id).where(
        (_Other.channel == row.channel)
        & (_Other.fingerprint == row.fingerprint)
        & (_Other.state == literal("queued"))
        & (_Other.severity == literal("critical"))
    )


_TAKE_OUT = Statement(
    lambda p: _row.update({_row.state: literal("grouped"), _row.digest_id: _NOWHERE}).where(
        (_row.channel == p) & (_row.fingerprint == p) & QUEUED & (_row.id <= p)
    )
)
_TAKE_OUT_MEMBERS = Statement(
    lambda p: _row.update({_row.digest_id: _NOWHERE}).where(
        _row.digest_id.in_(_Other.select(_Other.id).where(_Other.digest_id == _NOWHERE))
    )
)
_JOIN = Statement(lambda p: _row.update({_row.digest_id: p}).where(_row.digest_id == _NOWHERE))
_TOLD_BY_MEMBERS = (
    _row.event_id, _row.severity, _row.title, _row.body, _row.fingerprint, _row.attempt, _row.next_attempt_at,
    _row.created_at, _row.kind, _row.detail,
)  # fmt: skip
_COPY_MEMBERS = Statement(
    lambda p: _row.insert_from(
        _row.select(p, literal("grouped"), p, *_TOLD_BY_MEMBERS).where(_row.digest_id == p),
        (_row.channel, _row.state, _row.digest_id, *_TOLD_BY_MEMBERS),
    )
)
_HOLD = Statement(
    lambda p: _row.update({_row.next_attempt_at: p, _row.group_key: p, _row.expires_at: _row.expires_at + p}).where(
        _row.id.in_(
            _row.select(_row.id)
            .where((_row.channel == p) & (_row.route == p) & QUEUED & (_row.next_attempt_at <= p) & _BELOW)
            .where(~pw.fn.EXISTS(_critical_behind(_row)))
            .limit(p)
        )
    )
)
_BY_ID = Statement(lambda p: _row.select(*ALL).where(_row.id == p))
_TRY = Statement(lambda p: _row.update({_row.next_attempt_at: p, _row.tried_at: p}).where(_row.id == p))
_POSTPONE = Statement(
    lambda p: _row.update(
        {_row.next_attempt_at: pw.Case(None, [(_row.next_attempt_at < p, p)], _row.next_attempt_at)}
    ).where((_row.channel == p) & (_row.fingerprint == p) & QUEUED)
)
_SENT = Statement(
    lambda p: _row.update(
        {
            _row.state: literal("sent"), _row.attempt: p, _row.sent_at: p,
            _row.error: p,
        }
    ).where((_row.id == p) & QUEUED)
)  # fmt: skip
_RETRY = Statement(
    lambda p: _row.update({_row.attempt: p, _row.next_attempt_at: p, _row.error: p}).where(
        (_row.id == p) & QUEUED & (_row.attempt < p)
    )
)
_NOTE = Statement(lambda p: _row.update({_row.error: p}).where((_row.id == p) & QUEUED))
_DEAD = Statement(
    lambda p: _row.update({_row.state: literal("dead"), _row.attempt: p, _row.error: p}).where(
        (_row.id == p) & QUEUED & (_row.attempt <= p)
    )
)
_FAILED_OVER = Statement(
    lambda p: _row.update({_row.failover: NULL}).where((_row.id == p) & _row.failover.is_null(False))
)


def hold(tx: Tx, channel: str, route: str, until: int, now: int, limit: int) -> int:
    """Hold what is due by a route until its quiet hours are over, to be summed up then; up to `limit` rows. How many.
    What has an end has it so much later. Critical ones go out, with what waits of their fingerprint."""
    return tx.run(_HOLD, (until, QUIET + route, until - now, channel, route, now, limit))


async def is_next(store: Store, row: StoredNotification, now: int) -> bool:
    """Whether `row` is what `head` gives first of those that never failed, and else of the others; with nothing else
    that waits of its fingerprint."""
    params = (row.channel, now) * 4 + (row.channel, row.fingerprint)
    first_id, more = (await store.read(_IS_NEXT, params))[0]
    return bool(first_id == row.id and more == 1)


def head(tx: Tx, channel: str, now: int, *, critical: bool, again: bool) -> StoredNotification | None:
    """The notification that has been due the longest: of all or only the `critical`, of those that never failed or
    (`again`) of those that did. None when none is."""
    return _one(tx, _HEADS[critical, again], (channel, now))


def begun(tx: Tx, channel: str, fingerprint: str) -> StoredNotification | None:
    """The first that waits of a fingerprint and was handed to its target, or failed; None when none was."""
    return _one(tx, _BEGUN, (channel, fingerprint))


def waiting(tx: Tx, channel: str, fingerprint: str, after_id: int, limit: int) -> list[StoredNotification]:
    """A page of what waits of a fingerprint, oldest first."""
    return [stored(row) for row in tx.rows(_PAGE, (channel, fingerprint, after_id, limit))]


def digest_with(tx: Tx, channel: str, fingerprint: str) -> StoredNotification | None:
    """The digest that waits and tells of a fingerprint; None when none does."""
    return _one(tx, _DIGEST_WITH, (channel, fingerprint))


def different(tx: Tx, channel: str, due_before: int, *, critical: bool) -> int:
    """How many fingerprints, critical ones or the others, are due since before `due_before`, and were never tried;
    among the first `LOOK_ROWS_MAX` rows."""
    return int(tx.rows(_DIFFERENT[critical], (channel, due_before, LOOK_ROWS_MAX))[0][0])


def next_late(
    tx: Tx, channel: str, due_before: int, after: StoredNotification | None, *, critical: bool
) -> StoredNotification | None:
    """The next after `after` of what `different` counts, by when it was due."""
    at, after_id = (0, 0) if after is None else (after.next_attempt_at, after.id)
    return _one(tx, _NEXT_LATE[critical], (channel, at, due_before, at, after_id))


def next_of_group(
    tx: Tx, channel: str, group_key: str, now: int, after: StoredNotification | None
) -> StoredNotification | None:
    """The next after `after` of a group that is due and was never tried, by id."""
    return _one(tx, _NEXT_OF_GROUP, (channel, group_key, 0 if after is None else after.id, now))


def begin(tx: Tx, row: StoredNotification, now: int) -> StoredNotification:
    """Note that a notification is about to be handed to its target. From then on it stays as it is, and first in its
    line."""
    at = min(row.next_attempt_at, now)
    tx.run(_TRY, (at, now, row.id))
    return msgspec.structs.replace(row, tried_at=now, next_attempt_at=at)


def take_out(tx: Tx, channel: str, fingerprint: str, last_id: int) -> None:
    """Put what waits of a fingerprint, up to `last_id`, into what `merge` will make in the same unit."""
    tx.run(_TAKE_OUT, (channel, fingerprint, last_id))


def merge(tx: Tx, new: NewNotification, *, due_at: int) -> StoredNotification:
    """Have `new` sent instead of all that was taken out, and that was put into one of those before. It is due since
    `due_at`."""
    tx.run(_TAKE_OUT_MEMBERS)
    row_id = put(tx, new)
    tx.run(_JOIN, (row_id,))
    tx.run(_TRY, (due_at, None, row_id))
    return stored(tx.rows(_BY_ID, (row_id,))[0])


def copy_members(tx: Tx, digest_id: int, *, copy_id: int, channel: str) -> None:
    """Say that the copy of a digest on another channel tells there of all that the digest tells of."""
    tx.run(_COPY_MEMBERS, (channel, copy_id, digest_id))


def postpone(tx: Tx, channel: str, fingerprint: str, until: int) -> None:
    """Let nothing of a fingerprint be due before `until`."""
    tx.run(_POSTPONE, (until, until, channel, fingerprint))


def mark_sent(tx: Tx, notification_id: int, *, attempt: int, now: int, error: str | None = None) -> bool:
    """Say that its channel has delivered it (`error`: but not to everyone); False when it isn't queued any more."""
    return tx.run(_SENT, (attempt, now, error and storable(error), notification_id)) > 0


def mark_retry(tx: Tx, row: StoredNotification, *, attempt: int, next_attempt_at: int, error: str) -> bool:
    """Say that an attempt failed, perhaps by its own fault: neither it nor what is behind it is due again before
    `next_attempt_at` microseconds. False when it isn't queued any more, or somebody else tried it as often since."""
    if not tx.run(_RETRY, (attempt, next_attempt_at, storable(error), row.id, attempt)):
        return False
    postpone(tx, row.channel, row.fingerprint, next_attempt_at)
    return True


def mark_dead(tx: Tx, notification_id: int, *, attempt: int, error: str) -> bool:
    """Give it up; False when it isn't queued any more, or somebody else has tried it more often since. The caller adds
    the dead letter in the same unit."""
    return tx.run(_DEAD, (attempt, storable(error), notification_id, attempt)) > 0


def note_error(tx: Tx, notification_id: int, error: str) -> bool:
    """Say why its channel can't send it now. It keeps its place, and no attempt is counted; False when it isn't queued
    any more."""
    return tx.run(_NOTE, (storable(error), notification_id)) > 0


def mark_failed_over(tx: Tx, notification_id: int) -> bool:
    """Say that a copy of it is queued elsewhere; False when that was said before."""
    return tx.run(_FAILED_OVER, (notification_id,)) > 0


def _one(tx: Tx, statement: Statement, params: Sequence[object]) -> StoredNotification | None:
    rows = tx.rows(statement, params)
    return stored(rows[0]) if rows else None
