"""Verbs of the table `notifications`: the outbox of every channel, and the history of what it sent.

A row's text is written once and never changes. Its way: `queued`, until its channel has `sent` it, told it together
with others (`grouped`: the row of that id in `digest_id` says what became of it) or given it up (`dead`); or
`silenced` from the start, or when there is nothing to tell any more. `add` queues; `outbox` has the verbs of senders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import peewee as pw

from ..clock import MICROSECONDS
from ..events import from_json, to_json
from .store import NULL, ZERO, Row, Statement, Store, Tx, literal, storable
from .tables import Notifications

# The group key of what quiet hours hold back begins with this.
QUIET = "quiet:"
# No row waits longer than this for its next attempt. One that does is held, or the wall clock was set back.
WAIT_SECONDS_MAX = 20 * 60
RESOLVED_IN_TIME = "resolved before it was told"
NEVER_TOLD = "what it resolves was not told here"

STATES = ("queued", "sent", "grouped", "silenced", "dead")

_OPEN_MAX = 50
_COLUMNS = (
    "event_id", "channel", "severity", "title", "body", "fingerprint", "state", "attempt", "next_attempt_at",
    "error", "created_at", "kind", "detail", "group_key", "expires_at", "failover", "tried_at",
    "route",
)  # fmt: skip
ALL = (
    Notifications.id, Notifications.event_id, Notifications.channel, Notifications.severity, Notifications.title,
    Notifications.body, Notifications.fingerprint, Notifications.state, Notifications.attempt,
    Notifications.next_attempt_at, Notifications.sent_at, Notifications.error, Notifications.created_at,
    Notifications.kind, Notifications.detail, Notifications.group_key, Notifications.digest_id,
    Notifications.expires_at, Notifications.failover, Notifications.read_at, Notifications.tried_at,
    Notifications.route,
)  # fmt: skip
ONE = pw.SQL("1")
QUEUED = Notifications.state == literal("queued")
_Digest = Notifications.alias()
TRIED = Notifications.tried_at.is_null(False)


def _told(p: pw.SQL) -> pw.Node:
    """What a fingerprint has told, or is about to tell, newest first; each with its group, and when it was raised if it
    waits for that.

    By these rows alone it is known where something is to be resolved: whoever deletes old ones must keep those of open
    threads, and the digests that told them.
    """
    digest_lives = (Notifications.state != literal("grouped")) | _Digest.state.in_(pw.SQL("('queued', 'sent')"))
    waits_for_group = (
        QUEUED
        & (Notifications.attempt == ZERO)
        & ~TRIED
        & (Notifications.next_attempt_at > p)
        & Notifications.group_key.is_null(False)
    )
    return (
        Notifications.select(
            Notifications.id,
            Notifications.kind,
            Notifications.group_key,
            pw.Case(None, [(waits_for_group, Notifications.created_at)], NULL),
        )
        .join(_Digest, pw.JOIN.LEFT_OUTER, on=(_Digest.id == Notifications.digest_id))
        .where(
            (Notifications.channel == p)
            & (Notifications.fingerprint == p)
            & Notifications.state.in_(pw.SQL("('queued', 'sent', 'grouped')"))
            & digest_lives
        )
        .order_by(Notifications.id.desc())
        .limit(p)
    )


_TOLD = Statement(_told)
_GROUP_WAITING = Statement(
    lambda p: (
        Notifications.select(Notifications.next_attempt_at)
        .where((Notifications.channel == p) & (Notifications.group_key == p) & QUEUED & ~TRIED)
        .order_by(Notifications.id.desc())
        .limit(ONE)
    )
)
_GROUP_TOLD = Statement(
    lambda p: Notifications.select(pw.fn.MAX(Notifications.sent_at)).where(
        (Notifications.channel == p) & (Notifications.group_key == p) & (Notifications.state == literal("sent"))
    )
)
# Of sums: the column alone would be looked for in another index, through all that waits.
_FAILED_UNTIL = Statement(
    lambda p: Notifications.select(pw.fn.MAX(Notifications.next_attempt_at + ZERO)).where(
        (Notifications.channel == p) & (Notifications.fingerprint == p) & QUEUED & (Notifications.attempt > ZERO),
        Notifications.next_attempt_at + ZERO <= p,
    )
)
_SILENCE = Statement(
    lambda p: Notifications.update({Notifications.state: literal("silenced"), Notifications.error: p}).where(
        Notifications.id == p
    )
)
_COUNTS = Statement(
    lambda p: Notifications.select(Notifications.channel, Notifications.state, pw.fn.COUNT(Notifications.id)).group_by(
        Notifications.state, Notifications.channel
    )
)
_OLDEST = Statement(
    lambda p: (
        Notifications.select(Notifications.channel, pw.fn.MIN(Notifications.created_at))
        .where(QUEUED)
        .group_by(Notifications.channel)
    )
)
_TROUBLES = Statement(
    lambda p: Notifications.select(Notifications.channel, Notifications.error).where(
        Notifications.id.in_(
            Notifications.select(pw.fn.MAX(Notifications.id))
            .where(QUEUED & Notifications.error.is_null(False))
            .group_by(Notifications.channel)
        )
    )
)


class Group(msgspec.Struct, frozen=True):
    """What a notification is told together with: all of its channel with this `key`. The first waits `wait`
    microseconds, those behind it until `interval` microseconds have passed since the group was last told. A `resolved`
    one has the group of what it resolves."""

    key: str
    wait: int
    interval: int


class NewNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that isn't stored yet. `created_at` is when it was raised; it isn't sent before `not_before`, nor
    after `expires_at` (all in microseconds since 1970 UTC). Texts must be valid Unicode without NUL.

    `kind` is alert, update, reminder, resolved or digest; `detail` is JSON: what it is about. One that is `silenced` is
    kept for the history alone, with the reason in `error`. `failover` are the channels to try when this one fails,
    `route` is the id of the route that it goes by.
    """

    channel: str
    severity: str
    title: str
    body: str
    fingerprint: str
    created_at: int
    event_id: int | None = None
    kind: str = "alert"
    detail: str = "{}"
    state: Literal["queued", "silenced"] = "queued"
    error: str | None = None
    not_before: int | None = None
    group: Group | None = None
    expires_at: int | None = None
    failover: tuple[str, ...] = ()
    route: str | None = None


class StoredNotification(msgspec.Struct, frozen=True):
    """A notification as it stands in the table.

    `attempt` counts the attempts that ended it or failed, perhaps by its own fault (not those at which its target could
    not be reached); `error` says why the last one failed. `tried_at` is when it was first handed to its target.
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
    kind: str = "alert"
    detail: str = "{}"
    group_key: str | None = None
    digest_id: int | None = None
    expires_at: int | None = None
    failover: tuple[str, ...] = ()
    read_at: int | None = None
    tried_at: int | None = None
    route: str | None = None


def add(tx: Tx, rows: Sequence[NewNotification]) -> None:
    """Queue notifications, each due at once unless it is held: by `not_before`; by its group, with those of the group
    that wait already; by one of its fingerprint that failed and comes first.

    A `resolved` one is told where what it resolves was told, or is about to be, also on the channels of `failover`.
    Where it wasn't, it is silenced; and so are both when all that it resolves still waits for its group's first time
    (quiet hours and a target that is away don't count: what they hold back is told).
    """
    for row in rows:
        if row.kind != "resolved" or row.state != "queued":
            put(tx, row)
            continue
        put(tx, _resolving(tx, row))
        for channel in row.failover:
            there = _resolving(tx, msgspec.structs.replace(row, channel=channel, failover=(), group=None))
            if there.state == "queued":
                put(tx, there)


def put(tx: Tx, row: NewNotification) -> int:
    """Queue a notification, also a `resolved` one without asking what was told; its id."""
    held_until = row.created_at
    if row.state == "queued":
        held_until = max(row.created_at, row.not_before or 0, _group_due_at(tx, row), _failed_until(tx, row))
    tx.touch("notifications")
    return tx.insert_returning(
        Notifications,
        _COLUMNS,
        [
            (
                row.event_id, row.channel, row.severity, row.title, row.body, row.fingerprint, row.state, 0,
                held_until, row.error and storable(row.error), row.created_at, row.kind, row.detail,
                row.group and row.group.key, row.expires_at, to_json(row.failover) if row.failover else None, None,
                row.route,
            )
        ],
    )[0]  # fmt: skip


def _group_due_at(tx: Tx, row: NewNotification) -> int:
    if row.group is None:
        return 0
    key, wait, interval = row.group.key, row.group.wait, row.group.interval
    waiting = tx.rows(_GROUP_WAITING, (row.channel, key))
    if waiting:
        return int(waiting[0][0])
    told_at = tx.rows(_GROUP_TOLD, (row.channel, key))[0][0]
    # What was told later than now was told before the clock was set back.
    again_at = 0 if told_at is None else min(told_at, row.created_at) + interval
    return max(row.created_at + wait, again_at)


def _failed_until(tx: Tx, row: NewNotification) -> int:
    params = (row.channel, row.fingerprint, row.created_at + WAIT_SECONDS_MAX * MICROSECONDS)
    return tx.rows(_FAILED_UNTIL, params)[0][0] or 0


def _resolving(tx: Tx, row: NewNotification) -> NewNotification:
    """`row`, which resolves what its fingerprint has told of on its channel; silenced if that is nothing."""
    told = []
    for place, kind, group_key, held in tx.rows(_TOLD, (row.created_at, row.channel, row.fingerprint, _OPEN_MAX)):
        if kind == "resolved":
            break
        told.append((place, None if (group_key or "").startswith(QUIET) else held))
    if not told:
        return msgspec.structs.replace(row, state="silenced", error=NEVER_TOLD)
    wait = row.group.wait if row.group else 0
    if len(told) < _OPEN_MAX and all(held is not None and held + wait > row.created_at for _, held in told):
        for place, _ in told:
            tx.run(_SILENCE, (RESOLVED_IN_TIME, place))
        return msgspec.structs.replace(row, state="silenced", error=RESOLVED_IN_TIME)
    return row


def requeue(tx: Tx, ids: Sequence[int], now: int) -> int:
    """Queue dead ones again, with all their attempts before them and for as long as it takes, and make those due that
    are put off. How many."""
    query = Notifications.update(
        {
            Notifications.state: "queued", Notifications.attempt: 0, Notifications.next_attempt_at: now,
            Notifications.expires_at: None,
        }
    ).where(Notifications.state.in_(["queued", "dead"]) & Notifications.id.in_(list(ids)))  # fmt: skip
    tx.touch("notifications")
    return tx.run(query)


async def one(store: Store, notification_id: int) -> StoredNotification | None:
    """The notification of that id, or None."""
    rows = await store.read(Notifications.select(*ALL).where(Notifications.id == notification_id))
    return stored(rows[0]) if rows else None


async def find(
    store: Store,
    *,
    limit: int,
    channel: str = "",
    state: str = "",
    severity: str = "",
    fingerprint: str = "",
    since: int = 0,
    unread: bool = False,
    before_id: int = 0,
) -> list[StoredNotification]:
    """The latest `limit` notifications that fit all given, newest first; `since`: raised then or later (microseconds
    since 1970 UTC)."""
    # Only ids are sorted, and where the channel or state is known they come from an index.
    query = Notifications.select(Notifications.id).order_by(Notifications.id.desc()).limit(limit)
    if channel and not state:
        query = query.where(Notifications.state.in_(STATES))
    for column, value in (
        (Notifications.channel, channel), (Notifications.state, state), (Notifications.severity, severity),
        (Notifications.fingerprint, fingerprint),
    ):  # fmt: skip
        if value:
            query = query.where(column == value)
    if since:
        query = query.where(Notifications.created_at >= since)
    if unread:
        query = query.where(Notifications.read_at.is_null())
    if before_id:
        query = query.where(Notifications.id < before_id)
    found = Notifications.select(*ALL).where(Notifications.id.in_(query)).order_by(Notifications.id.desc())
    return [stored(row) for row in await store.read(found)]


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


def stored(row: Row) -> StoredNotification:
    """The notification of a row of `ALL`."""
    fields = dict(zip(StoredNotification.__struct_fields__, row, strict=True))
    fields["failover"] = tuple(from_json(fields["failover"])) if fields["failover"] else ()
    return StoredNotification(**fields)
