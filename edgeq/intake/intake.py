"""The way of a message, here and nowhere else: received, handled, committed, acknowledged.

1. *received*: taken from the inbox, in order of arrival, as many at once as wait there.
2. *handled*: every route that matches runs; what its controllers decide is gathered. What can't be handled becomes a
   dead letter, which is a decision too (G3). Built-in controllers run on the spot; one's own run as tasks, those of
   one topic one after the other, and don't hold up the handling of what came behind them.
3. *committed*: all that is decided goes to the store in one unit. While it can't be written, nothing is acknowledged.
4. *acknowledged*: in order of arrival (MQTT 5, 4.6), as soon as a delivery and all before it are committed.

Between 1 and 4 there are at most `window` deliveries, and nothing more is taken from the inbox while the payloads of
those take BYTES_MAX bytes or more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from ..clock import Clock
from ..errors import RejectedMessage, StoreUnavailable
from ..failpoints import failpoint
from ..mqtt.delivery import Delivery
from ..mqtt.inbox import Inbox
from ..service import Service
from ..store.dead_letters import NewDeadLetter
from ..store.decisions import Decisions, count, record
from ..store.store import Store, Tx
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from . import rejection
from .calls import Calls
from .context import MessageContext
from .table import CompiledRoute, Matches, RouteTable

BATCH_MAX = 500
BYTES_MAX = 16 * 2**20
_REFUSED_RETRY_SECONDS = 10.0


class Acknowledges(Protocol):
    """Where deliveries are acknowledged: the session."""

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledge, in this order, those that belong to the present connection; how many did."""


class _Segment:
    """Deliveries that came one after the other and are handled and committed together."""

    __slots__ = ("committed", "decisions", "deliveries", "payload_bytes")

    def __init__(self, deliveries: list[Delivery]) -> None:
        self.deliveries = deliveries
        self.payload_bytes = sum([len(delivery.payload) for delivery in deliveries])
        self.decisions = Decisions()
        self.committed = False


class Intake(Service):
    """Takes deliveries from `inbox` to acknowledgement, by the routes of `table`. `landed` counts them.

    `fence` is run in the transaction of each commit, and raises StoreUnavailable when another process has taken over.
    """

    def __init__(
        self, table: RouteTable, inbox: Inbox, session: Acknowledges, store: Store, metrics: Metrics, clock: Clock,
        *, window: int, fence: Callable[[Tx], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__("intake", clock)
        self.last_message_at: dict[str, int] = {}
        self.landed = 0
        self._table = table
        self._inbox = inbox
        self._session = session
        self._store = store
        self._metrics = metrics
        self._window = window
        self._fence = fence
        self._calm = Calm(self.log, clock.monotonic)
        self._flight: deque[_Segment] = deque()
        self._flying = 0
        self._flying_bytes = 0
        self._landing = asyncio.Event()
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = Calls()

    async def run(self) -> None:
        """Works until the inbox is closed and everything taken from it is committed and acknowledged."""
        try:
            while True:
                while self._flying >= self._window or self._flying_bytes >= BYTES_MAX:
                    await self._next_landing()
                batch = await self._inbox.get_batch(min(BATCH_MAX, self._window - self._flying))
                if not batch:
                    break
                failpoint("intake.received")
                self._take(batch)
            while self._flight:
                await self._next_landing()
            self._calls.close()
            self.stopping.set()
        finally:
            for task in self._tasks:
                task.cancel()

    def in_flight(self) -> int:
        """How many deliveries are taken and not yet acknowledged."""
        return self._flying

    @property
    def handling(self) -> bool:
        """Whether a controller of one's own is at work."""
        return bool(self._tasks)

    # 2. handled

    def _take(self, batch: list[Delivery]) -> None:
        """Handle what can be handled on the spot, start a task for each of the rest; commit."""
        together: list[tuple[Delivery, Matches]] = []
        for delivery in batch:
            matches = self._table.lookup(delivery.topic)
            if matches.inline:
                together.append((delivery, matches))
            else:
                self._handle_together(together)
                together = []
                self._handle_alone(delivery, matches)
        self._handle_together(together)

    def _segment(self, deliveries: list[Delivery]) -> _Segment:
        segment = _Segment(deliveries)
        self._flight.append(segment)
        self._flying += len(deliveries)
        self._flying_bytes += segment.payload_bytes
        return segment

    def _handle_together(self, together: list[tuple[Delivery, Matches]]) -> None:
        if not together:
            return
        segment = self._segment([delivery for delivery, _ in together])
        for delivery, matches in together:
            self._handle(delivery, matches, segment.decisions)
        self._commit(segment)

    def _handle(self, delivery: Delivery, matches: Matches, decisions: Decisions) -> None:
        if not matches.routes:
            self._metrics.dropped.add(1, "unrouted")
        for route, params in matches.routes:
            ctx = MessageContext(self.clock, delivery, route.label, params, route.payload, decisions, route.keep)
            events, jobs = len(decisions.events), len(decisions.jobs)
            try:
                if self._admit(ctx, route):
                    for controller in route.inline:
                        controller(ctx)
            except Exception as error:  # noqa: BLE001 - G3: whatever it is, the message becomes a dead letter
                del decisions.events[events:], decisions.jobs[jobs:]
                decisions.dead_letters.append(self._dead_letter(delivery, route.label, error))

    def _handle_alone(self, delivery: Delivery, matches: Matches) -> None:
        segment = self._segment([delivery])
        before = self._tails.get(delivery.topic)
        task = asyncio.create_task(self._handle_own(segment, matches, before), name=f"intake:{delivery.topic}")
        self._tails[delivery.topic] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle_own(self, segment: _Segment, matches: Matches, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        delivery = segment.deliveries[0]
        for route, params in matches.routes:
            ctx = MessageContext(self.clock, delivery, route.label, params, route.payload, keep=route.keep)
            try:
                if self._admit(ctx, route):
                    await self._calls.run(route, ctx)
            except asyncio.CancelledError:
                self._let_go()
                raise
            except Exception as error:  # noqa: BLE001 - G3
                segment.decisions.dead_letters.append(self._dead_letter(delivery, route.label, error))
            else:
                segment.decisions.extend(ctx.decisions)
        if self._tails.get(delivery.topic) is asyncio.current_task():
            del self._tails[delivery.topic]
        self._commit(segment)

    def _admit(self, ctx: MessageContext, route: CompiledRoute) -> bool:
        """Whether the route wants this message at all. Raises RejectedMessage for what it must not take."""
        delivery = ctx.delivery
        if delivery.retain and not route.takes_retained:
            self._metrics.dropped.add(1, "retained")
            return False
        if delivery.payload_size > route.payload_bytes_max and not route.takes_oversize:
            raise RejectedMessage(
                "too_large", f"{delivery.payload_size} bytes; the route takes {route.payload_bytes_max}"
            )
        if not delivery.payload and route.payload == "json" and route.own is None:
            # A cleared retained message: there is nothing in it to make an event of.
            self._metrics.dropped.add(1, "empty")
            return False
        if route.limiter is not None and not route.limiter.allow(route.limit_key(ctx)):
            if route.over_limit_is_dead_letter:
                raise RejectedMessage("over_limit", f"more messages than the limit of route {route.label!r}")
            self._metrics.dropped.add(1, "over_limit")
            return False
        self._metrics.routed.add(1, route.label)
        self.last_message_at[route.label] = delivery.received_at
        return True

    def _dead_letter(self, delivery: Delivery, route: str, error: BaseException) -> NewDeadLetter:
        letter = rejection.dead_letter(delivery, route, error)
        self._calm.warning(
            f"{route} {letter.reason}",
            "a message on %r became a dead letter (%s): %s",
            delivery.topic,
            letter.reason,
            rejection.one_line(rejection.sentence(error)),
        )
        return letter

    # 3. committed

    def _commit(self, segment: _Segment) -> None:
        failpoint("intake.handled")
        decisions = segment.decisions
        if not decisions:
            self._land(segment)
            return

        def unit(tx: Tx) -> int:
            if self._fence is not None:
                self._fence(tx)
            return record(tx, decisions)

        try:
            future = self._store.submit(unit)
        except StoreUnavailable:
            self._let_go()
        else:
            future.add_done_callback(lambda done: self._committed(segment, done))

    def _committed(self, segment: _Segment, done: asyncio.Future[int]) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is None:
            self._count(segment.decisions, done.result())
            failpoint("intake.committed")
            self._land(segment)
        elif isinstance(error, StoreUnavailable | asyncio.CancelledError):
            self._let_go()
        else:
            self._set_aside(segment, error)

    def _count(self, decisions: Decisions, duplicates: int) -> None:
        count(self._metrics, decisions, duplicates)
        for letter in decisions.dead_letters:
            self._metrics.rejected.add(1, rejection.label(letter))

    def _set_aside(self, segment: _Segment, error: BaseException) -> None:
        """The store refuses something in this segment, which no check foresaw: its message becomes a dead letter."""
        if segment not in self._flight:
            return
        if len(segment.deliveries) > 1:
            position = self._flight.index(segment)
            del self._flight[position]
            alone = [_Segment([delivery]) for delivery in segment.deliveries]
            for one in reversed(alone):
                self._flight.insert(position, one)
            for one in alone:
                self._handle(one.deliveries[0], self._table.lookup(one.deliveries[0].topic), one.decisions)
                self._commit(one)
        elif segment.decisions.more_than_dead_letters:
            letter = self._dead_letter(segment.deliveries[0], "", error)
            segment.decisions = Decisions(dead_letters=[letter])
            self._commit(segment)
        else:
            self._calm.warning(
                "refused", "the store refuses a dead letter, and is asked again: %s", rejection.sentence(error)
            )
            asyncio.get_running_loop().call_later(_REFUSED_RETRY_SECONDS, self._commit, segment)

    # 4. acknowledged

    def _land(self, segment: _Segment) -> None:
        segment.committed = True
        landed: list[Delivery] = []
        flight = self._flight
        while flight and flight[0].committed:
            first = flight.popleft()
            self._flying_bytes -= first.payload_bytes
            landed += first.deliveries
        if landed:
            self._flying -= len(landed)
            self.landed += len(landed)
            self._session.ack(landed)
            failpoint("intake.acked")
            self._metrics.latency.observe_since([each.received_at for each in landed], self.clock.now())
            self._landing.set()

    async def _next_landing(self) -> None:
        """Return when something more was acknowledged, or let go."""
        self._landing.clear()
        await self._landing.wait()

    def _let_go(self) -> None:
        """edgeq is ending: what isn't acknowledged comes again."""
        if self._flying:
            self.log.warning("%d messages are left as they are; the broker sends them again", self._flying)
        self._flight.clear()
        self._flying = self._flying_bytes = 0
        self._landing.set()
