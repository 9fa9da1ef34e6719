"""A queue's worker: claims as many jobs as it has room for, runs them, and keeps their leases alive.

It wakes when a job is dispatched, becomes due or ends, and when a lease must be extended or has ended; in between it
does nothing at all (G9). What there is to do then is one unit (see `round`), never more than one at a time: whatever
wakes it meanwhile is seen to by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from ..clock import Clock
from ..config.checks import rate
from ..config.schema import Breaker, Queue
from ..failpoints import failpoint
from ..service import Service
from ..store import claims, jobs
from ..store.claims import BreakerSettings, Rate
from ..store.jobs import StoredJob
from ..store.store import Store
from ..telemetry.metrics import Metrics
from .attempts import CANCEL_SECONDS, Attempts
from .ends import Ending, tell
from .horizon import Horizon
from .job import Registry, registry
from .lease_clock import LeaseClock
from .losses import Losses
from .queue_context import QueueContext
from .round import Found, Plan, Rounds
from .settings import PRIORITIES
from .slots import Grant, Slots
from .threads import Threads

if TYPE_CHECKING:
    from .isolation.pool import ProcessPool

NET_SECONDS = 30.0
RELEASE_SECONDS = 5.0
PROGRESS_SECONDS = 1.0


class Overrides(msgspec.Struct, frozen=True):
    """What the command line says instead of the jobs' own settings, and of NET_SECONDS."""

    max_attempts: int | None = None
    timeout_seconds: float | None = None
    poll_seconds: float | None = None


_NO_OVERRIDES = Overrides()


class Worker(Service):
    """Runs the jobs of `queue`, `settings.concurrency` at once (with `isolation: process`, `settings.processes`), each
    under a lease of `settings.lease`.

    `owner` is what the leases say, for people to read. Only job classes in `registry` are run. The lease of a job that
    runs is extended every third of it; if that comes too late and another worker has taken the job, what this one makes
    of it is refused by the store (G7). `slots` are shared with the other queues of this process. `processes` makes the
    processes for isolated jobs when they are first needed; without it they run here.
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
        breakers: Mapping[str, Breaker] = {},
        slots: Slots | None = None,
        overrides: Overrides = _NO_OVERRIDES,
        processes: Callable[[], ProcessPool] | None = None,
    ) -> None:
        super().__init__(f"worker.{queue}", clock)
        isolated = settings.isolation == "process" and processes is not None
        self.queue = queue
        self.settings = settings
        self.size = settings.processes if isolated else settings.concurrency
        self._store = store
        self._metrics = metrics
        self._lease_seconds = float(settings.lease)
        self._overrides = overrides
        self._leases = LeaseClock(clock)
        self._horizon = Horizon(
            self._leases, lease_seconds=float(settings.lease), net_seconds=overrides.poll_seconds or NET_SECONDS
        )
        self._threads = Threads(2 * self.size)  # one for a handler that hangs, and one for its last words
        self._attempts = Attempts(
            self._threads,
            registry,
            self._leases,
            self.log,
            isolated=isolated,
            processes=processes,
            timeout_seconds=overrides.timeout_seconds,
            ended=self._gather,
            changed=self._wake,
        )
        self._losses = Losses(self._attempts, store, metrics, self.log, self._wake)
        self._rounds = Rounds(
            store,
            self._leases,
            queue=queue,
            owner=owner,
            lease_seconds=self._lease_seconds,
            rate=None if settings.rate is None else Rate(round(1e6 / rate(settings.rate)), settings.burst),
            breakers={
                name: BreakerSettings(each.failures, round(each.within * 1e6), round(each.wait * 1e6))
                for name, each in breakers.items()
            },
        )
        priority = settings.priority
        self._seat = (slots or Slots()).join(
            queue, PRIORITIES[priority] if isinstance(priority, str) else priority, self._wake
        )
        self._woken = asyncio.Event()
        self._endings: list[Ending] = []
        self._round: asyncio.Task[None] | None = None
        self._context = QueueContext(None if isolated else settings.context, self._in_thread, self.log, self._can_begin)
        self._extend_at = 0.0
        self._report_at = 0.0
        self._failure: BaseException | None = None

    @property
    def running(self) -> list[StoredJob]:
        """The jobs that are being run now."""
        return [attempt.job for attempt in self._attempts.running]

    @property
    def overdue(self) -> int:
        """How many threads and tasks go on though their attempt is over (timed out, lost, given back): each takes up
        one of the queue's slots until it returns."""
        return len(self._attempts.overdue)

    @property
    def free(self) -> int:
        """How many more jobs there is room for, if the other queues leave it."""
        return max(0, self.size - len(self._attempts.running) - len(self._attempts.overdue))

    @property
    def idle(self) -> bool:
        """Nothing runs, and the last look, at all that was dispatched until now, found nothing that could run."""
        return self._is_quiet and self._horizon.clear(self._store.signal.version("jobs"))

    @property
    def stuck(self) -> bool:
        """No job can run, because the queue's context can't be made, or no process for jobs can be started. That is
        tried again and again, and the log says why."""
        return self._context.stuck or self._attempts.stuck

    async def run(self) -> None:
        """Works until it is stopped and the last job it runs has ended."""
        self._context.begin()
        try:
            with self._store.signal.watch(self._woken, "jobs", "cancelled"):
                while not (self.stopping.is_set() and self._is_quiet):
                    self._woken.clear()
                    if self._failure is not None:
                        failure, self._failure = self._failure, None
                        raise failure
                    seconds = self._step()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            await self._woken.wait()
        finally:
            self._hold(room=0)

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Claim nothing more, let what runs finish within `grace_seconds`, cancel the rest and give it back: its
        attempt doesn't count. Another call with less patience, meanwhile, is heeded."""
        self.stopping.set()
        self._wake()
        await self._attempts.over(grace_seconds)
        self._attempts.abandon(list(self._attempts.running), "released")
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CANCEL_SECONDS + RELEASE_SECONDS)
        if not self._is_quiet:
            self.log.warning("what became of some jobs is not on disk: they run again only after their lease")
        self._rounds.closed = True
        self._losses.close()
        self._context.close()
        await self._attempts.close(0.0)
        await super().stop(0.0)

    @property
    def _is_quiet(self) -> bool:
        return not self._attempts.running and not self._endings and self._round is None

    def _wake(self) -> None:
        self._woken.set()

    def _gather(self, ending: Ending) -> None:
        self._endings.append(ending)
        self._woken.set()

    # What there is to do

    def _step(self) -> float | None:
        """Do what can be done now; for how many seconds there is nothing else to do unless something wakes us."""
        now = self.clock.monotonic()
        if self._horizon.clock_was_set():
            self._extend_at = now
        self._attempts.enforce(now)
        self._losses.look()
        if self._round is None:
            self._hold(room=self.free if self._may_claim else 0)
            plan = self._plan(now)
            if plan is not None:
                self._round = asyncio.create_task(self._carry_out(plan), name=f"{self.name}.round")
                self._round.add_done_callback(self._carried_out)
        seconds = min(self._attempts.next_deadline - now, inf if self._round is not None else self._until_round(now))
        return None if seconds == inf else max(0.0, seconds)

    def _plan(self, now: float) -> Plan | None:
        """What the next unit is for; None when there is no need for one."""
        rescue = not self.stopping.is_set() and self._horizon.until_rescue() <= 0
        extend = bool(self._attempts.running) and (rescue or now >= self._extend_at)
        report = bool(self._attempts.reporting) and now >= self._report_at
        look = self._may_claim and self._until_look() <= 0
        if not (look or rescue or extend or report or self._endings):
            return None
        grant = self._seat.reserve(self.free) if self._may_claim else Grant()
        if look and not (grant.most or rescue or extend or report or self._endings) and self._seat.waiting:
            return None  # it is known that there is something to do, and we wait for a slot
        endings, self._endings = self._endings, []
        reports = []
        if report:
            reports = [(attempt.job, text) for attempt in self._attempts.reporting if (text := attempt.progress())]
            self._attempts.reporting.clear()
            self._report_at = now + PROGRESS_SECONDS
        return Plan(
            endings, reports, list(self._attempts.running) if extend else (), rescue, grant,
            self._store.signal.version("jobs"),
        )  # fmt: skip

    @property
    def _may_claim(self) -> bool:
        return self._context.ready and not self.stopping.is_set() and self.free > 0

    def _until_round(self, now: float) -> float:
        seconds = inf if self.stopping.is_set() else self._horizon.until_rescue()
        if self._attempts.running:
            seconds = min(seconds, self._extend_at - now)
        if self._attempts.reporting:
            seconds = min(seconds, self._report_at - now)
        if self._may_claim and (until_look := self._until_look()) > 0:  # otherwise we wait for a slot
            seconds = min(seconds, until_look)
        return seconds

    def _until_look(self) -> float:
        return self._horizon.until_look(self._store.signal.version("jobs"))

    def _hold(self, *, room: int) -> None:
        """Tell the other queues of this process what is in use here, and how much more could be."""
        running, overdue = len(self._attempts.running), len(self._attempts.overdue)
        unended = running + len(self._endings)
        self._seat.hold(running + overdue, room=room, waiting=self._horizon.ready, unended=unended)

    # One unit

    async def _carry_out(self, plan: Plan) -> None:
        try:
            found = await self._rounds.carry_out(plan)
        except BaseException:
            self._endings[:0] = plan.endings
            self._seat.settle(0)
            raise
        if found.ended:
            failpoint("job.committed")
        self._seat.settle(len(found.claimed))
        now = self.clock.monotonic()
        self._horizon.note(found.outlook, plan.version, fruitless=plan.grant.most > 0 and not found.claimed)
        if not self._attempts.running or (plan.held and found.outlook is not None):
            self._extend_at = now + self._lease_seconds / 3
        if found.claimed:
            failpoint("job.claimed")
        for job in found.claimed:
            self._attempts.begin(self._as_told(job), given_back=self.stopping.is_set())
        self._learn(plan, found)

    def _as_told(self, job: StoredJob) -> StoredJob:
        attempts = self._overrides.max_attempts
        return job if attempts is None else msgspec.structs.replace(job, max_attempts=attempts)

    def _carried_out(self, task: asyncio.Task[None]) -> None:
        self._round = None
        if not task.cancelled():
            self._failure = task.exception()
        self._woken.set()

    def _learn(self, plan: Plan, found: Found) -> None:
        """See to what became of what was ended, extended and rescued."""
        lost = []
        for ended in found.ended:
            if ended.done:
                tell(ended.ending, ended.duplicates, self._leases.now(), self._metrics, self.log)
            elif isinstance(ended.ending.end, claims.Retried) and ended.ending.end.last:
                self._attempts.counts(ended.ending)
            else:
                lost.append(ended.ending.attempt)
        for ending, error in found.refused:
            self._attempts.refused(ending, error)
        self._losses.note([*lost, *(attempt for attempt in plan.held if attempt.job.id in found.lost)])
        for job in found.rescued:
            self._metrics.jobs.add(1, "rescued")
            if job.dead:
                self._metrics.dead_letters.add(1, jobs.source(self.queue))
            self.log.warning("job %d was left by its worker; %s", job.id, "it is dead" if job.dead else "it runs again")

    # The queue's context

    def _can_begin(self) -> None:
        self._attempts.context = self._context.value
        self._woken.set()

    async def _in_thread(self, function: Callable[..., Any], /, *args: Any) -> Any:
        return await self._threads.start(function, *args).result()
