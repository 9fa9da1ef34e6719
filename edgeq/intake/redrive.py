"""A dead letter's message, handled again because somebody asked for it."""

from __future__ import annotations

from msgspec.structs import replace

from ..clock import Clock
from ..errors import EdgeqError
from ..mqtt.delivery import Delivery
from ..store.dead_letters import DeadLetter, mark_redriven
from ..store.decisions import Decisions, count, record
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics
from . import rejection
from .calls import Calls
from .context import MessageContext
from .table import RouteTable


class MessageRedrive:
    """Handles messages of dead letters by the routes of `table`."""

    def __init__(self, table: RouteTable, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._table = table
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._calls = Calls()

    async def redrive(self, letter: DeadLetter) -> None:
        """Handle its message again, and commit what comes of it with the mark that it was redriven.

        It is handled by the route that failed, or by all that take its topic when there is no such route any more.
        Limits don't count. Raises EdgeqError when it fails again; the letter stays as it was.
        """
        if letter.topic is None or letter.payload is None:
            raise EdgeqError("this dead letter holds no message")
        size = letter.detail.get("payload_size", 0)
        if size > len(letter.payload):
            raise EdgeqError(f"only {len(letter.payload)} of the message's {size} bytes were kept")
        routes = self._table.lookup(letter.topic).routes
        routes = tuple(match for match in routes if match[0].label == letter.detail.get("route")) or routes
        if not routes:
            raise EdgeqError(f"no route takes the topic {letter.topic!r}", hint="add a route, or discard it")
        delivery = Delivery(letter.topic, letter.payload, received_at=letter.created_at, qos=0)
        decisions = Decisions()
        for route, params in routes:
            ctx = MessageContext(self._clock, delivery, route.label, params, route.payload, keep=route.keep)
            try:
                await self._calls.run(route, ctx)
            except Exception as error:
                raise EdgeqError(f"route {route.label!r} failed again: {rejection.sentence(error)}") from error
            decisions.extend(ctx.decisions)
        now = self._clock.now()
        decisions.events = [replace(event, recorded_at=now) for event in decisions.events]

        def unit(tx: Tx) -> int | None:
            return record(tx, decisions) if mark_redriven(tx, letter.id, now) else None

        duplicates = await self._store.write(unit)
        if duplicates is not None:
            count(self._metrics, decisions, duplicates)

    def close(self) -> None:
        """End the threads of controllers."""
        self._calls.close()
