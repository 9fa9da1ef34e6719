"""What an event led to, as far as that is near: events, jobs and notifications that name it as their cause.

No index says it. So a stretch of ids is read, that behind the event, or of the latest jobs and notifications: what came
long after the event, or lies below so many others, isn't found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from peewee import fn

from .store import Statement, Store
from .tables import Events, Jobs, Notifications

IDS_MAX = 10_000
ROWS_MAX = 100


class _Kind(NamedTuple):
    """Where effects stand, how they are found, and what their columns are called."""

    name: str
    newest: Statement | None
    effects: Statement
    columns: tuple[str, ...]


_EVENTS = Statement(
    lambda p: (
        Events.select(Events.id, Events.type, Events.subject, Events.occurred_at)
        .where((Events.id > p) & (Events.id <= p) & (Events.cause_id == p))
        .order_by(Events.id)
        .limit(p)
    )
)
_LAST_JOB = Statement(lambda p: Jobs.select(fn.MAX(Jobs.id)))
_JOBS = Statement(
    lambda p: (
        Jobs.select(Jobs.id, Jobs.kind, Jobs.state, Jobs.created_at)
        .where((Jobs.id > p) & (Jobs.id <= p) & (Jobs.cause_id == p))
        .order_by(Jobs.id)
        .limit(p)
    )
)
_LAST_TOLD = Statement(lambda p: Notifications.select(fn.MAX(Notifications.id)))
_TOLD = Statement(
    lambda p: (
        Notifications.select(Notifications.id, Notifications.title, Notifications.state, Notifications.created_at)
        .where((Notifications.id > p) & (Notifications.id <= p) & (Notifications.event_id == p))
        .order_by(Notifications.id)
        .limit(p)
    )
)
_KINDS = (
    _Kind("events", None, _EVENTS, ("id", "type", "subject", "occurred_at")),
    _Kind("jobs", _LAST_JOB, _JOBS, ("id", "kind", "state", "created_at")),
    _Kind("notifications", _LAST_TOLD, _TOLD, ("id", "title", "state", "created_at")),
)


async def of(store: Store, event_id: int) -> list[dict[str, Any]]:
    """The effects, ROWS_MAX of each sort at most: what is in their columns, and in `what` their table."""
    found = []
    for kind in _KINDS:
        last = event_id + IDS_MAX if kind.newest is None else (await store.read(kind.newest))[0][0] or 0
        effects = await store.read(kind.effects, (last - IDS_MAX, last, event_id, ROWS_MAX))
        found += [{"what": kind.name, **dict(zip(kind.columns, row, strict=True))} for row in effects]
    return found
