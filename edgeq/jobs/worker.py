"""A queue's worker: claims as many jobs as it has room for, runs them, and keeps their leases alive.

It wakes when a job is dispatched, becomes due or ends, and when a lease must be extended or has ended; in between it
does nothing at all (G9).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from math import inf

from ..clock import Clock
from ..config.schema import Queue
from ..errors import StoreUnavailable
from ..failpoints import failpoint
from ..service import Service
from ..store import claims, jobs
from ..store.claims import Outlook, Rescued
from ..store.jobs import StoredJob
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics
from .attempt import Attempt, Returned
from .job import Registry, registry

NET_SECONDS = 30.0
RELEASE_SECONDS = 5.0
_RESCUED_AT_ONCE = 100


class Worker(Service):
    """Runs the jobs of `queue`, `settings.concurrency` at once, each under a lease of `settings.lease`.

    `owner` is what the leases say, for people to read. Only job classes in `registry` are run. The lease of a job that
    runs is extended every third of it; if that comes too late and another worker has taken the job, what this one makes
    of it is refused by the store (G7).
    """

    def __init__(
        self,
        queue: str,
        settings: Queue,
        store: Store,
        *,
        metrics: Metrics,
        clock: Clock,
        owner: str,
        registry: Registry = registry,
    ) -> None:
        super().__init__(f"worker.{queue}", clock)
        self.queue = queue
        self.settings = settings
        self._store = store
        self._metrics = metrics
        self._owner = owner
        self._registry = registry
        self._lease_seconds = float(settings.lease)
        self._running: dict[Attempt, asyncio.Task[None]] = {}
        self._overdue: set[Returned] = set()
        self._extended_at = 0.0
        self._woken = asyncio.Event()

    @property
    def running(self) -> list[StoredJob]:
        """The jobs that are being run now."""
        return [attempt.job for attempt in self._running]

    @property
    def overdue_threads(self) -> int:
        """Threads of attempts that are over (timed out, lost, given back), and which haven't returned: each takes up
        one of the queue's `concurrency`."""
        return len(self._overdue)

    @property
    def free(self) -> int:
        """How many more jobs there is room for."""
        return max(0, self.settings.concurrency - len(self._running) - len(self._overdue))

    async def run(self) -> None:
        """Works until it is stopped and the last job it runs has ended."""
        with self._store.signal.watch(self._woken, "jobs"):
            while self._running or not self.stopping.is_set():
                self._woken.clear()
                seconds = await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._woken.wait()

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Claim nothing more, let what runs finish within `grace_seconds`, cancel the rest and give it back: its
        attempt doesn't count. Safe to call twice."""
        self.stopping.set()
        self._woken.set()
        await self._wait_for_running(grace_seconds)
        rest = [attempt for attempt in self._running if attempt.handling]
        self._abandon(rest)
        await self._wait_for_running(RELEASE_SECONDS)
        for attempt, task in self._running.items():
            self.log.error("job %d (%s) could not be ended", attempt.job.id, attempt.job.kind)
            task.cancel()
        if rest:
            await self._release(rest)
        await super().stop(RELEASE_SECONDS)

    # What there is to do

    async def _look(self) -> float:
        """Do what can be done now; for how many seconds there is nothing else to do unless something wakes us."""
        until_heartbeat = self._until_heartbeat()
        if until_heartbeat <= 0:
            await self._tend()
            until_heartbeat = self._until_heartbeat()
        if self.stopping.is_set() or not self.free:
            return until_heartbeat
        now = self.clock.now()
        ahead = await claims.outlook(self._store, self.queue)
        if self._lease_has_ended(ahead, now):
            await self._tend()
            return 0.0
        if (ahead.available or _seconds(ahead.next_run_at, now) <= 0) and await self._claim():
            return 0.0
        return min(
            NET_SECONDS, until_heartbeat, _seconds(ahead.next_run_at, now), _seconds(ahead.lease_expires_at, now)
        )

    async def _claim(self) -> int:
        """Claim and begin as many jobs as there is room for; how many."""
        room = self.free
        claimed = await self._store.write(
            lambda tx: claims.claim(
                tx,
                queue=self.queue,
                owner=self._owner,
                lease_seconds=self._lease_seconds,
                limit=room,
                now=self.clock.now(),
            )
        )
        failpoint("job.claimed")
        attempts = [Attempt(job, self._registry, self._store, self._metrics, self.clock, self.log) for job in claimed]
        if self.stopping.is_set():
            await self._release(attempts)
            return 0
        if not self._running:
            self._extended_at = self.clock.monotonic()
        for attempt in attempts:
            self._running[attempt] = asyncio.create_task(self._work(attempt), name=f"job-{attempt.job.id}")
        return len(attempts)

    async def _work(self, attempt: Attempt) -> None:
        job = attempt.job
        ended = ""
        try:
            ended = await attempt.run()
        except StoreUnavailable as error:
            self.log.warning("job %d (%s): its end could not be stored: %s", job.id, job.kind, error)
        except Exception:
            self.log.exception("job %d (%s): its end could not be stored", job.id, job.kind)
        finally:
            self._running.pop(attempt, None)
            for thread in attempt.threads:
                if not thread.done():
                    self._overdue.add(thread)
                    thread.add_done_callback(self._thread_returned)
            self._woken.set()
        if ended and not attempt.abandoned:
            self._metrics.jobs.add(1, ended)
            if ended == "lease_lost":
                self.log.warning("job %d (%s) was taken over or cancelled; its end here is void", job.id, job.kind)

    def _thread_returned(self, thread: Returned) -> None:
        self._overdue.discard(thread)
        self._woken.set()

    # Leases

    def _until_heartbeat(self) -> float:
        if not self._running:
            return NET_SECONDS
        return self._extended_at + self._lease_seconds / 3 - self.clock.monotonic()

    def _lease_has_ended(self, ahead: Outlook, now: int) -> bool:
        """Whether some lease of this queue is over, or can't be one of ours: the clock was set back since."""
        if ahead.lease_expires_at is None:
            return False
        return not 0 < _seconds(ahead.lease_expires_at, now) <= 2 * self._lease_seconds

    async def _tend(self) -> None:
        """Extend the leases of what runs here, then rescue what nobody has extended, in this order in one unit: a step
        of the clock must not take our own jobs from us."""
        held = list(self._running)
        while True:
            lost, rescued = await self._store.write(lambda tx: self._extend_and_rescue(tx, held))
            self._extended_at = self.clock.monotonic()
            lost = [attempt for attempt in lost if attempt.handling and attempt in self._running]
            self._abandon(lost)
            for attempt in lost:
                self._metrics.jobs.add(1, "lease_lost")
                self.log.warning("job %d (%s) was taken over or cancelled", attempt.job.id, attempt.job.kind)
            for job in rescued:
                self._metrics.jobs.add(1, "rescued")
                if job.dead:
                    self._metrics.dead_letters.add(1, jobs.source(self.queue))
                self.log.warning(
                    "job %d was left by its worker; %s", job.id, "it is dead" if job.dead else "it runs again"
                )
            if len(rescued) < _RESCUED_AT_ONCE:
                return

    def _extend_and_rescue(self, tx: Tx, held: Sequence[Attempt]) -> tuple[list[Attempt], list[Rescued]]:
        now = self.clock.now()
        lost = [
            attempt
            for attempt in held
            if not claims.extend_lease(tx, attempt.claim, lease_seconds=self._lease_seconds, now=now)
        ]
        rescued = claims.rescue(
            tx, queue=self.queue, lease_seconds=self._lease_seconds, limit=_RESCUED_AT_ONCE, now=now
        )
        return lost, rescued

    # Ends before the end

    def _abandon(self, attempts: Iterable[Attempt]) -> None:
        """Cancel the handlers. One that runs in a thread goes on, and what comes of it is void."""
        for attempt in attempts:
            attempt.abandoned = True
            self._running[attempt].cancel()

    async def _release(self, attempts: Sequence[Attempt]) -> None:
        """Give back what hasn't ended."""

        def unit(tx: Tx) -> int:
            return sum(claims.release(tx, attempt.claim) for attempt in attempts)

        try:
            released = await self._store.write(unit, timeout_seconds=RELEASE_SECONDS)
        except StoreUnavailable as error:
            self.log.warning("%d jobs run again only after their lease: %s", len(attempts), error)
            return
        self._metrics.jobs.add(released, "released")
        self.log.info("%d jobs that had not ended were given back", released)

    async def _wait_for_running(self, seconds: float) -> None:
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)


def _seconds(moment: int | None, now: int) -> float:
    """From `now` to `moment`, both in microseconds; endless when there is no such moment."""
    return inf if moment is None else (moment - now) / 1e6
