"""For the tests of workers: a store, workers on it, and gates at which jobs wait for the test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from edgeq.clock import Clock
from edgeq.config.schema import Queue
from edgeq.jobs.job import Job
from edgeq.jobs.worker import Worker
from edgeq.store import dead_letters, events, jobs
from edgeq.store.jobs import NewJob, StoredJob
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

from .stores import Database

DEADLINE_SECONDS = 120.0


class Bench:
    """A store, a worker, and ways to see what happens."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.metrics = Metrics()
        self.store = database.store(metrics=self.metrics, clock=clock)
        self.workers: list[Worker] = []

    async def work(
        self,
        queue: str = "default",
        *,
        concurrency: int = 2,
        lease: float = 60.0,
        settings: Mapping[str, Any] = {},
        **named: Any,
    ) -> Worker:
        """A worker, started. `settings` are further ones of the queue, `named` go to the worker."""
        how = Queue(concurrency=concurrency, lease=Duration(lease), **settings)
        worker = Worker(queue, how, self.store, metrics=self.metrics, clock=self.clock, owner="bench", **named)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def dispatch(self, *made: Job | NewJob, after: float = 0.0) -> None:
        now = self.clock.now()
        rows = [
            job if isinstance(job, NewJob) else job.new_job(now=now, run_at=now + round(after * 1e6)) for job in made
        ]
        await self.store.write(lambda tx: jobs.add(tx, rows))

    async def job(self, job_id: int = 1) -> StoredJob:
        job = await jobs.one(self.store, job_id)
        assert job is not None
        return job

    async def until_state(self, state: str, job_id: int = 1, *, attempt: int = 0) -> StoredJob:
        found: list[StoredJob] = []

        async def reached() -> bool:
            job = await self.job(job_id)
            found[:] = [job] if job.state == state and (not attempt or job.attempt == attempt) else []
            return bool(found)

        await until(reached)
        return found[0]

    async def counted(self, outcomes: Mapping[str, int]) -> None:
        """Wait until that is what was counted; which comes a little later than what the store shows."""
        await until(lambda: self.metrics.jobs.values == outcomes)

    async def events(self) -> list[str]:
        return [event.type for event in await events.after(self.store, 0, 1000)]

    async def letters(self) -> list[tuple[str, str]]:
        return [(letter.reason, letter.error) for letter in await dead_letters.find(self.store, limit=100)]

    def wake(self) -> None:
        """What a commit of somebody else does."""
        self.store.signal.fire(["jobs"])


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what must come, or fail."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def bench_on(database: Database, clock: Clock) -> AsyncIterator[Bench]:
    bench = Bench(database, clock)
    await bench.store.open()
    Gate.reset()
    try:
        if database.kind == "postgresql":  # everybody is woken once when it begins to hear of what others commit
            assert await bench.store.signal.wait("jobs", 0, DEADLINE_SECONDS)
        yield bench
    finally:
        Gate.open_all()
        for worker in bench.workers:
            await worker.stop(5.0)
        await bench.store.close()


class Gate:
    """Lets handlers, async and in threads, wait for the test."""

    entered: list[int]
    cancelled: list[int]
    ticks: asyncio.Queue[None]
    _async: asyncio.Event
    _thread: threading.Event

    @classmethod
    def reset(cls) -> None:
        cls.entered, cls.cancelled = [], []
        cls.ticks = asyncio.Queue()
        cls._async, cls._thread = asyncio.Event(), threading.Event()

    @classmethod
    def open_all(cls) -> None:
        cls._async.set()
        cls._thread.set()

    @classmethod
    def is_open(cls) -> bool:
        return cls._async.is_set()

    @classmethod
    async def wait(cls, number: int) -> None:
        cls.entered.append(number)
        try:
            await cls._async.wait()
        except asyncio.CancelledError:
            cls.cancelled.append(number)
            raise

    @classmethod
    def wait_in_thread(cls, number: int) -> None:
        cls.entered.append(number)
        cls._thread.wait(DEADLINE_SECONDS)
