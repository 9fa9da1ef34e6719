"""A store, a clock and a Sentinel at work, without its runner. Times are seconds after NOON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from edgeq.contracts.link import Link
from edgeq.contracts.turn import IN_FLIGHT_SECONDS
from edgeq.events import Event, NewEvent, to_json
from edgeq.processors.processor import ProcessorContext
from edgeq.processors.sentinel import Sentinel
from edgeq.store import contract_states, events
from edgeq.store.decisions import count, record
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.clock import NOON, FakeClock

from .contracts import contracts_of, micro
from .stores import Database

SOON = IN_FLIGHT_SECONDS + 1e-6


class FakeLink:
    """A link that is as a test says. Times are seconds after NOON."""

    def __init__(self, settled: float | None) -> None:
        self.settled = settled

    def settled_at(self) -> int | None:
        """See Link."""
        return None if self.settled is None else micro(self.settled)


class Bench:
    """A store, a clock and a Sentinel at work, without its runner."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.metrics = Metrics()
        self.position = 0

    async def start(self, *mappings: dict[str, Any], link: Link | None = None) -> Bench:
        """A new Sentinel takes over."""
        self.sentinel = Sentinel(contracts_of(*mappings), self.metrics, self.clock, link)
        await self.sentinel.opened(self.store, self.position)
        assert self.sentinel.due_at() == self.clock.now()
        if not any(map(self.sentinel.filter_item, await events.after(self.store, self.position, 1000))):
            await self.on_time()
        return self

    async def at(self, seconds: float) -> Bench:
        """Let it become that many seconds after NOON, and what is due by then happen."""
        self.clock.advance(seconds - (self.clock.now() - NOON) / 1e6)
        due = self.sentinel.due_at()
        if due is not None and due <= self.clock.now():
            await self.on_time()
        return self

    async def hear(self, type: str = "reading", *, occurred: float | None = None, **rest: Any) -> Bench:  # noqa: A002
        """Record an event now, and have everything processed that waits."""
        await self.miss(type, occurred=occurred, **rest)
        return await self.catch_up()

    async def miss(
        self,
        type: str = "reading",  # noqa: A002
        *,
        occurred: float | None = None,
        subject: str = "a",
        value: Any = 0,
    ) -> Bench:
        """Record an event now that waits to be processed."""
        now = self.clock.now()
        at = now if occurred is None else micro(occurred)
        new = NewEvent(type, subject=subject, occurred_at=at, recorded_at=now, data_json=to_json({"value": value}))
        await self.store.write(lambda tx: events.append(tx, [new]))
        return self

    async def catch_up(self) -> Bench:
        """Process what waits."""
        batch = await events.after(self.store, self.position, 1000)
        wanted = [each for each in batch if self.sentinel.filter_item(each)]
        ctx = self._context()
        if wanted:
            counted = self.metrics.skipped.total()
            await self.sentinel.process_batch(wanted, ctx)
            assert self.metrics.skipped.total() == counted, "nothing is committed yet"
        count(self.metrics, ctx.decisions, await self.store.write(lambda tx: record(tx, ctx.decisions)))
        self.position = batch[-1].id
        return self

    async def told(self) -> list[Event]:
        """The verdicts so far."""
        found = await events.after(self.store, 0, 1000)
        return [each for each in found if each.type.startswith("contract.")]

    async def words(self) -> list[str]:
        """The verdicts so far, in words."""
        return [each.description for each in await self.told()]

    async def states(self) -> list[tuple[str, str, str]]:
        """What stands in the table."""
        return [(each.contract, each.subject, each.state) for each in await contract_states.every(self.store)]

    async def on_time(self) -> None:
        ctx = self._context()
        await self.sentinel.on_time(ctx)
        count(self.metrics, ctx.decisions, await self.store.write(lambda tx: record(tx, ctx.decisions)))

    def _context(self) -> ProcessorContext:
        return ProcessorContext(self.clock, cause_id=None, idempotency_key="", attempt=1)


@asynccontextmanager
async def watching(database: Database) -> AsyncIterator[Bench]:
    """A bench on a store of its own."""
    clock = FakeClock(NOON)
    async with database.opened(clock=clock) as store:
        yield Bench(store, clock)
