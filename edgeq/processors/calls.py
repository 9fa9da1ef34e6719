"""How a processor's own code is called: only for the events it wants, with a context for each call, and its memory
made anew when it may be wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from ..clock import Clock
from ..errors import contained
from ..events import Event
from ..failpoints import failpoint
from ..patterns import AnyOf, pattern
from ..store.decisions import Decisions
from ..store.store import Store
from ..telemetry.metrics import Metrics
from .processor import NotYet, ProcessorContext, QueueProcessor
from .settings import ProcessorSettings


class Calls:
    """Calls `processor`. What it decided is returned; what it raises is raised.

    `together` says whether it takes many events in one call. `fresh` is whether its memory is that of the position;
    who drops what it decided sets it to False. `busy_with` is the id of the (last) event that it has in hand, and since
    when, in microseconds since 1970 UTC.
    """

    def __init__(
        self,
        name: str,
        processor: QueueProcessor,
        settings: ProcessorSettings,
        store: Store,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.together = type(processor).process_batch is not QueueProcessor.process_batch
        self.wants = wants(processor, settings)
        self.fresh = False
        self.processed = 0
        self.busy_with: tuple[int, int] | None = None
        self._name = name
        self._log = logging.getLogger(f"edgeq.processors.{name}")
        self._processor = processor
        self._store = store
        self._metrics = metrics
        self._clock = clock

    async def refresh(self, position: int) -> None:
        """Have the processor load its memory if it isn't that of `position`; what it decided is committed by now."""
        if not self.fresh:
            with contained("the processor"):
                await self._processor.opened(self._store, position)
            self.fresh = True

    async def handle(self, wanted: Sequence[Event], attempt: int) -> Decisions:
        """Have it handle the events: one, or, if it takes them together, many."""
        first, last = wanted[0].id, wanted[-1].id
        ctx = self._context(str(last) if first == last else f"{first}-{last}", attempt, last)
        self.busy_with = (last, ctx.now)
        try:
            with contained("the processor"):
                if self.together:
                    await self._processor.process_batch(wanted, ctx)
                else:
                    await self._processor.process_item(wanted[0], ctx)
        except NotYet as pause:
            done = 0 if pause.done_to is None else sum(event.id <= pause.done_to for event in wanted)
            if done:
                ctx.decisions.tallies.append(lambda: self._tally(done))
            pause.decisions = ctx.decisions
            raise
        finally:
            self.busy_with = None
        ctx.decisions.tallies.append(lambda: self._tally(len(wanted)))
        failpoint("processor.handled")
        return ctx.decisions

    async def on_time(self, due: int, attempt: int) -> Decisions:
        """Have it do what was due at `due` microseconds since 1970 UTC."""
        ctx = self._context(f"time-{due}", attempt, None)
        with contained("the processor"):
            await self._processor.on_time(ctx)
        return ctx.decisions

    def says(self) -> Mapping[str, str | int]:
        """What it says of itself."""
        try:
            with contained("says"):
                return dict(self._processor.says())
        except Exception as error:  # noqa: BLE001 - G5: the user's code may raise anything
            return {"fails_to_say": str(error)}

    async def close(self) -> None:
        """Have it let go of what it holds."""
        try:
            with contained("the processor"):
                await self._processor.closed()
        except Exception as error:  # noqa: BLE001 - G5: the user's code may raise anything
            self._log.warning("what it holds could not be let go of: %s", error)

    def _tally(self, count: int) -> None:
        self.processed += count
        self._metrics.processed.add(count, self._name)

    def _context(self, what: str, attempt: int, cause_id: int | None) -> ProcessorContext:
        # With the store's id: in a fresh store, ids of events begin anew.
        key = f"{self._store.id}:{self._name}:{what}"
        return ProcessorContext(self._clock, cause_id=cause_id, idempotency_key=key, attempt=attempt)


def wants(processor: QueueProcessor, settings: ProcessorSettings) -> Callable[[Event], bool]:
    """A function that says whether an event is wanted."""
    types = AnyOf(processor.types if settings.types is None else settings.types)
    tags = frozenset(processor.tags if settings.tags is None else settings.tags)
    subject = processor.subject if settings.subject is None else settings.subject
    fits = None if subject == "*" else pattern(subject)
    asks = type(processor).filter_item is not QueueProcessor.filter_item

    def ask(event: Event) -> bool:
        with contained("filter_item"):
            return bool(processor.filter_item(event))

    def wanted(event: Event) -> bool:
        return (
            types(event.type)
            and (fits is None or fits(event.subject))
            and (not tags or tags.issubset(event.tags))
            and (not asks or ask(event))
        )

    return wanted
