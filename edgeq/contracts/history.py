"""The events that a store holds of a stretch of time, read page by page beside a running appliance."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from ..clock import MICROSECONDS, is_time
from ..events import Event
from ..store import events
from ..store.store import Store

PAGE = 500
DISORDER_SECONDS = 3600.0
BACK_SECONDS = 60.0
BACK_EVENTS = 100

_DISORDER = round(DISORDER_SECONDS * MICROSECONDS)
_BACK = round(BACK_SECONDS * MICROSECONDS)


class Stretch(NamedTuple):
    """The events recorded from `since` until `until` (microseconds since 1970 UTC); their ids are greater than
    `after_id` and at most `last_id`. It `begins_at` `since`, or with the first event that is stored."""

    since: int
    until: int
    begins_at: int
    after_id: int
    last_id: int


class Moment(NamedTuple):
    """An event, and whether the clock had been set back before it was recorded."""

    event: Event
    clock_set: bool


async def find(store: Store, since: int, until: int) -> Stretch:
    """The stretch from `since` until `until`, of the events that are there already.

    An event with a greater id may have been recorded up to `DISORDER_SECONDS` earlier than one with a smaller id.
    """
    first_at = await events.first_recorded_at(store)
    after_id = await events.id_before(store, since - _DISORDER)
    last_id = await events.id_before(store, until + _DISORDER)
    begins_at = since if first_at is None or after_id else min(max(since, first_at), until)
    return Stretch(since, until, begins_at, after_id, last_id)


async def moments(store: Store, stretch: Stretch) -> AsyncIterator[list[Moment]]:
    """The events of a stretch, in pages.

    That a job or a commit took long puts events behind later ones. But the clock has been set back when an event and
    the `BACK_EVENTS` after it were all recorded more than `BACK_SECONDS` before the one ahead of them.
    """
    latest = stretch.begins_at
    waiting: deque[Event] = deque()
    position = stretch.after_id
    more = True
    while more:
        page = await events.after(store, position, PAGE)
        more = len(page) == PAGE and page[-1].id < stretch.last_id
        position = page[-1].id if page else position
        waiting.extend(event for event in page if _is_in(stretch, event))
        ready: list[Moment] = []
        while len(waiting) > (BACK_EVENTS if more else 0):
            event = waiting.popleft()
            clock_set = event.recorded_at < latest - _BACK and _all_before(latest - _BACK, waiting)
            latest = event.recorded_at if clock_set else max(latest, event.recorded_at)
            ready.append(Moment(event, clock_set))
        yield ready


def _is_in(stretch: Stretch, event: Event) -> bool:
    """An event with a time that isn't one is in no stretch."""
    if event.id > stretch.last_id or not is_time(event.recorded_at):
        return False
    return stretch.since <= event.recorded_at <= stretch.until


def _all_before(moment: int, waiting: deque[Event]) -> bool:
    if len(waiting) < BACK_EVENTS:
        return False
    return all(waiting[index].recorded_at < moment for index in range(BACK_EVENTS))
