"""What a processor is: subclass `QueueProcessor`, say which events it wants, and handle them.

A processor reads events in the order of their ids, from its cursor (`last_consumed_id`) on. Everything that it decides
through `ctx` is committed together with the move of the cursor (G4): inside the store, exactly once. What it does
outside (a request to some service) happens at least once; `ctx.idempotency_key` is the same at every attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..clock import Clock
from ..context import Context
from ..events import Event
from ..store.store import Store


class ProcessorContext(Context):
    """`ctx` of a processor. `idempotency_key` names this processor and this event (of a batch: its last event), for
    services that take such a key; `attempt` counts from 1."""

    def __init__(self, clock: Clock, *, cause_id: int | None, idempotency_key: str, attempt: int) -> None:
        super().__init__(clock, cause_id=cause_id)
        self.idempotency_key = idempotency_key
        self.attempt = attempt


class QueueProcessor:
    """Base of all processors.

    `types`, `tags` and `subject` say which events are wanted: a type or subject may hold `*` for any text; an event fits
    when one of the types fits, all tags are there, and the subject fits. The configuration's `types`, `tags` and
    `subject` take their place when given.
    """

    types: ClassVar[Sequence[str]] = ("*",)
    tags: ClassVar[Sequence[str]] = ()
    subject: ClassVar[str] = "*"

    def filter_item(self, event: Event) -> bool:
        """Whether to process `event`. Cheap: it is asked for each event that fits types, tags and subject."""
        return True

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """Handle one event. An exception means failed: it is tried again, then goes to the dead letters."""
        raise NotImplementedError

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        """Handle many at once, if overridden: one request for many events. When it fails, its events are tried alone."""
        raise NotImplementedError

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Called before the first event, and again whenever the cursor was moved from outside or the last commit was
        refused: forget what was held in memory, load state as of `last_consumed_id`."""

    def due_at(self) -> int | None:
        """When `on_time` wants to be called, in microseconds since 1970 UTC; None while nothing is due."""
        return None

    async def on_time(self, ctx: ProcessorContext) -> None:
        """Called once `due_at` has passed and every event stored so far has been processed."""
