"""A store with processors on it, for tests."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.config.schema import OnError
from edgeq.events import Event, NewEvent
from edgeq.processors.processor import ProcessorContext, QueueProcessor
from edgeq.processors.runner import ProcessorRunner
from edgeq.processors.settings import ProcessorSettings
from edgeq.store import events
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until
from edgeq.units import Duration

from .stores import Database

Handle = Callable[[Event, ProcessorContext], Awaitable[None]]


class Recorder(QueueProcessor):
    """Notes what it is given, in order, and does what the test says; by default it emits one `out` for each event."""

    types = ("in.*",)

    def __init__(self, handle: Handle | None = None) -> None:
        self.seen: list[int] = []
        self.opened_at: list[int] = []
        self.contexts: list[ProcessorContext] = []
        self._handle = handle or emit_out

    async def opened(self, store: Any, last_consumed_id: int) -> None:
        self.opened_at.append(last_consumed_id)

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        self.seen.append(event.id)
        self.contexts.append(ctx)
        await self._handle(event, ctx)


class Together(Recorder):
    """Takes many at once, and notes each batch."""

    def __init__(self, handle: Handle | None = None) -> None:
        super().__init__(handle)
        self.batches: list[list[int]] = []

    async def process_batch(self, events: Sequence[Event], ctx: ProcessorContext) -> None:
        self.batches.append([event.id for event in events])
        for event in events:
            await self.process_item(event, ctx)


async def emit_out(event: Event, ctx: ProcessorContext) -> None:
    ctx.emit("out", data={"of": event.id})


async def nothing(event: Event, ctx: ProcessorContext) -> None:
    """Decides nothing."""


@asynccontextmanager
async def writer_blocked(store: Store) -> AsyncIterator[None]:
    """The writer waits inside a unit; what is handed over meanwhile gathers behind it."""
    gate = threading.Event()
    future = store.submit(lambda tx: gate.wait())
    try:
        yield
    finally:
        gate.set()
        await future


class Bench:
    """A store on `database` and processors that run on it, for `async with`."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self.database = database
        self.clock = clock or Clock()
        self.metrics = Metrics()
        self.store = self._make_store()
        self.runners: list[ProcessorRunner] = []

    def _make_store(self) -> Store:
        return self.database.store(metrics=self.metrics, clock=self.clock)

    async def __aenter__(self) -> Bench:
        await self.store.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def add(self, *types: str, subject: str = "", tags: tuple[str, ...] = ()) -> list[int]:
        """Store one event of each type in one commit; their ids."""
        now = self.clock.now()
        new = [NewEvent(name, subject=subject, tags=tags, occurred_at=now, recorded_at=now) for name in types]
        await self.store.write(lambda tx: events.append(tx, new))
        head = await events.head(self.store)
        return list(range(head - len(types) + 1, head + 1))

    def runner(self, name: str, processor: QueueProcessor, **keys: Any) -> ProcessorRunner:
        """A runner that starts at the beginning, and that only the signal wakes unless a `poll_interval` is given."""
        if "attempts" in keys or "then" in keys:
            keys["on_error"] = OnError(
                attempts=keys.pop("attempts", 3),
                backoff=Backoff(10.0, 40.0, jitter=0.0),
                then=keys.pop("then", "dead_letter"),
            )
        keys = {"start": "beginning", "poll_interval": Duration(3600), **keys}
        runner = ProcessorRunner(name, processor, ProcessorSettings(**keys), self.store, self.metrics, self.clock)
        self.runners.append(runner)
        return runner

    async def run(self, name: str, processor: QueueProcessor, **keys: Any) -> ProcessorRunner:
        """A runner that has started and has nothing left to do, or is stuck."""
        runner = self.runner(name, processor, **keys)
        await runner.start()
        await self.settled(runner)
        return runner

    async def settled(self, runner: ProcessorRunner) -> None:
        """Wait until `runner` has come to the head, or is held up."""

        async def there() -> bool:
            if runner.state in ("paused", "retrying", "halted"):
                return True
            return runner.state == "running" and runner.position >= await events.head(self.store)

        await until(there, f"{runner.name} to settle", store=self.store)

    def pass_time(self, seconds: float) -> None:
        """Let the fake clock run, and have everybody look at it."""
        assert isinstance(self.clock, FakeClock)
        self.clock.advance(seconds)
        self.store.signal.fire(["events"])

    async def reopen(self) -> None:
        """Restart: stop everything, close the store, open it again."""
        await self.close()
        self.runners.clear()
        self.store = self._make_store()
        await self.store.open()

    async def close(self) -> None:
        """Stop everything."""
        for runner in self.runners:
            await runner.stop()
        await self.store.close()
