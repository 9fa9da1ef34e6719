"""Looking for events, the newest first, among more than anybody can wait for: one stretch of ids after another, each
found by the primary key, and only what fits is read. What lies further back than IDS_MAX is left for the next page."""

from __future__ import annotations

from typing import NamedTuple

import peewee as pw
from peewee import fn

from ..events import Event
from . import events
from .dialect import spells
from .store import Statement, Store, literal
from .tables import Events

STRETCH_IDS = 10_000
IDS_MAX = 100_000
ROWS_AT_ONCE = 100
BYTES_MAX = 2**20
"""So much data a page holds, if it holds more than one event."""

_BETWEEN = literal("\n")
_FIRST = Statement(lambda p: Events.select(fn.MIN(Events.id)))


class Wanted(NamedTuple):
    """What is looked for; what is empty doesn't matter. `*` in `type` and `subject` stands for any text, `text` is
    found in data and descriptions, upper or lower case alike. Recorded at `since` or later, and `until` or earlier
    (microseconds since 1970 UTC), as exactly as `events.id_before` knows."""

    type: str = ""
    subject: str = ""
    text: str = ""
    since: int = 0
    until: int | None = None


class Found(NamedTuple):
    """The newest first. `next`: there may be more of them, with ids below that one."""

    events: list[Event]
    next: int | None


async def search(store: Store, wanted: Wanted, *, limit: int, before_id: int) -> Found:
    """Up to `limit` events with ids below `before_id`."""
    ((first,),) = await store.read(_FIRST)
    if first is None:
        return Found([], None)
    bottom = max(first - 1, await events.id_before(store, wanted.since) if wanted.since else 0)
    top = min(before_id, await events.head(store) + 1)
    if wanted.until is not None:
        top = min(top, await events.id_before(store, wanted.until + 1) + 1)
    found: list[Event] = []
    lowest, size = top - IDS_MAX, 0
    while bottom + 1 < top > lowest:
        count = min(limit - len(found), ROWS_AT_ONCE)
        floor = max(bottom, top - 1 - STRETCH_IDS)
        rows = await store.read(query(wanted, top, floor, count))
        for row in rows:
            size += len(row[4])
            if found and size > BYTES_MAX:
                return Found(found, found[-1].id)
            found.append(Event(*row))
        top = found[-1].id if len(rows) == count else floor + 1
        if len(found) == limit:
            break
    return Found(found, top if bottom + 1 < top else None)


def query(wanted: Wanted, top: int, floor: int, count: int) -> pw.ModelSelect[Events]:
    """The latest `count` that fit, with ids between `floor` and `top`."""
    chosen = Events.select(*events.ALL).where((Events.id < top) & (Events.id > floor))
    for column, pattern in ((Events.type, wanted.type), (Events.subject, wanted.subject)):
        if pattern:
            chosen = chosen.where(spells(column, pattern.split("*")))
    if wanted.text:
        # A character that neither may hold keeps a text from being found across the two.
        both = Events.data.concat(_BETWEEN).concat(Events.description)
        chosen = chosen.where(spells(both, ("", wanted.text, ""), any_case=True))
    return chosen.order_by(Events.id.desc()).limit(count)
