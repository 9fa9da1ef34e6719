"""Verbs of the table `notifications` for people: what a digest told, what was read, and another chance for dead ones.

All may be called from another process than the one that sends, which sees it at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import peewee as pw

from ..events import from_json, to_json
from .notifications import ALL, ONE, QUEUED, StoredNotification, requeue, stored
from .store import Statement, Store, Tx, literal
from .tables import DeadLetters, Notifications

# So many alerts of one fingerprint are looked at.
_ALERTS_MAX = 1000

_row = Notifications

# One by one: a list of all would be made of every row that waits.
_NEXT_CHANNEL = Statement(
    lambda p: _row.select(_row.channel).where(QUEUED & (_row.channel > p)).order_by(_row.channel).limit(ONE)
)


async def members(store: Store, digest_id: int, limit: int) -> list[StoredNotification]:
    """The first `limit` of those that were told together in the notification `digest_id`, oldest first."""
    query = _row.select(*ALL).where(_row.digest_id == digest_id).order_by(_row.id).limit(limit)
    return [stored(row) for row in await store.read(query)]


def about(tx: Tx, notification_id: int, limit: int) -> list[tuple[str, int | None]]:
    """The fingerprint, and the event, of what a notification tells of: its own, or those of the first `limit` members
    of a digest. Empty when it isn't there."""
    columns = (_row.fingerprint, _row.event_id)
    own = _row.select(*columns).where((_row.id == notification_id) & (_row.kind != literal("digest")))
    told = _row.select(*columns).where(_row.digest_id == notification_id).order_by(_row.id).limit(limit)
    return [(fingerprint, event_id) for query in (own, told) for fingerprint, event_id in tx.rows(query)]


def take_back(tx: Tx, fingerprint: str, reason: str, *, spared: Collection[str] = ()) -> None:
    """Send reminders, and steps of escalation, no more that still wait and that no target was given yet, on all
    channels but those that are `spared`; they stay in the history."""
    channel = ""
    while found := tx.rows(_NEXT_CHANNEL, (channel,)):
        channel = found[0][0]
        if channel not in spared:
            _take_back(tx, channel, fingerprint, reason)


def _take_back(tx: Tx, channel: str, fingerprint: str, reason: str) -> None:
    waiting = (
        (_row.channel == channel)
        & (_row.fingerprint == fingerprint)
        & (_row.state == literal("queued"))
        & _row.tried_at.is_null()
    )
    alerts = _row.select(_row.id, _row.detail).where(waiting & (_row.kind == literal("alert"))).limit(_ALERTS_MAX)
    ids = [row_id for row_id, detail in tx.rows(alerts) if _is_escalation(detail)]
    query = _row.update({_row.state: "silenced", _row.error: reason})
    if tx.run(query.where(waiting & ((_row.kind == literal("reminder")) | _row.id.in_(ids)))):
        tx.touch("notifications")


def _is_escalation(detail: str) -> bool:
    try:
        read = from_json(detail)
    except ValueError:
        return False
    return isinstance(read, dict) and "escalation" in read


def retry(tx: Tx, ids: Sequence[int], now: int) -> int:
    """Queue dead ones again, with all their attempts and without an end, and make those due that wait; how many. The
    open dead letters of the dead ones are marked as redriven."""
    dead = tx.rows(_row.select(_row.id).where((_row.state == literal("dead")) & _row.id.in_(list(ids))))
    count = requeue(tx, ids, now)
    if dead:
        details = [to_json({"notification_id": row[0]}) for row in dead]
        query = DeadLetters.update({DeadLetters.redriven_at: now}).where(
            DeadLetters.redriven_at.is_null() & DeadLetters.source.startswith("channel:")
        )
        tx.run(query.where(DeadLetters.detail.in_(details)))
        tx.touch("dead_letters")
    return count


def retry_dead(tx: Tx, *, channel: str = "", now: int, limit: int) -> int:
    """`retry` of up to `limit` dead ones, of all channels or of one; how many. Call it again while it returns
    `limit`."""
    query = _row.select(_row.id).where(_row.state == literal("dead")).order_by(_row.id).limit(limit)
    if channel:
        query = query.where(_row.channel == channel)
    return retry(tx, [row[0] for row in tx.rows(query)], now)


def mark_read(tx: Tx, ids: Iterable[int], now: int) -> int:
    """Say that somebody has read these; how many of them are there. One that was read keeps when that was."""
    tx.touch("notifications")
    query = _row.update({_row.read_at: pw.fn.COALESCE(_row.read_at, now)})
    return tx.run(query.where(_row.id.in_(list(ids))))


def mark_all_read(tx: Tx, *, channel: str = "", now: int, limit: int) -> int:
    """Say that somebody has read up to `limit` more, of all channels or of one; how many. Call it again while it
    returns `limit`."""
    query = _row.select(_row.id).where(_row.read_at.is_null()).order_by(_row.id).limit(limit)
    if channel:
        query = query.where(_row.channel == channel)
    return mark_read(tx, [row[0] for row in tx.rows(query)], now)
