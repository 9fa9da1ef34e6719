"""`ctx` of a job."""

from __future__ import annotations

import msgspec

from ..clock import Clock
from ..context import Context
from ..store.jobs import StoredJob


class JobInfo(msgspec.Struct, frozen=True):
    """The job that is being run. `attempt` counts from 1; `id` stays the same at every attempt, so it makes a good
    idempotency key for what a handler does outside."""

    id: int
    queue: str
    kind: str
    attempt: int
    max_attempts: int


class JobContext(Context):
    """What a handler is given. What it records is committed together with the job's completion; when the attempt fails,
    none of it is."""

    def __init__(self, clock: Clock, job: StoredJob) -> None:
        super().__init__(clock, cause_id=job.cause_id)
        self.job = JobInfo(job.id, job.queue, job.kind, job.attempt, job.max_attempts)
