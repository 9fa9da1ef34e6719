"""Claims that are no longer ours although their jobs run: cancelled by somebody, or taken over by another worker.

A cancellation is noticed as soon as it is committed, the rest when leases are extended, or when an end is refused. The
job is stopped; what it makes of that is void.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from ..errors import StoreError
from ..store import claims, jobs
from ..store.jobs import StoredJob
from ..store.store import Store
from ..telemetry.metrics import Metrics
from .attempt import Attempt
from .attempts import Attempts


class Losses:
    """Sees to those among `attempts`. `changed` is called when it is worth while to `look` again."""

    def __init__(
        self, attempts: Attempts, store: Store, metrics: Metrics, log: logging.Logger, changed: Callable[[], None]
    ) -> None:
        self._attempts = attempts
        self._store = store
        self._metrics = metrics
        self._log = log
        self._changed = changed
        self._version = 0
        self._looking = False
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Look whether running jobs were cancelled, if any job was since the last time."""
        version = self._store.signal.version("cancelled")
        if version != self._version and not self._looking and self._attempts.running:
            self._version = version
            self._looking = True
            self._do(self._look(list(self._attempts.running)))

    def note(self, attempts: Sequence[Attempt]) -> None:
        """The claims of these are lost."""
        lost = [attempt for attempt in attempts if attempt.fate != "lost"]
        if lost:
            self._attempts.abandon(lost, "lost")
            self._do(self._tell([attempt.job for attempt in lost]))

    def close(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()

    def _do(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, held: Sequence[Attempt]) -> None:
        try:
            lost = await claims.lost(self._store, [attempt.job for attempt in held])
            self.note([attempt for attempt in held if attempt.job.id in lost and attempt in self._attempts.running])
        except StoreError as error:  # the next extension of the leases will show it
            self._log.debug("could not look for cancelled jobs: %s", error)
        finally:
            self._looking = False
            self._changed()

    async def _tell(self, lost: Sequence[StoredJob]) -> None:
        for job in lost:
            try:
                there = await jobs.one(self._store, job.id)
            except StoreError:
                there = None
            if there is not None and there.state == "cancelled":
                self._metrics.jobs.add(1, "cancelled")
                self._log.info("job %d (%s) was cancelled while it ran", job.id, job.kind)
            else:
                self._metrics.jobs.add(1, "lease_lost")
                self._log.warning("job %d (%s) was taken over; what became of it here is void", job.id, job.kind)
