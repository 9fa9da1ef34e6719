"""Jobs and queues: looking, trying again, cancelling, pausing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from ...clock import Clock
from ...config.schema import Queue
from ...config.suggest import did_you_mean
from ...status import every_queue
from ...store import dead_letters, jobs, queues
from ...store.jobs import StoredJob
from ...store.store import Store, Tx
from ..operation import Call, Listing, Named, Nothing, One, Operation, Text
from ..replies import Refusal
from .common import Done, fields_of, missing, page_of, saved

State = Literal["scheduled", "available", "executing", "retryable", "completed", "cancelled", "dead"]


class BriefJob(TypedDict):
    """A job in a list. `error` is the beginning of it."""

    id: int
    queue: str
    kind: str
    priority: int
    state: str
    attempt: int
    max_attempts: int
    run_at: int
    lease_owner: str | None
    lease_token: int | None
    lease_expires_at: int | None
    unique_key: str | None
    progress: Any
    error: str | None
    cause_id: int | None
    created_at: int
    finished_at: int | None
    blocked_by: str | None
    limit_key: str | None
    needs: str | None
    expires_at: int | None


class JobPage(TypedDict):
    """Jobs, the newest first."""

    items: list[BriefJob]
    next: int | None


class WholeJob(BriefJob):
    """A job. `reason` is that of its dead letter."""

    args: Any
    result: Any
    options: Any
    reason: str | None


class OneQueue(TypedDict):
    """A queue, and how many of its jobs are in which state. `concurrency` is None for one that isn't configured."""

    queue: str
    size: int
    ready: int
    delayed: int
    blocked: int
    available: int
    scheduled: int
    retryable: int
    executing: int
    completed: int
    cancelled: int
    dead: int
    oldest_ready_seconds: float
    paused: bool
    concurrency: int | None


class Queues(TypedDict):
    """Every queue that is configured, has a job or is paused."""

    items: list[OneQueue]
    next: None


class Search(Listing, frozen=True, kw_only=True):
    """Which jobs."""

    queue: Text = ""
    state: State | Literal[""] = ""


class JobOperations:
    """Looks at the tables `jobs` and `queues`, and changes them by the verbs of the commands."""

    def __init__(self, settings: Mapping[str, Queue], store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock

    def operations(self) -> list[Operation]:
        """See api."""
        changes: dict[str, Any] = {"need": "change", "gives": Done, "refusals": (404, 409)}
        return [
            Operation("GET", "/api/jobs", "The latest jobs that fit.", self._find, JobPage, Search),
            Operation("GET", "/api/jobs/<id>", "A job, whole.", self._one, WholeJob, One, refusals=(404,)),
            Operation(
                "POST", "/api/jobs/<id>/retry", "Let a dead job run again.", self._retry, asks=One, **changes
            ),
            Operation(
                "POST", "/api/jobs/<id>/cancel", "Cancel a job that hasn't ended.", self._cancel, asks=One, **changes
            ),
            Operation("GET", "/api/queues", "How full each queue is.", self._queues, Queues, Nothing),
            Operation(
                "POST", "/api/queues/<name>/pause", "Claim no more of its jobs.", self._pause, asks=Named, **changes
            ),
            Operation(
                "POST", "/api/queues/<name>/resume", "Let it go on.", self._resume, asks=Named, **changes
            ),
        ]  # fmt: skip

    async def _find(self, call: Call) -> dict[str, Any]:
        asked: Search = call.asked
        return await page_of(
            lambda limit: jobs.find(
                self._store, limit=limit, queue=asked.queue, state=asked.state, before_id=asked.before, brief=True
            ),
            asked.limit,
            _brief,
        )

    async def _one(self, call: Call) -> dict[str, Any]:
        job = await self._job(call.asked.id)
        letter = await dead_letters.of_job(self._store, job.id) if job.state == "dead" else None
        reason = None if letter is None else letter.reason
        return fields_of(job, "args", "result", "progress", "options") | {"reason": reason}

    async def _retry(self, call: Call) -> Done:
        now = self._clock.now()
        if not await saved(self._store, lambda tx: jobs.retry(tx, [call.asked.id], now)):
            job = await self._job(call.asked.id)
            raise Refusal(409, f"job {job.id} is {job.state}: only dead ones are tried again")
        return {"done": True}

    async def _cancel(self, call: Call) -> Done:
        now = self._clock.now()
        if not await saved(self._store, lambda tx: jobs.cancel(tx, [call.asked.id], now)):
            job = await self._job(call.asked.id)
            raise Refusal(409, f"job {job.id} is {job.state} already")
        return {"done": True}

    async def _job(self, job_id: int) -> StoredJob:
        job = await jobs.one(self._store, job_id)
        if job is None:
            raise missing(f"job {job_id}", "it was never there, or is gone for its age")
        return job

    async def _queues(self, call: Call) -> dict[str, Any]:
        return {"items": await every_queue(self._store, self._settings, self._clock.now()), "next": None}

    async def _pause(self, call: Call) -> Done:
        return await self._change(call.asked.name, queues.pause)

    async def _resume(self, call: Call) -> Done:
        return await self._change(call.asked.name, queues.resume)

    async def _change(self, name: str, verb: Any) -> Done:
        known = [each["queue"] for each in await every_queue(self._store, self._settings, self._clock.now())]
        if name not in known:
            raise missing(f"queue {name!r}", did_you_mean(name, known))

        def unit(tx: Tx) -> object:
            return verb(tx, name)

        await saved(self._store, unit)
        return {"done": True}


def _brief(job: StoredJob) -> dict[str, Any]:
    fields = fields_of(job, "progress")
    for large in ("args", "result", "options"):
        del fields[large]
    return fields
