"""What a processor is: subclass `QueueProcessor`, say which events it wants, and handle them.

A processor reads events in the order of their ids, from its cursor (`last_consumed_id`) on. Everything that it decides
through `ctx` is committed together with the move of the cursor (G4): inside the store, exactly once. What it does
outside (a request to some service) happens at least once; `ctx.idempotency_key` is the same at every attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..clock import Clock
from ..config.schema import Record
from ..context import Context
from ..errors import EdgeqError
from ..events import Event
from ..store.decisions import Decisions
from ..store.store import Store


class ProcessorContext(Context):
    """`ctx` of a processor. `attempt` counts from 1.

    `idempotency_key` is for services that take such a key: it names the store, the processor and the event (of a batch:
    its first and last), and is the same at every attempt, also after a restart.
    """

    def __init__(self, clock: Clock, *, cause_id: int | None, idempotency_key: str, attempt: int) -> None:
        super().__init__(clock, cause_id=cause_id)
        self.idempotency_key = idempotency_key
        self.attempt = attempt


class NotYet(EdgeqError):
    """To be raised by `process_item` or `process_batch` when it isn't about the events: what they need is away, or must
    not be asked yet. Nothing counts as a failed attempt. What was decided through `ctx` stays, the events up to id
    `done_to` are done, and the others come again after `after_seconds`, and until then nothing else does.

    With a `reason`, the processor waits for something: status says it, and the log does once until it goes on.
    """

    def __init__(self, reason: str = "", *, after_seconds: float = 0.0, done_to: int | None = None) -> None:
        super().__init__(reason or "not yet")
        self.reason = reason
        self.after_seconds = after_seconds
        self.done_to = done_to
        self.decisions: Decisions | None = None


class QueueProcessor:
    """Base of all processors. Write `process_item`, or `process_batch`.

    `types`, `tags` and `subject` say which events are wanted: a type or subject may hold `*` for any text; an event
    fits when one of the types fits, all tags are there, and the subject fits. The configuration's `types`, `tags` and
    `subject` take their place when given.

    A class that has keys of its own in the configuration says so with `settings`, a record of them; its instances find
    the values in `self.settings`, also in `__init__`, which is called without arguments. All methods are called one at
    a time, on the event loop: what blocks there blocks everything.
    """

    types: ClassVar[Sequence[str]] = ("*",)
    tags: ClassVar[Sequence[str]] = ()
    subject: ClassVar[str] = "*"
    settings: ClassVar[type[Record] | None] = None

    def filter_item(self, event: Event) -> bool:
        """Whether to process `event`. Cheap: it is asked for each event that fits types, tags and subject."""
        return True

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """Handle one event. An exception means failed: what was decided is dropped, and it is tried again as `on_error`
        says. What it returns doesn't matter."""
        raise NotImplementedError

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        """Handle many events at once, if overridden, `batch_size` at most: one request for many. When it fails, its
        events are tried alone. `ctx.cause_id` is the last one's id."""
        raise NotImplementedError

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Called before the first event, and again whenever what was decided has been dropped (an attempt failed, the
        cursor was moved from outside, a commit was refused): load state as of `last_consumed_id`, forget all else."""

    def due_at(self) -> int | None:
        """When `on_time` wants to be called, in microseconds since 1970 UTC; None while nothing is due."""
        return None

    async def on_time(self, ctx: ProcessorContext) -> None:
        """Called once `due_at` has passed and every event stored so far has been processed. When it fails, what was
        decided is dropped, and it is called again after `on_error.backoff`."""

    def says(self) -> Mapping[str, str | int]:
        """What `edgeq status` shows of it beside its place: a few words or numbers by name, nothing secret."""
        return {}

    async def closed(self) -> None:
        """Called when the processor stops: let go of connections. It may be `opened` again."""
