"""Verbs of the table `events`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import peewee as pw
from peewee import fn

from ..clock import is_time
from ..events import Event, NewEvent, to_json
from .dialect import ByDialect, spells
from .store import ZERO, Row, Statement, Store, Tx
from .tables import Events

_COLUMNS = (
    "type", "subject", "topic", "data", "tags", "description", "occurred_at", "recorded_at", "idempotency_key",
    "cause_id", "keep",
)  # fmt: skip
ALL = (
    Events.id, Events.type, Events.subject, Events.topic, Events.data, Events.tags, Events.description,
    Events.occurred_at, Events.recorded_at, Events.idempotency_key, Events.cause_id,
)  # fmt: skip

_AFTER = Statement(lambda p: Events.select(*ALL).where(Events.id > p).order_by(Events.id).limit(p))
_BEFORE = Statement(lambda p: Events.select(*ALL).where(Events.id < p).order_by(Events.id.desc()).limit(p))
_ONE = Statement(lambda p: Events.select(*ALL).where(Events.id == p))
_HEAD = Statement(lambda p: Events.select(Events.id).order_by(Events.id.desc()).limit(p))
_GIVEN = Statement(
    lambda p: pw.Select(
        columns=[
            ByDialect(
                sqlite=pw.SQL("(SELECT seq FROM sqlite_sequence WHERE name = 'events')"),
                postgresql=pw.SQL("pg_sequence_last_value(pg_get_serial_sequence('events', 'id'))"),
            )
        ]
    )
)
# Without the addition SQLite may go through the table by id, and not by the index of the keys.
_KEYED = Statement(
    lambda p: (
        Events.select(*ALL)
        .where((Events.idempotency_key >= p) & (Events.idempotency_key < p) & (Events.id + ZERO > p))
        .order_by((Events.id + ZERO).desc())
        .limit(p)
    )
)
_FIRST_AFTER = Statement(
    lambda p: Events.select(Events.id, Events.recorded_at).where(Events.id > p).order_by(Events.id).limit(p)
)
_COUNT_AFTER = Statement(lambda p: Events.select(fn.COUNT(Events.id)).where(Events.id > p))

_ID_END = 2**63 - 1

_tags_json: dict[tuple[str, ...], str] = {(): "[]"}


@dataclass(frozen=True, slots=True)
class Appended:
    """How many events were stored, and how many not because their idempotency key was there."""

    stored: int
    duplicates: int


def append(tx: Tx, events: Sequence[NewEvent]) -> Appended:
    """Store `events` in their order. Nobody else appends some until the commit (G6)."""
    tx.alone()
    rows = [
        (
            event.type, event.subject, event.topic, event.data_json, tags_to_json(event.tags), event.description,
            event.occurred_at, event.recorded_at, event.idempotency_key, event.cause_id,
            event.keep,
        )
        for event in events
    ]  # fmt: skip
    stored = tx.insert(Events, _COLUMNS, rows)
    if stored:
        tx.touch("events")
    return Appended(stored, len(rows) - stored)


async def after(store: Store, last_consumed_id: int, limit: int) -> list[Event]:
    """Up to `limit` events with an id greater than `last_consumed_id`, in order of id."""
    return [_event(row) for row in await store.read(_AFTER, (last_consumed_id, limit))]


async def before(store: Store, event_id: int, limit: int) -> list[Event]:
    """Up to `limit` events with a smaller id, the newest first."""
    return [_event(row) for row in await store.read(_BEFORE, (event_id, limit))]


async def latest(store: Store, count: int, page: int = 500) -> AsyncIterator[Event]:
    """The latest events, `count` at most, the newest first. Memory holds a page of them."""
    event_id = _ID_END
    while count > 0 and (found := await before(store, event_id, min(page, count))):
        for event in found:
            yield event
        event_id, count = found[-1].id, count - len(found)


async def keyed(store: Store, prefix: str, *, limit: int, after_id: int = 0) -> list[Event]:
    """The latest events, `limit` at most, whose idempotency key begins with `prefix` and whose id is greater than
    `after_id`, the newest first. Costs in proportion to how many have such a key."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return [_event(row) for row in await store.read(_KEYED, (prefix, end, after_id, limit))]


async def one(store: Store, event_id: int) -> Event | None:
    """The event of that id, or None."""
    rows = await store.read(_ONE, (event_id,))
    return _event(rows[0]) if rows else None


def newest_id(tx: Tx) -> int:
    """The highest event id, as the transaction sees it; 0 when there is none."""
    rows = tx.rows(_HEAD, (1,))
    return int(rows[0][0]) if rows else 0


def newest_given(tx: Tx) -> int:
    """The highest id that an event ever had, also if that event is gone; 0 when there was none."""
    return max(newest_id(tx), tx.rows(_GIVEN)[0][0] or 0)


async def greatest_given(store: Store) -> int:
    """What `newest_given` says."""
    return max(await head(store), (await store.read(_GIVEN))[0][0] or 0)


async def head(store: Store) -> int:
    """The highest event id, 0 when there is none."""
    rows = await store.read(_HEAD, (1,))
    return int(rows[0][0]) if rows else 0


async def first_recorded_at(store: Store) -> int | None:
    """When the first event that is still there was recorded; None when there is none."""
    rows = await store.read(_FIRST_AFTER, (0, 1))
    return rows[0][1] if rows and is_time(rows[0][1]) else None


async def id_before(store: Store, moment: int) -> int:
    """An id: those after it belong to events recorded at `moment` (microseconds since 1970 UTC) or later, those up to
    it to earlier ones. Found by halving, in some twenty looks: where times don't grow with ids (a clock was set, a
    commit waited), it is one of the places at which they pass `moment`."""
    low, high = 0, await head(store)
    while low < high:
        middle = (low + high) // 2
        rows = await store.read(_FIRST_AFTER, (middle, 1))
        if rows and is_time(rows[0][1]) and rows[0][1] < moment:
            low = rows[0][0]
        else:
            high = middle
    return low


async def count_after(store: Store, event_id: int) -> int:
    """How many events have a greater id: a processor's lag."""
    return int((await store.read(_COUNT_AFTER, (event_id,)))[0][0])


async def recent(
    store: Store, *, limit: int, type_pattern: str = "", subject: str = "", tag: str = "", since: int = 0
) -> list[Event]:
    """The latest `limit` events, oldest first, that fit all given: a type (`*` for any text), a subject, a tag,
    `recorded_at` not before `since` microseconds."""
    query = Events.select(*ALL).order_by(Events.id.desc()).limit(limit)
    if type_pattern:
        query = query.where(spells(Events.type, type_pattern.split("*")))
    if subject:
        query = query.where(Events.subject == subject)
    if tag:
        query = query.where(spells(Events.tags, ("", to_json(tag), "")))
    if since:
        query = query.where(Events.recorded_at >= since)
    return [_event(row) for row in reversed(await store.read(query))]


def tags_to_json(tags: tuple[str, ...]) -> str:
    """Tags as JSON text. The same few combinations come again and again."""
    text = _tags_json.get(tags)
    if text is None:
        text = to_json(list(tags))
        if len(_tags_json) < 1000:
            _tags_json[tags] = text
    return text


def _event(row: Row) -> Event:
    return Event(*row)
