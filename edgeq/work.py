"""`edgeq work`: the workers of some queues in a process of their own, beside an appliance on the same store or alone.

Any number of such processes may work on one store. What they share stands in it: claims and leases, pauses, rates,
limits and breakers. How many jobs run at once is each process's own affair. One that works without an end also deletes
jobs that are older than they are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from msgspec.structs import replace

from .clock import Clock
from .config.schema import Queue
from .errors import EdgeqError
from .hosting import GIVE_UP_SECONDS, settle_process
from .jobs.slots import Slots
from .jobs.worker import Overrides, Worker
from .plan import Plan
from .service import Service
from .store.opening import make_store
from .telemetry.metrics import Metrics
from .telemetry.systemd import Notifier
from .upkeep.retention import Retention
from .workforce import NO_OVERRIDES, make_workers

log = logging.getLogger("edgeq.work")

GRACE_SECONDS = 10.0
_ATTEND_SECONDS = 5.0
_LOOK_SECONDS = 0.25
_PROCESSES_MAX = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """When it ends by itself: after so many jobs, after so many seconds, or (`drain`) when no job can run now."""

    jobs_max: int | None = None
    seconds_max: float | None = None
    drain: bool = False


class Work:
    """Runs the jobs of `queues` (none named: of all that are configured) until `stop()`, or until one of `bounds`.

    A queue that isn't configured has the defaults. `concurrency` takes the place of what is configured: so many jobs at
    once, whatever their queue. `grace_seconds` is what jobs have to end in, when it is to stop.
    """

    def __init__(
        self,
        plan: Plan,
        queues: Sequence[str] = (),
        *,
        clock: Clock | None = None,
        bounds: Bounds | None = None,
        concurrency: int | None = None,
        overrides: Overrides = NO_OVERRIDES,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        config = plan.loaded.config
        self._plan = plan
        self._clock = clock or Clock()
        self._bounds = bounds or Bounds()
        self._overrides = overrides
        self._grace_seconds = grace_seconds
        self.metrics = Metrics()
        self.store = make_store(config, "work", metrics=self.metrics, clock=self._clock, make=True)
        self.queues = {name: self._settings(name, concurrency) for name in queues or config.jobs.queues}
        self.slots = Slots(concurrency or config.jobs.concurrency, self._bounds.jobs_max)
        self.workers: dict[str, Worker] = {}
        self.sources: list[Service] = []
        self.retention = Retention(config.store.retention, self.store, self._clock, self.metrics)
        self._notifier = Notifier.from_environ(os.environ)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def _settings(self, name: str, concurrency: int | None) -> Queue:
        configured = self._plan.loaded.config.jobs.queues.get(name)
        if configured is None:
            log.warning("no queue is called %r in the configuration: it has the defaults", name)
        settings = configured or Queue()
        if concurrency is None:
            return settings
        processes = min(concurrency, _PROCESSES_MAX) if settings.isolation == "process" else settings.processes
        return replace(settings, concurrency=concurrency, processes=processes)

    def stop(self) -> None:
        """Claim nothing more, let jobs end within the grace, give back the rest, and end. Called again: give back at
        once. Returns at once; `run` returns when it is done."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> None:
        """Work. Raises StoreError when the store can't be opened, or can't be used any more."""
        settle_process()
        attending = asyncio.create_task(self._attend())
        try:
            await self.store.open()
            for warning in (*self._plan.warnings, *await self.store.warnings()):
                log.warning("%s", warning)
            self.workers = make_workers(
                self._plan, self.queues, self.store, self.metrics, self._clock,
                slots=self.slots, overrides=self._overrides,
            )  # fmt: skip
            await self._start_sources()
            for worker in self.workers.values():
                await worker.start()
            if self._bounds == Bounds():
                await self.retention.start()
            self._notifier.ready()
            log.info("working on %s", ", ".join(self.workers))
            await self._until_done()
        finally:
            self._notifier.stopping()
            services = (*self.sources, self.retention)
            await asyncio.gather(self._stop_workers(), *(each.stop(self._grace_seconds) for each in services))
            await self.store.close()
            attending.cancel()
        if (error := self.store.fault) is not None:
            raise error
        log.info("stopped, having ended %d attempts at jobs", self.metrics.jobs.total())

    async def _start_sources(self) -> None:
        """Have sources asked whenever their queue runs low; or once, before a drain."""
        if not self._plan.sources:
            return
        from .jobs.sources.runner import make_source_runners  # who has none doesn't pay for it

        sources = make_source_runners(self._plan.sources, self.queues, self.store, self._clock, self.metrics)
        if self._bounds.drain:
            await asyncio.gather(*(source.look() for source in sources))
            return
        self.sources += sources
        for source in self.sources:
            await source.start()

    async def _until_done(self) -> None:
        """Return when it is to end, for whatever reason."""
        ends: list[Coroutine[Any, Any, object]] = [self._stop.wait(), self.slots.spent.wait()]
        if self._bounds.drain:
            ends.append(self._drained())
        waiting = [asyncio.ensure_future(end) for end in ends]
        done, rest = await asyncio.wait(waiting, timeout=self._bounds.seconds_max, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        for task in done:
            task.result()
        running = sum(len(worker.running) for worker in self.workers.values())
        if running:
            log.info("stopping: %d jobs that run have up to %gs to end", running, self._grace_seconds)

    async def _drained(self) -> None:
        """Return when no job of these queues can run now, here or because of one that runs here.

        Raises EdgeqError when there may be some, but a queue is stuck.
        """
        woken = asyncio.Event()
        with self.store.signal.watch(woken, "jobs"):
            while not all(worker.idle or worker.stuck or worker.crashes for worker in self.workers.values()):
                woken.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), _LOOK_SECONDS)
        if stuck := [name for name, worker in self.workers.items() if worker.stuck or worker.crashes]:
            raise EdgeqError(f"jobs of {', '.join(stuck)} can't be run now", hint="the log above says why")

    async def _stop_workers(self) -> None:
        workers = self.workers.values()
        seconds = self._grace_seconds if self.store.fault is None else GIVE_UP_SECONDS
        ends = (worker.stop(0.0 if worker.stuck else seconds) for worker in workers)
        calmly = asyncio.ensure_future(asyncio.gather(*ends))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((calmly, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not calmly.done():
            log.info("what runs is given back now")
            await asyncio.gather(*(worker.stop(0.0) for worker in workers))
        await calmly

    async def _attend(self) -> None:
        """Again and again: feed the watchdog, tell systemd how it stands, look after the store."""
        limit = self._notifier.watchdog_interval_seconds or inf
        while True:
            self._notifier.watchdog()
            running = sum(len(worker.running) for worker in self.workers.values())
            store = "" if self.store.health.ok else f"store: {self.store.health.reason}; "
            self._notifier.status(f"{store}{running} jobs run, {self.metrics.jobs.total()} attempts ended")
            if self.store.fault is not None:
                self.stop()
            await asyncio.sleep(min(_ATTEND_SECONDS, limit / 2))
