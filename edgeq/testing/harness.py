"""An appliance without a broker, for the tests of an app: its real routes, processors, contracts and jobs.

    async with Harness("edgeq.yaml") as edgeq:
        await edgeq.publish("sensors/oven/temperature", {"value": 31})
        await edgeq.settle()
        assert await edgeq.events("fan.switched")

The store is a real one, in a scratch folder. Channels send nothing: what the courier queued can be read with
`notifications`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..clock import Clock
from ..config.load import load_to_plan
from ..errors import EdgeqError
from ..events import Event, to_json
from ..intake.intake import Intake
from ..jobs.worker import Worker
from ..mqtt.delivery import Delivery
from ..mqtt.inbox import Inbox
from ..plan import make_plan
from ..processors.runner import ProcessorRunner
from ..store import dead_letters, events, notifications
from ..store.dead_letters import DeadLetter
from ..store.notifications import StoredNotification
from ..store.sqlite import SqliteStore
from ..telemetry.metrics import Metrics
from .jobs import JobTable
from .waiting import until

_LIMIT = 10_000


class FakeSession:
    """Counts what is acknowledged, in order, in `acked`."""

    def __init__(self) -> None:
        self.acked: list[Delivery] = []

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """See Session.ack."""
        self.acked += deliveries
        return len(deliveries)


class Harness(JobTable):
    """The appliance that the configuration file `path` describes. Raises ConfigError when it is wrong.

    `metrics` are its counters, `session` has what was acknowledged. Jobs are run as they become ready; nothing leaves
    for a site.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.metrics = Metrics()
        self.session = FakeSession()
        loaded = load_to_plan(os.fspath(path), overrides={"store.url": "edgeq.db"})  # the app's own may not fit here
        plan = make_plan(loaded, publish=_nowhere, clock=self.clock, metrics=self.metrics)
        self._folder = tempfile.TemporaryDirectory(prefix="edgeq-test-")
        self.store = SqliteStore(
            str(Path(self._folder.name) / "edgeq.db"), metrics=self.metrics, clock=self.clock, durability="normal"
        )
        self._inbox = Inbox()
        self._intake = Intake(plan.table, self._inbox, self.session, self.store, self.metrics, self.clock, window=1000)
        self._runners = [
            ProcessorRunner(name, processor.make(None), processor.settings, self.store, self.metrics, self.clock)
            for name, processor in plan.processors.items()
            if not processor.outward
        ]
        self._workers = [
            Worker(name, settings, self.store, metrics=self.metrics, clock=self.clock, owner="test")
            for name, settings in loaded.config.jobs.queues.items()
        ]
        self._published = 0

    async def __aenter__(self) -> Harness:
        """Start everything."""
        await self.store.open()
        for service in (*self._runners, *self._workers, self._intake):
            await service.start()
        await until(lambda: all(runner.state != "stopped" for runner in self._runners), "the processors to start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything and remove the scratch folder."""
        self._inbox.close()
        for service in (self._intake, *self._runners, *self._workers):
            await service.stop()
        await self.store.close()
        self._folder.cleanup()

    async def publish(self, topic: str, payload: Any, *, retain: bool = False) -> None:
        """Have a message arrive, and return when it is acknowledged. `payload`: bytes and text go as they are, anything
        else as JSON."""
        if isinstance(payload, str):
            payload = payload.encode()
        elif not isinstance(payload, bytes):
            payload = to_json(payload).encode()
        self._published += 1
        wanted = self._published
        self._inbox.put(
            [Delivery(topic, payload, received_at=self.clock.now(), retain=retain, mid=wanted, connection=1)]
        )
        await until(lambda: len(self.session.acked) >= wanted, "the acknowledgement", store=self.store)

    async def settle(self) -> None:
        """Return when every processor has seen every event and no job is left that could run now."""
        await until(self._settled, "processors and jobs to finish", store=self.store, deadline_seconds=30.0)

    async def events(self, type_pattern: str = "") -> list[Event]:
        """The stored events, oldest first; only of types that fit, where `*` stands for any text."""
        return await events.recent(self.store, limit=_LIMIT, type_pattern=type_pattern)

    async def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, newest first."""
        return await dead_letters.find(self.store, limit=_LIMIT)

    async def notifications(self) -> list[StoredNotification]:
        """What the courier has queued, newest first."""
        return await notifications.find(self.store, limit=_LIMIT)

    async def _settled(self) -> bool:
        ended = self.metrics.jobs.total()
        if not all(worker.idle for worker in self._workers):
            return False
        head = await events.head(self.store)  # with what the jobs have emitted
        if any(runner.position < head or not runner.settled for runner in self._runners):
            return False
        return all(worker.idle for worker in self._workers) and self.metrics.jobs.total() == ended


async def _nowhere(*args: Any, **options: Any) -> None:
    raise EdgeqError("a test's channels send nothing")
