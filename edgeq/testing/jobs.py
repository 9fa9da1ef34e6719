"""Jobs in an app's own tests: one run inline, or a queue that runs when it is told.

done = await run_job(Report(day="mon"))
assert done.result == {"pages": 3} and done.dispatched(Mail, to="ops")
assert done.notified() == [Notified("The report is there", channels=("mail",))]

async with Jobs() as jobs:
    await jobs.dispatch(Report(day="mon"), delay="1h")
    jobs.clock.advance(3600)
    assert await jobs.drain() == 1
    jobs_sent = await jobs.dispatched(Mail, to="ops")
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import msgspec

from ..clock import Clock
from ..config.schema import Queue
from ..context import Dispatchable, How, when
from ..events import NewEvent, from_json
from ..jobs.context import JobContext, ParentInfo
from ..jobs.handling import describe, handle
from ..jobs.job import Job, definition
from ..jobs.outcome import Completed, Snoozed
from ..jobs.worker import Worker
from ..store import events
from ..store import jobs as table
from ..store.jobs import NewJob, Options, Parent, StoredJob
from ..store.sqlite import SqliteStore
from ..store.store import Store
from ..telemetry.metrics import Metrics
from .clock import FakeClock
from .notified import Notified, notified
from .waiting import until

_LIMIT = 10_000


class JobRun(msgspec.Struct, frozen=True):
    """What one attempt came to. `outcome` is `completed`, `failed` or `snoozed`.

    `result`: what the handler returned, as it comes back from JSON. `error`: what a failure is stored as, summed up in
    its first line; `reason` one short word for it (`failed`, `dead`, `undecodable`, …). `delay_seconds`: after what
    time the handler asked to be called again, by a snooze or RetryAfter. `events` and `jobs` are what it recorded;
    those of a failed attempt would not be committed. `progress`: every (fraction, text).
    """

    outcome: str
    result: Any = None
    error: str | None = None
    reason: str | None = None
    delay_seconds: float | None = None
    events: list[NewEvent] = []
    jobs: list[NewJob] = []
    progress: list[tuple[float, str]] = []

    def dispatched(self, job_class: type[Job], **args: Any) -> list[NewJob]:
        """The jobs of that class that the handler dispatched, with those arguments among theirs."""
        return [job for job in self.jobs if _fits(job.kind, job.args, job_class, args)]

    def notified(self) -> list[Notified]:
        """What the handler told people by `ctx.notify`, in order."""
        return notified(self.events)


async def run_job(
    job: Job,
    *,
    attempt: int = 1,
    context: Any = None,
    parent: ParentInfo | None = None,
    clock: Clock | None = None,
) -> JobRun:
    """Run one attempt of a job here and now, without a store, a worker or a time limit.

    `attempt`, `context` (what the queue's `context` would have made) and `parent` (for a callback) are what its `ctx`
    tells it. Its arguments go through JSON, as they will. Nothing that the handler raises comes through; a job that
    can't be dispatched raises ValueError.
    """
    clock = clock or FakeClock()
    new = job.new_job(now=clock.now())
    made = definition(job)
    seen: list[tuple[float, str]] = []

    def report(progress: str) -> None:
        said = from_json(progress)
        seen.append((said["fraction"], said["text"]))

    ctx = JobContext(clock, _as_stored(new, attempt, parent), context=context, report=report)
    outcome = await handle(made, _as_stored(new, attempt, parent), ctx, _call)
    run = JobRun("completed", events=ctx.decisions.events, jobs=ctx.decisions.jobs, progress=seen)
    if isinstance(outcome, Completed):
        return msgspec.structs.replace(run, result=from_json(outcome.result))
    if isinstance(outcome, Snoozed):
        return msgspec.structs.replace(run, outcome="snoozed", delay_seconds=outcome.seconds)
    return msgspec.structs.replace(
        run,
        outcome="failed",
        error=describe(outcome.error),
        reason=outcome.reason,
        delay_seconds=outcome.retry_after,
    )


class JobTable:
    """Looks at the jobs of a store, and adds some."""

    store: Store
    clock: Clock

    async def dispatch(
        self, job: Dispatchable, *, delay: str | float | None = None, run_at: int | None = None, **how: Unpack[How]
    ) -> StoredJob:
        """Store a job; it, or the one with the same unique key that was there. Raises ValueError."""
        now = self.clock.now()
        new = job.new_job(now=now, run_at=when(now, delay, run_at), **how)
        added = await self.store.write(lambda tx: table.add(tx, [new]))
        return await self.job(added[0].id)

    async def job(self, job_id: int) -> StoredJob:
        """The job as it stands now. Raises AssertionError when there is none."""
        found = await table.one(self.store, job_id)
        assert found is not None, f"there is no job {job_id}"
        return found

    async def jobs(self, state: str = "") -> list[StoredJob]:
        """The stored jobs, newest first; only those in `state`."""
        return await table.find(self.store, limit=_LIMIT, state=state)

    async def dispatched(self, job_class: type[Job], **args: Any) -> list[StoredJob]:
        """All jobs of that class, in whatever state, with those arguments among theirs; oldest first."""
        found = [job for job in await self.jobs() if _fits(job.kind, job.args, job_class, args)]
        return found[::-1]

    async def notified(self) -> list[Notified]:
        """What was told by `ctx.notify`, of all that is committed; oldest first."""
        return notified(await events.recent(self.store, limit=_LIMIT, type_pattern="notification"))


class Jobs(JobTable):
    """A job queue in which nothing runs until `drain`.

    The store is a real one, in a scratch folder; `clock` stands still until it is moved. `metrics` are the workers'
    counters.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self._folder = tempfile.TemporaryDirectory(prefix="edgeq-test-")
        self.store = SqliteStore(
            str(Path(self._folder.name) / "edgeq.db"), metrics=self.metrics, clock=self.clock, durability="normal"
        )

    async def __aenter__(self) -> Jobs:
        await self.store.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.store.close()
        self._folder.cleanup()

    async def drain(self, queues: Iterable[str] = (), *, settings: Queue | None = None) -> int:
        """Run whatever is ready, and what becomes ready through it, and return when nothing is left that could run at
        the clock's time; how many attempts that took. Jobs for later stay.

        `queues`: only these (default: every queue that has jobs). `settings`: how the queues are run.
        """
        only = set(queues)
        before = ran = self.metrics.jobs.total()
        while True:
            counts = await table.counts(self.store, self.clock.now())
            await self._run([queue["queue"] for queue in counts if not only or queue["queue"] in only], settings)
            if self.metrics.jobs.total() == ran:  # what one queue does may fill another
                return ran - before
            ran = self.metrics.jobs.total()

    async def _run(self, queues: Iterable[str], settings: Queue | None) -> None:
        workers = [
            Worker(name, settings or Queue(), self.store, metrics=self.metrics, clock=self.clock, owner="test")
            for name in queues
        ]
        for worker in workers:
            await worker.start()
        try:
            await until(lambda: all(worker.idle for worker in workers), "the jobs to end", store=self.store)
        finally:
            for worker in workers:
                await worker.stop()


def _as_stored(new: NewJob, attempt: int, parent: ParentInfo | None) -> StoredJob:
    told = None
    if parent is not None:
        args, result = msgspec.json.encode(parent.args).decode(), msgspec.json.encode(parent.result).decode()
        told = Parent(parent.id, parent.kind, args, None if parent.error is not None else result, parent.error)
    return StoredJob(
        id=1,
        queue=new.queue,
        kind=new.kind,
        args=new.args,
        priority=new.priority,
        state="executing",
        attempt=attempt,
        max_attempts=new.max_attempts,
        run_at=new.run_at,
        lease_owner="test",
        lease_token=1,
        lease_expires_at=None,
        unique_key=new.unique_key,
        progress=None,
        result=None,
        error=None,
        cause_id=new.cause_id,
        created_at=new.created_at,
        finished_at=None,
        blocked_by=None,
        limit_key=None,
        needs=new.needs,
        expires_at=None,
        options=None if told is None else msgspec.json.encode(Options(parent=told)).decode(),
    )


async def _call(function: Any, /, *args: Any) -> Any:
    return function(*args)


def _fits(kind: str, args: str, job_class: type[Job], wanted: Mapping[str, Any]) -> bool:
    if kind != definition(job_class).kind:
        return False
    found = from_json(args)
    as_json = from_json(msgspec.json.encode(wanted))
    return all(name in found and found[name] == value for name, value in as_json.items())
