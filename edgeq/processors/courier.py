"""The courier: decides what is told of events tagged `notification`, where and when, in the commit that moves its
cursor. The senders do the rest.

What can be relied on:

- **Each event is told once on each channel that its routes name**, however often edgeq is killed: its rows, the threads
  that they open or end, and the cursor are one commit. The text is made once.
- **What is open is in the store** (see notifications.threads), with who has acknowledged it and when it is due again; a
  restart changes nothing. What became due while edgeq was down or the events waited is told once, not as often as it
  would have been.
- **An acknowledgement counts at once**: a reminder that it has overtaken is not queued, wherever it came from.
- **A step of the clock is no time that passed.** What was left until each reminder is left after it. Of an earlier run,
  nothing is due later than its full length from now. Silences and quiet hours go by the wall clock, as people do.
- **Silenced** notifications stand in the history, told to nobody. Those of which a thread is still open, and not
  acknowledged, when the silence ends are told then.
- **While anything of a thread waits for a channel, no reminder is queued there**: an outage makes no heap of them.
- Threads of routes that are gone are closed, and those of a contract's episode whose end the courier passed over (its
  cursor was set forward, or the event is a dead letter); channels that are gone are passed over.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from ..clock import MICROSECONDS, Clock
from ..events import Event
from ..notifications.links import Links, signing_key
from ..notifications.policy import Policy
from ..notifications.silences import KEPT_SECONDS, SILENCES_MAX, Silences
from ..notifications.telling import Teller, Turn
from ..notifications.threads import THREADS_MAX, Threads, adopted, is_over
from ..store import silences, threads
from ..store.store import Store, Tx
from ..store.threads import Key, Thread
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .overtaken import overtaken
from .processor import ProcessorContext, QueueProcessor

log = logging.getLogger("edgeq.courier")

CLOCK_STEP_SECONDS = 1.0
# What is due is decided in portions.
DUE_MAX = 200

_STEP = round(CLOCK_STEP_SECONDS * MICROSECONDS)
_KEPT = round(KEPT_SECONDS * MICROSECONDS)


class _Opening(NamedTuple):
    """What is to be decided first: threads that are closed, and those that go on differently."""

    gone: list[Key]
    changed: list[Thread]


class Courier(QueueProcessor):
    """Tells by `policy`. An event that is routed nowhere is counted (`unrouted_notification`) and passed over."""

    tags = ("notification",)

    def __init__(self, policy: Policy, metrics: Metrics, clock: Clock) -> None:
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._calm = Calm(log, clock.monotonic)
        self._teller = Teller(policy, Threads(), metrics, self._calm)
        self._silences = Silences()
        self._opening: _Opening | None = None
        self._offset = clock.offset()
        self._store: Store | None = None
        self._seen: tuple[int, int] | None = None

    async def opened(self, store: Store, last_consumed_id: int) -> None:
        """Load what is open and what is silenced."""
        self._store = store
        now = self._clock.now()
        opening = _Opening([], [])
        found = []
        for thread in await threads.every(store, THREADS_MAX):
            route = self._policy.route(thread.route)
            goes_on = None if route is None else adopted(thread, route, now)
            if goes_on is None or is_over(goes_on):
                opening.gone.append(thread.key)
                continue
            if goes_on != thread:
                opening.changed.append(goes_on)
            found.append(goes_on)
        if over := await overtaken(store, found, last_consumed_id):
            log.warning("%d threads are closed: they are over, and the courier never heard of their end", len(over))
            opening.gone.extend(over)
            found = [thread for thread in found if thread.key not in over]
        self._teller = Teller(self._policy, Threads(found), self._metrics, self._calm, await self._links(store))
        self._opening = opening if opening.gone or opening.changed else None
        self._seen = None
        await self._look(now)

    def due_at(self) -> int | None:
        """See QueueProcessor."""
        if self._opening is not None or abs(self._step()) >= _STEP or self._versions() != self._seen:
            return self._clock.now()
        return self._teller.threads.earliest()

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        turn = await self._begin(ctx)
        self._teller.tell(event, self._silences, turn)

    async def on_time(self, ctx: ProcessorContext) -> None:
        """See QueueProcessor."""
        turn = await self._begin(ctx)
        assert self._store is not None
        for thread in self._teller.threads.due(turn.now, DUE_MAX):
            text = None
            if thread.acknowledged_at is None:
                text = await threads.text(self._store, thread.key)
            if text is not None:
                self._teller.go_on(thread, text, self._silences, turn)
            else:  # nothing more would come of it, or somebody has deleted it
                self._teller.close(thread, turn)

    async def _begin(self, ctx: ProcessorContext) -> Turn:
        """Decide what is left of the start, follow a step of the clock, and see what others have changed."""
        turn = Turn(ctx.now, ctx.decisions)
        opening, self._opening = self._opening, None
        if opening is not None:
            turn.decisions.also.append(lambda tx: _settle(tx, opening))
        step = self._step()
        if abs(step) >= _STEP:
            self._offset += step
            self._teller.threads.set_clock(turn.now, step)
            if len(self._teller.threads):
                turn.decisions.also.append(lambda tx: threads.set_clock(tx, turn.now, step))
            self._seen = None
        await self._look(turn.now)
        return turn

    async def _links(self, store: Store) -> Links | None:
        public_url = self._policy.public_url
        return None if public_url is None else Links(public_url, await signing_key(store))

    async def _look(self, now: int) -> None:
        """See what others have silenced or acknowledged, if there is a sign that they may have."""
        versions = self._versions()
        if versions == self._seen:
            return
        assert self._store is not None
        rows = await silences.until_after(self._store, now - _KEPT, SILENCES_MAX)
        if not self._silences.same(rows):
            self._silences = Silences(rows)
            self._teller.threads.release()
        self._teller.threads.acknowledge(await threads.acknowledged(self._store))
        self._seen = versions

    def _versions(self) -> tuple[int, int] | None:
        if self._store is None:
            return None
        signal = self._store.signal
        return signal.version("silences"), signal.version("threads")

    def _step(self) -> int:
        """By how many microseconds the clock was set since the last look."""
        return self._clock.offset() - self._offset


def _settle(tx: Tx, opening: _Opening) -> None:
    threads.close(tx, opening.gone)
    for thread in opening.changed:
        threads.change(tx, thread)
