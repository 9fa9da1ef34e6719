"""pgqueuer in the quickest of its documented ways: on asyncpg and uvloop, as its own command line has it, with a pool
for the worker and one connection for what is dispatched."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import Queries, QueueManager
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job

from . import HOW, Side

PAYLOAD = json.dumps(HOW).encode()


class PgQueuer(Side):
    """Its worker claims so many jobs at once, begins all that it has, and completes them in batches of that size."""

    name = "pgqueuer"

    def __init__(self, url: str, concurrency: int) -> None:
        self._url, self._concurrency = url, concurrency
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._connection = self._runner.run(self._connect())
        self._queries = Queries(AsyncpgDriver(self._connection))
        self._runner.run(self._queries.install())

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._url)

    def dispatch(self, count: int) -> None:
        """See Side."""
        self._runner.run(self._dispatch(count))

    async def _dispatch(self, count: int) -> None:
        for _ in range(count):
            await self._queries.enqueue("nothing", PAYLOAD)

    def dispatch_many(self, count: int) -> int:
        """See Side."""
        self._runner.run(self._dispatch_many(count))
        return count

    async def _dispatch_many(self, count: int) -> None:
        await self._queries.enqueue(["nothing"] * count, [PAYLOAD] * count, [0] * count)

    def run(self, count: int) -> float:
        """See Side."""
        return self._runner.run(self._run(count))

    async def _run(self, count: int) -> float:
        done = 0

        async def nothing(job: Job) -> None:
            nonlocal done
            json.loads(job.payload or b"")
            done += 1

        async with asyncpg.create_pool(self._url, min_size=4, max_size=10) as pool:
            manager = QueueManager(Queries(AsyncpgPoolDriver(pool)))
            manager.entrypoint("nothing")(nothing)
            began = time.perf_counter()
            running = asyncio.create_task(
                manager.run(batch_size=self._concurrency, dequeue_timeout=timedelta(seconds=1))
            )
            while done < count:  # noqa: ASYNC110 - counting is no event
                await asyncio.sleep(0.002)
            manager.shutdown.set()
            await running
            taken = time.perf_counter() - began
        assert await self._connection.fetchval("SELECT count(*) FROM pgqueuer") == 0
        return taken

    def close(self) -> None:
        """See Side."""
        self._runner.run(self._connection.close())
        self._runner.close()
