"""The way of a message, here and nowhere else: received, handled, committed, acknowledged.

1. *received*: taken from the inbox, in order of arrival, as many at once as wait there.
2. *handled*: every route that matches runs; what its controllers decide is gathered. What can't be handled becomes a
   dead letter, which is a decision too (G3). Built-in controllers run on the spot; one's own run as tasks, those of
   one topic one after the other, and don't hold up what came behind them.
3. *committed*: all that is decided goes to the store in one unit. While it can't be written, nothing is acknowledged.
4. *acknowledged*: in order of arrival (MQTT 5, 4.6), as soon as a delivery and all before it are committed.

Between 1 and 4 there are at most `window` deliveries; when there are, nothing more is taken from the inbox.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..clock import Clock
from ..errors import EdgeqError, RejectedMessage, StoreUnavailable
from ..failpoints import failpoint
from ..mqtt.delivery import Delivery
from ..mqtt.inbox import Inbox
from ..service import Service
from ..store.dead_letters import DeadLetter, NewDeadLetter, mark_redriven
from ..store.decisions import Decisions, record
from ..store.store import Store, Tx
from ..telemetry.log import Calm
from ..telemetry.metrics import Metrics
from .context import MessageContext
from .router import CompiledRoute, Match, RouteTable

SOURCE = "intake"

_BATCH_MAX = 500
_THREADS = 4
_PAYLOAD_KEPT_BYTES = 1024 * 1024


class Acknowledges(Protocol):
    """Where deliveries are acknowledged: the session."""

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledge, in this order, those that belong to the present connection; how many did."""


class _Segment:
    """Deliveries that came one after the other and are handled and committed together."""

    __slots__ = ("committed", "decisions", "deliveries")

    def __init__(self, deliveries: list[Delivery], decisions: Decisions) -> None:
        self.deliveries = deliveries
        self.decisions = decisions
        self.committed = False


class Intake(Service):
    """Takes deliveries from `inbox` to acknowledgement. `table` may be replaced while it runs."""

    def __init__(
        self, table: RouteTable, inbox: Inbox, session: Acknowledges, store: Store, metrics: Metrics, clock: Clock,
        *, window: int,
    ) -> None:  # fmt: skip
        super().__init__("intake", clock)
        self.table = table
        self.last_message_at: dict[str, int] = {}
        self._inbox = inbox
        self._session = session
        self._store = store
        self._metrics = metrics
        self._window = window
        self._calm = Calm(self.log, clock.monotonic)
        self._flight: deque[_Segment] = deque()
        self._flying = 0
        self._landed = asyncio.Event()
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None

    async def run(self) -> None:
        """Works until the inbox is closed and everything taken from it is committed and acknowledged."""
        while True:
            while self._flying >= self._window:
                self._landed.clear()
                await self._landed.wait()
            batch = await self._inbox.get_batch(min(_BATCH_MAX, self._window - self._flying))
            if not batch:
                break
            failpoint("intake.received")
            self._take(batch)
        while self._flight:
            self._landed.clear()
            await self._landed.wait()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        self.stopping.set()

    def in_flight(self) -> int:
        """How many deliveries are taken and not yet acknowledged."""
        return self._flying

    async def redrive(self, letter: DeadLetter) -> None:
        """Handle a dead letter's message again, and commit what comes of it with the mark that it was redriven.

        Raises EdgeqError when it fails again; the letter stays as it was.
        """
        if letter.topic is None or letter.payload is None:
            raise EdgeqError("this dead letter holds no message")
        delivery = Delivery(letter.topic, letter.payload, received_at=letter.created_at, qos=0)
        size = letter.detail.get("payload_size", 0)
        if size > len(letter.payload):
            raise EdgeqError(f"only {len(letter.payload)} of the message's {size} bytes were kept")
        wanted = letter.detail.get("route")
        matches = self.table.lookup(letter.topic)
        matches = tuple(match for match in matches if match[0].label == wanted) or matches
        if not matches:
            raise EdgeqError(f"no route takes the topic {letter.topic!r}", hint="add a route, or discard it")
        decisions = Decisions()
        for route, params in matches:
            ctx = MessageContext(self.clock, delivery, route.label, params, route.payload)
            try:
                await self._run_route(ctx, route)
            except Exception as error:
                raise EdgeqError(f"route {route.label!r} failed again: {_sentence(error)}") from error
            decisions.extend(ctx.decisions)

        def unit(tx: Tx) -> None:
            if mark_redriven(tx, letter.id, self.clock.now()):
                record(tx, decisions)

        await self._store.write(unit)

    # 2. handled

    def _take(self, batch: list[Delivery]) -> None:
        """Handle what can be handled on the spot, start a task for each of the rest; commit."""
        self._flying += len(batch)
        table = self.table
        together: list[Delivery] = []
        decisions = Decisions()
        for delivery in batch:
            matches = table.lookup(delivery.topic)
            if any(route.own is not None for route, _ in matches) or delivery.topic in self._tails:
                if together:
                    self._commit(self._segment(together, decisions))
                    together, decisions = [], Decisions()
                self._start_task(self._segment([delivery], Decisions()), matches)
                continue
            together.append(delivery)
            if not matches:
                self._metrics.dropped.add(1, "unrouted")
            for route, params in matches:
                self._handle_inline(delivery, route, params, decisions)
        if together:
            self._commit(self._segment(together, decisions))

    def _segment(self, deliveries: list[Delivery], decisions: Decisions) -> _Segment:
        segment = _Segment(deliveries, decisions)
        self._flight.append(segment)
        return segment

    def _handle_inline(
        self, delivery: Delivery, route: CompiledRoute, params: Mapping[str, Any], decisions: Decisions
    ) -> None:
        ctx = MessageContext(self.clock, delivery, route.label, params, route.payload)
        try:
            if self._admit(ctx, route, decisions):
                for controller in route.inline:
                    controller(ctx)
        except Exception as error:  # noqa: BLE001 - G3: whatever it is, the message becomes a dead letter
            decisions.dead_letters.append(self._dead_letter(delivery, route.label, error))
        else:
            decisions.extend(ctx.decisions)

    def _start_task(self, segment: _Segment, matches: tuple[Match, ...]) -> None:
        topic = segment.deliveries[0].topic
        before = self._tails.get(topic)
        task = asyncio.create_task(self._handle_own(segment, matches, before), name=f"intake:{topic}")
        self._tails[topic] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle_own(
        self, segment: _Segment, matches: tuple[Match, ...], before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        delivery = segment.deliveries[0]
        for route, params in matches:
            ctx = MessageContext(self.clock, delivery, route.label, params, route.payload)
            try:
                if self._admit(ctx, route, segment.decisions):
                    await self._run_route(ctx, route)
            except Exception as error:  # noqa: BLE001 - G3
                segment.decisions.dead_letters.append(self._dead_letter(delivery, route.label, error))
            else:
                segment.decisions.extend(ctx.decisions)
        if self._tails.get(delivery.topic) is asyncio.current_task():
            del self._tails[delivery.topic]
        self._commit(segment)

    async def _run_route(self, ctx: MessageContext, route: CompiledRoute) -> None:
        for controller in route.inline:
            controller(ctx)
        if route.own is None:
            return
        try:
            async with asyncio.timeout(route.timeout_seconds):
                if route.own_is_async:
                    await route.own(ctx, **ctx.params)
                else:
                    await asyncio.get_running_loop().run_in_executor(self._pool(), _call, route.own, ctx)
        except TimeoutError:
            raise RejectedMessage("timeout", f"the controller took longer than {route.timeout_seconds:g}s") from None

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="edgeq-controller")
        return self._threads

    def _admit(self, ctx: MessageContext, route: CompiledRoute, decisions: Decisions) -> bool:
        """Whether the route wants this message at all. Raises RejectedMessage for what it must not take."""
        delivery = ctx.delivery
        if delivery.retain and not route.takes_retained:
            self._metrics.dropped.add(1, "retained")
            return False
        if delivery.payload_size > route.payload_bytes_max:
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
        reason = error.reason if isinstance(error, RejectedMessage) else "failed"
        self._calm.warning(
            f"{route} {reason}",
            "a message on %r became a dead letter (%s): %s",
            delivery.topic,
            reason,
            _sentence(error),
        )
        detail: dict[str, Any] = {"route": route, "qos": delivery.qos, "retain": delivery.retain}
        kept = delivery.payload[:_PAYLOAD_KEPT_BYTES]
        if delivery.payload_size > len(kept):
            detail["payload_size"] = delivery.payload_size
        return NewDeadLetter(
            source=SOURCE,
            reason=reason,
            error=_sentence(error) if isinstance(error, RejectedMessage) else _trace(error),
            topic=delivery.topic,
            payload=kept,
            created_at=delivery.received_at,
            detail=detail,
        )

    # 3. committed

    def _commit(self, segment: _Segment) -> None:
        failpoint("intake.handled")
        decisions = segment.decisions
        if not decisions:
            self._land(segment)
            return
        try:
            future = self._store.submit(lambda tx: record(tx, decisions))
        except StoreUnavailable:
            return
        future.add_done_callback(lambda done: self._committed(segment, done))

    def _committed(self, segment: _Segment, done: asyncio.Future[int]) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or isinstance(error, StoreUnavailable):
            self._let_go()  # edgeq is ending: what isn't acknowledged comes again
            return
        if error is not None:
            self._set_aside(segment, error)
            return
        decisions, duplicates = segment.decisions, done.result()
        self._metrics.events.add(len(decisions.events) - duplicates)
        if duplicates:
            self._metrics.duplicates.add(duplicates)
        if decisions.dead_letters:
            self._metrics.dead_letters.add(len(decisions.dead_letters), SOURCE)
        failpoint("intake.committed")
        self._land(segment)

    def _set_aside(self, segment: _Segment, error: BaseException) -> None:
        """The store refuses something in this segment, which no check foresaw: keep its messages as dead letters."""
        if not (segment.decisions.events or segment.decisions.jobs):
            self.log.error("a dead letter can't be stored: %s; its message stays with the broker", _sentence(error))
            return
        letters = [self._dead_letter(delivery, "", error) for delivery in segment.deliveries]
        segment.decisions = Decisions(dead_letters=letters)
        self._commit(segment)

    # 4. acknowledged

    def _land(self, segment: _Segment) -> None:
        segment.committed = True
        landed: list[Delivery] = []
        flight = self._flight
        while flight and flight[0].committed:
            landed += flight.popleft().deliveries
        if landed:
            self._flying -= len(landed)
            self._session.ack(landed)
            failpoint("intake.acked")
            self._landed.set()

    def _let_go(self) -> None:
        self._flight.clear()
        self._flying = 0
        self._landed.set()


def _call(function: Any, ctx: MessageContext) -> None:
    function(ctx, **ctx.params)


def _sentence(error: BaseException) -> str:
    if isinstance(error, EdgeqError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-8000:]
