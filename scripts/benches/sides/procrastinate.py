"""procrastinate as its documents have it: the connector for psycopg, with jobs dispatched by its synchronous half,
which is the quicker one, and a worker that runs coroutines."""

from __future__ import annotations

import asyncio
import logging
import time

import procrastinate

from . import HOW, Side


class Procrastinate(Side):
    """Its worker claims and completes each job by itself, and leaves the finished ones in their table. As it is slow at
    that, a fifth of what is asked for is dispatched in bulk."""

    name = "procrastinate"

    def __init__(self, url: str, concurrency: int) -> None:
        logging.getLogger("procrastinate").setLevel(logging.ERROR)
        self._concurrency = concurrency
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, max_size=10))
        self._task = self._app.task(name="nothing")(nothing)
        self._app.open()
        self._app.schema_manager.apply_schema()

    def dispatch(self, count: int) -> None:
        """See Side."""
        for _ in range(count):
            self._task.defer(**HOW)

    def dispatch_many(self, count: int) -> int:
        """See Side."""
        self._task.batch_defer(*([HOW] * (count // 5)))
        return count // 5

    def run(self, count: int) -> float:
        """See Side."""
        return asyncio.run(self._run())

    async def _run(self) -> float:
        async with self._app.open_async():
            began = time.perf_counter()
            await self._app.run_worker_async(
                wait=False, concurrency=self._concurrency, install_signal_handlers=False, listen_notify=False
            )
            taken = time.perf_counter() - began
        self._app.open()
        assert not list(self._app.job_manager.list_jobs(status="todo"))
        return taken

    def close(self) -> None:
        """See Side."""
        self._app.close()


async def nothing(number: int, name: str) -> None:
    """What there is to do."""
