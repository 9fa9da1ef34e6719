"""Ways to wait for what must happen, with an end: each raises AssertionError when it doesn't happen in time.

They look again after each commit that touches something, and else every `LOOK_SECONDS`, for what no signal tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any

from ..events import Event
from ..patterns import pattern
from ..store import cursors, events
from ..store.cursors import Cursor
from ..store.store import TOPICS, Store

DEADLINE_SECONDS = 30.0
LOOK_SECONDS = 0.02


async def until(
    condition: Callable[[], Any],
    what: str = "the condition",
    *,
    store: Store | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Any:
    """The first true value of `condition()`, which may be async. `what` says in words what was waited for."""
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_seconds

    with store.signal.watch(woken, *TOPICS) if store is not None else contextlib.nullcontext():
        while True:
            woken.clear()
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            if loop.time() > deadline:
                raise AssertionError(f"waited {deadline_seconds:g}s for {what}; it is {found!r}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await woken.wait()


async def cursor_at(
    store: Store, processor: str, event_id: int, *, deadline_seconds: float = DEADLINE_SECONDS
) -> Cursor:
    """The cursor of `processor`, once it stands at `event_id` or beyond in the store."""

    async def there() -> Cursor | None:
        cursor = await cursors.one(store, processor)
        return cursor if cursor is not None and cursor.last_consumed_id >= event_id else None

    what = f"the cursor of {processor} at {event_id}"
    cursor: Cursor = await until(there, what, store=store, deadline_seconds=deadline_seconds)
    return cursor


async def events_stored(
    store: Store, count: int, type_pattern: str = "*", *, deadline_seconds: float = DEADLINE_SECONDS
) -> list[Event]:
    """All events whose type fits the pattern, oldest first, once there are `count` of them or more."""
    fits = pattern(type_pattern)
    found: list[Event] = []
    seen = 0

    async def there() -> bool:
        nonlocal seen
        for event in await events.after(store, seen, 100_000):
            seen = event.id
            if fits(event.type):
                found.append(event)
        return len(found) >= count

    what = f"{count} events of type {type_pattern}"
    await until(there, what, store=store, deadline_seconds=deadline_seconds)
    return found
