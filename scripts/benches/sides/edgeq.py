"""edgeq: jobs from an ordinary program by `Queue`, and one `Worker`."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

from edgeq import Job, Queue
from edgeq.clock import Clock
from edgeq.config.schema import Config
from edgeq.config.schema import Queue as QueueSettings
from edgeq.config.schema import Store as StoreSettings
from edgeq.jobs.worker import Worker
from edgeq.store import jobs
from edgeq.store.opening import make_store
from edgeq.telemetry.metrics import Metrics

from . import HOW, Side

begun: dict[int, int] = {}
done = 0


class Nothing(Job):
    """What there is to do."""

    number: int
    name: str

    async def handle(self, ctx: Any) -> None:
        """Nothing."""
        global done
        done += 1


class Threaded(Job):
    """The same without `async`: it runs in a thread."""

    number: int
    name: str

    def handle(self, ctx: Any) -> None:
        """Nothing."""
        global done
        done += 1


class Timed(Job):
    """Says when it has begun."""

    number: int

    async def handle(self, ctx: Any) -> None:
        """Note the time."""
        begun[self.number] = time.monotonic_ns()


class Edgeq(Side):
    """Its worker claims and completes as many as there are, up to its concurrency, in one commit. Results are kept."""

    name = "edgeq"

    def __init__(self, url: str, concurrency: int) -> None:
        self.url, self.concurrency = url, concurrency
        self.queue = Queue(url)

    def dispatch(self, count: int) -> None:
        """See Side."""
        for _ in range(count):
            self.queue.dispatch(Nothing(**HOW))

    def dispatch_many(self, count: int, kind: type[Job] = Nothing) -> int:
        """See Side."""
        self.queue.dispatch_many(kind(**HOW) for _ in range(count))
        return count

    def run(self, count: int) -> float:
        """See Side."""
        return asyncio.run(self._run(count))

    async def _run(self, count: int) -> float:
        global done
        done = 0
        async with Running(self.url, self.concurrency) as running:
            began = time.perf_counter()
            await running.worker.start()
            while done < count:  # noqa: ASYNC110 - counting is no event
                await asyncio.sleep(0.002)
            await running.worker.stop()
            taken = time.perf_counter() - began
            assert not await running.unfinished()
            return taken

    def close(self) -> None:
        """See Side."""
        self.queue.close()


class Running:
    """A store and one worker on it, which is to be started."""

    def __init__(self, url: str, concurrency: int) -> None:
        config = Config(gateway="bench", store=StoreSettings(url=url))
        self.store = make_store(config, "work", metrics=Metrics(), clock=Clock(), make=True)
        self.worker = Worker(
            "default",
            QueueSettings(concurrency=concurrency),
            self.store,
            metrics=Metrics(),
            clock=Clock(),
            owner="bench",
        )

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.stop()
        await self.store.close()

    async def unfinished(self) -> int:
        """How many jobs there still are to do."""
        return sum(row[state] for row in await jobs.counts(self.store, 0) for state in jobs.INCOMPLETE)
