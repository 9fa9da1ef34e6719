"""Verbs of the table `notifications`: the outbox of every channel, and the history of what it sent.

A row's text is written once and never changes. Its way: `queued`, until its channel has `sent` it or given it up
(`dead`). The notifications of one channel that share a fingerprint are sent in the order of their ids: as long as one
waits for its next attempt, those behind it wait too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import peewee as pw

from .store import ZERO, Row, Statement, Store, Tx, literal, storable
from .tables import Notifications

# No row waits longer than this for its next attempt. One that seems to is due: the wall clock was set back.
WAIT_SECONDS_MAX = 20 * 60

_COLUMNS = (
    "event_id", "channel", "severity", "title", "body", "fingerprint", "state", "attempt", "next_attempt_at",
    "created_at",
)  # fmt: skip
_ALL = (
    Notifications.id, Notifications.event_id, Notifications.channel, Notifications.severity, Notifications.title,
    Notifications.body, Notifications.fingerprint, Notifications.state, Notifications.attempt,
    Notifications.next_attempt_at, Notifications.sent_at, Notifications.error, Notifications.created_at,
)  # fmt: skip
_QUEUED = Notifications.state == literal("queued")


_Earlier = Notifications.alias()


def _first(p: pw.SQL) -> pw.Node:
    """The queued rows of a channel behind no failed one with their fingerprint: a page costs what it takes, however
    many wait."""
    failed = _Earlier.select(_Earlier.id).where(
        (_Earlier.channel == Notifications.channel)
        & (_Earlier.fingerprint == Notifications.fingerprint)
        & (_Earlier.id <= Notifications.id)
        & (_Earlier.state == literal("queued"))
        & (_Earlier.attempt > ZERO)
    )
    return (
        Notifications.select(*_ALL)
        .where((Notifications.channel == p) & _QUEUED & ~pw.fn.EXISTS(failed))
        .order_by(Notifications.id)
        .limit(p)
    )


def _again(p: pw.SQL) -> pw.Node:
    """The others: each queued row of a channel with the worst of itself and of those before it with its fingerprint.
    This looks at all that waits for the channel."""
    before = {"partition_by": [Notifications.fingerprint], "order_by": [Notifications.id]}
    line = (
        Notifications.select(
            Notifications.id,
            pw.fn.MAX(Notifications.next_attempt_at).over(**before).alias("due_at"),
            pw.fn.MAX(Notifications.attempt).over(**before).alias("tried"),
        )
        .where((Notifications.channel == p) & _QUEUED)
        .alias("line")
    )
    return (
        Notifications.select(*_ALL)
        .join(line, on=(Notifications.id == line.c.id))
        .where((line.c.tried > ZERO) & ((line.c.due_at <= p) | (line.c.due_at > p)))
        .order_by(line.c.tried, Notifications.id)
        .limit(p)
    )


_FIRST = Statement(_first)
_AGAIN = Statement(_again)
_NEXT = Statement(
    lambda p: Notifications.select(pw.fn.MIN(Notifications.next_attempt_at)).where(
        (Notifications.channel == p) & _QUEUED & (Notifications.attempt > ZERO) & (Notifications.next_attempt_at > p)
    )
)
_SENT = Statement(
    lambda p: Notifications.update(
        {
            Notifications.state: literal("sent"), Notifications.attempt: p, Notifications.sent_at: p,
            Notifications.error: p,
        }
    ).where((Notifications.id == p) & _QUEUED)
)  # fmt: skip
_RETRY = Statement(
    lambda p: Notifications.update(
        {Notifications.attempt: p, Notifications.next_attempt_at: p, Notifications.error: p}
    ).where((Notifications.id == p) & _QUEUED)
)
_NOTE = Statement(lambda p: Notifications.update({Notifications.error: p}).where((Notifications.id == p) & _QUEUED))
_DEAD = Statement(
    lambda p: Notifications.update(
        {Notifications.state: literal("dead"), Notifications.attempt: p, Notifications.error: p}
    ).where((Notifications.id == p) & _QUEUED)
)
_COUNTS = Statement(
    lambda p: Notifications.select(Notifications.channel, Notifications.state, pw.fn.COUNT(Notifications.id)).group_by(
        Notifications.state, Notifications.channel
    )
)
_OLDEST = Statement(
    lambda p: (
        Notifications.select(Notifications.channel, pw.fn.MIN(Notifications.created_at))
        .where(_QUEUED)
        .group_by(Notifications.channel)
    )
)
_TROUBLES = Statement(
    lambda p: Notifications.select(Notifications.channel, Notifications.error).where(
        Notifications.id.in_(
            Notifications.select(pw.fn.MAX(Notifications.id))
            .where(_QUEUED & Notifications.error.is_null(False))
            .group_by(Notifications.channel)
        )
    )
)


class NewNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that isn't stored yet. `created_at` is when it was raised, in microseconds since 1970 UTC; texts
    must be valid Unicode without NUL."""

    channel: str
    severity: str
    title: str
    body: str
    fingerprint: str
    created_at: int
    event_id: int | None = None


class StoredNotification(msgspec.Struct, frozen=True):
    """A notification as it stands in the table.

    `attempt` counts the attempts that ended it or failed, perhaps by its own fault (not those at which its target could
    not be reached); `error` says why the last one failed.
    """

    id: int
    event_id: int | None
    channel: str
    severity: str
    title: str
    body: str
    fingerprint: str
    state: str
    attempt: int
    next_attempt_at: int
    sent_at: int | None
    error: str | None
    created_at: int


def add(tx: Tx, rows: Sequence[NewNotification]) -> None:
    """Queue notifications, due at once."""
    tx.insert(
        Notifications,
        _COLUMNS,
        [
            (
                row.event_id, row.channel, row.severity, row.title, row.body, row.fingerprint, "queued", 0,
                row.created_at, row.created_at,
            )
            for row in rows
        ],
    )  # fmt: skip
    if rows:
        tx.touch("notifications")


def mark_sent(tx: Tx, notification_id: int, *, attempt: int, now: int, error: str | None = None) -> bool:
    """Say that its channel has delivered it (`error`: but not to everyone); False when it isn't queued any more."""
    return tx.run(_SENT, (attempt, now, error and storable(error), notification_id)) > 0


def mark_retry(tx: Tx, notification_id: int, *, attempt: int, next_attempt_at: int, error: str) -> bool:
    """Say that an attempt failed, perhaps by its own fault: it isn't due again before `next_attempt_at` microseconds.
    False when it isn't queued any more."""
    return tx.run(_RETRY, (attempt, next_attempt_at, storable(error), notification_id)) > 0


def mark_dead(tx: Tx, notification_id: int, *, attempt: int, error: str) -> bool:
    """Give it up; False when it isn't queued any more. The caller adds the dead letter in the same unit."""
    return tx.run(_DEAD, (attempt, storable(error), notification_id)) > 0


def note_error(tx: Tx, notification_id: int, error: str) -> bool:
    """Say why its channel can't send it now. It keeps its place, and no attempt is counted; False when it isn't queued
    any more."""
    return tx.run(_NOTE, (storable(error), notification_id)) > 0


def requeue(tx: Tx, ids: Sequence[int], now: int) -> int:
    """Queue dead ones again, with all their attempts before them, and make those due that are put off. How many."""
    query = Notifications.update(
        {Notifications.state: "queued", Notifications.attempt: 0, Notifications.next_attempt_at: now}
    ).where(Notifications.state.in_(["queued", "dead"]) & Notifications.id.in_(list(ids)))
    tx.touch("notifications")
    return tx.run(query)


async def due(store: Store, channel: str, now: int, limit: int) -> list[StoredNotification]:
    """Up to `limit` queued notifications of `channel` to send now, in this order. Those that failed come after those
    that did not yet, so that one that always fails delays only its own fingerprint."""
    rows = await store.read(_FIRST, (channel, limit))
    if len(rows) < limit:
        params = (channel, now, now + WAIT_SECONDS_MAX * 1_000_000, limit - len(rows))
        rows += await store.read(_AGAIN, params)
    return [_stored(row) for row in rows]


async def next_due_at(store: Store, channel: str, now: int) -> int | None:
    """When the next notification of `channel` that is put off will be due; None when none is."""
    at = (await store.read(_NEXT, (channel, now)))[0][0]
    return None if at is None else min(int(at), now + WAIT_SECONDS_MAX * 1_000_000)


async def one(store: Store, notification_id: int) -> StoredNotification | None:
    """The notification of that id, or None."""
    rows = await store.read(Notifications.select(*_ALL).where(Notifications.id == notification_id))
    return _stored(rows[0]) if rows else None


async def find(
    store: Store,
    *,
    limit: int,
    channel: str = "",
    state: str = "",
    severity: str = "",
    fingerprint: str = "",
    before_id: int = 0,
) -> list[StoredNotification]:
    """The latest `limit` notifications that fit all given, newest first."""
    query = Notifications.select(*_ALL).order_by(Notifications.id.desc()).limit(limit)
    for column, value in (
        (Notifications.channel, channel), (Notifications.state, state), (Notifications.severity, severity),
        (Notifications.fingerprint, fingerprint),
    ):  # fmt: skip
        if value:
            query = query.where(column == value)
    if before_id:
        query = query.where(Notifications.id < before_id)
    return [_stored(row) for row in await store.read(query)]


async def counts(store: Store) -> dict[str, dict[str, Any]]:
    """For each channel that the table knows, by its name: how many notifications are in each state, when the oldest
    that still waits was raised (`oldest_queued_at`, microseconds since 1970 UTC) and why the last one that waits failed
    (`error`). A channel that the configuration no longer has keeps what waits for it."""
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"oldest_queued_at": None, "error": None})
    for channel, state, count in await store.read(_COUNTS):
        found[channel][state] = count
    for channel, created_at in await store.read(_OLDEST):
        found[channel]["oldest_queued_at"] = created_at
    for channel, error in await store.read(_TROUBLES):
        found[channel]["error"] = error
    return dict(found)


def _stored(row: Row) -> StoredNotification:
    return StoredNotification(*row)
