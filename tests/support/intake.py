"""An intake between a session that only notes what is acknowledged and a store on disk."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edgeq.clock import Clock
from edgeq.config.schema import Config, LoadedConfig, Route
from edgeq.errors import Problem
from edgeq.events import Event
from edgeq.intake.intake import Intake
from edgeq.intake.redrive import MessageRedrive
from edgeq.intake.router import Router
from edgeq.intake.table import JobResolver, RouteTable, compile_routes
from edgeq.jobs.job import resolve
from edgeq.mqtt.delivery import Delivery
from edgeq.mqtt.inbox import Inbox
from edgeq.store import dead_letters, events
from edgeq.store.dead_letters import DeadLetter
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import until

from .stores import Database


def table_of(
    routes: Sequence[Route] = (),
    routers: Sequence[Router] = (),
    *,
    clock: Clock | None = None,
    resolve_job: JobResolver = resolve,
) -> RouteTable:
    """The table of routes that are known to be right."""
    problems: list[Problem] = []
    loaded = LoadedConfig(config=Config(routes=list(routes)), files=["edgeq.yaml"], folder="/", places={})
    table = compile_routes(loaded, routers, resolve_job, (clock or Clock()).monotonic, problems)
    assert not problems, problems
    return table


class Acks:
    """Stands for the session: every delivery belongs to its connection."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        self.deliveries += deliveries
        return len(deliveries)

    @property
    def mids(self) -> list[int]:
        return [delivery.mid for delivery in self.deliveries]


class Rig:
    """An intake and what stands around it."""

    def __init__(
        self, database: Database, table: RouteTable, *, window: int = 1000, clock: Clock | None = None
    ) -> None:
        self.database = database
        self.clock = clock or Clock()
        self.metrics = Metrics()
        self.inbox = Inbox()
        self.acks = Acks()
        self.store = database.store(metrics=self.metrics, clock=self.clock)
        self.intake = Intake(table, self.inbox, self.acks, self.store, self.metrics, self.clock, window=window)
        self.redrive = MessageRedrive(table, self.store, self.metrics, self.clock).redrive
        self._mids = itertools.count(1)

    def send(self, topic: str, payload: bytes | str = b"{}", **more: Any) -> int:
        """One message arrives; its packet identifier."""
        return self.send_all([(topic, payload)], **more)[0]

    def send_all(self, messages: Sequence[tuple[str, bytes | str]], **more: Any) -> list[int]:
        """These arrive together."""
        now = self.clock.now()
        deliveries = [
            Delivery(
                topic,
                payload.encode() if isinstance(payload, str) else payload,
                mid=next(self._mids),
                **{"received_at": now, **more},
            )
            for topic, payload in messages
        ]
        self.inbox.put(deliveries)
        return [delivery.mid for delivery in deliveries]

    async def acked(self, *mids: int) -> None:
        """Wait until these are acknowledged."""
        await until(lambda: set(mids) <= set(self.acks.mids), f"the acknowledgement of {mids}", store=self.store)

    async def taken(self) -> None:
        """Wait until the intake has taken all that arrived."""
        await until(lambda: not len(self.inbox), "the inbox to be empty")

    async def events(self) -> list[Event]:
        """Every event."""
        return await events.after(self.store, 0, 100_000)

    async def dead_letters(self) -> list[DeadLetter]:
        """Every dead letter, oldest first."""
        return (await dead_letters.find(self.store, limit=100_000, redriven=None))[::-1]

    @asynccontextmanager
    async def busy_store(self) -> AsyncIterator[Callable[[], None]]:
        """The writer is held up by a unit until the block ends, or the function that it gets is called."""
        import threading

        held, release = threading.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        began = loop.create_future()

        def unit(tx: Any) -> None:
            if not held.is_set():
                held.set()
                loop.call_soon_threadsafe(began.set_result, None)
            assert release.wait(60)

        done = self.store.submit(unit)
        await began
        try:
            yield release.set
        finally:
            release.set()
            await done


@asynccontextmanager
async def running(database: Database, table: RouteTable, **more: Any) -> AsyncIterator[Rig]:
    """A rig whose store is open and whose intake runs; it is drained at the end, unless the block did."""
    rig = Rig(database, table, **more)
    await rig.store.open()
    await rig.intake.start()
    try:
        yield rig
    finally:
        rig.inbox.close()
        await rig.intake.stop()
        await rig.store.close()
