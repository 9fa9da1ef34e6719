"""Verbs of the table `jobs` that anybody may use: dispatch, look, retry what is dead, cancel. A worker's verbs, which
need a claim, are in `claims`.

A job's way: `scheduled` (until `run_at`) or `available`, then `executing` under a lease, then `completed`, `retryable`
(until its next `run_at`), `dead` or `cancelled`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from peewee import SQL, fn

from .store import NULL, ZERO, Statement, Store, Tx, literal, storable
from .tables import DeadLetters, Jobs

INCOMPLETE = ("scheduled", "available", "executing", "retryable")
FINISHED = ("completed", "cancelled", "dead")
STATES = (*INCOMPLETE, *FINISHED)
_ID_MAX = 2**63 - 1

_NEW = (
    "queue", "kind", "args", "priority", "state", "attempt", "max_attempts", "run_at", "unique_key", "cause_id",
    "created_at",
)  # fmt: skip
COLUMNS = (
    Jobs.id, Jobs.queue, Jobs.kind, Jobs.args, Jobs.priority, Jobs.state, Jobs.attempt, Jobs.max_attempts, Jobs.run_at,
    Jobs.lease_owner, Jobs.lease_token, Jobs.lease_expires_at, Jobs.unique_key, Jobs.progress, Jobs.result, Jobs.error,
    Jobs.cause_id, Jobs.created_at, Jobs.finished_at, Jobs.blocked_by, Jobs.limit_key, Jobs.needs, Jobs.expires_at,
    Jobs.options,
)  # fmt: skip
NO_LEASE = {Jobs.lease_owner: NULL, Jobs.lease_expires_at: NULL}

ONE = Statement(lambda p: Jobs.select(*COLUMNS).where(Jobs.id == p))
COUNT = Statement(lambda p: Jobs.select(Jobs.queue, Jobs.state, fn.COUNT(Jobs.id)).group_by(Jobs.state, Jobs.queue))
OLDEST = Statement(
    lambda p: (
        Jobs.select(Jobs.queue, fn.MIN(Jobs.run_at)).where(Jobs.state == literal("available")).group_by(Jobs.queue)
    )
)
REVIVE = Statement(
    lambda p: (
        Jobs.update(
            {
                Jobs.state: literal("available"), Jobs.attempt: ZERO, Jobs.run_at: p, Jobs.error: NULL,
                Jobs.finished_at: NULL,
            }
        )
        .where((Jobs.id == p) & (Jobs.state == literal("dead")))
        .returning(Jobs.queue)
    )
)  # fmt: skip
REDRIVEN = Statement(
    lambda p: DeadLetters.update({DeadLetters.redriven_at: p}).where(
        (DeadLetters.source == p) & (DeadLetters.job_id == p) & DeadLetters.redriven_at.is_null()
    )
)
CANCEL = Statement(
    lambda p: Jobs.update({Jobs.state: literal("cancelled"), Jobs.finished_at: p, **NO_LEASE}).where(
        (Jobs.id == p) & Jobs.state.in_(SQL("('scheduled', 'available', 'executing', 'retryable')"))
    )
)


class Unique(msgspec.Struct, frozen=True):
    """When a job with a `unique_key` isn't added because one with that key and kind is there already: one in one of
    `states`, and, with `within_us` microseconds, created no longer ago than that."""

    states: tuple[str, ...] = INCOMPLETE
    within_us: int | None = None


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many jobs with one `key` may run: at most `concurrency` at once, and one every `interval_us` microseconds,
    `burst` of them at once after a pause. None: without that limit."""

    key: str
    concurrency: int | None = None
    interval_us: int | None = None
    burst: int = 1


class Parent(msgspec.Struct, frozen=True):
    """What a callback is told of the job that ended: one of `result` (JSON text) and `error` is there."""

    id: int
    kind: str
    args: str
    result: str | None = None
    error: str | None = None


class NewJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that isn't stored yet. `args` is JSON text, `run_at` and `created_at` microseconds since 1970 UTC.

    Of two jobs that are ready, the one with the greater `priority` runs first, unless the other has been ready for
    longer by claims.AGE_SECONDS for each point between them. No attempt begins later than `expires_us` microseconds
    after `run_at`. While the dependency that it `needs` is broken, the job waits. When it completes (is dead for good),
    `on_success` (`on_failure`) is added in the same commit, with `run_at` and `created_at` of that moment.
    """

    queue: str
    kind: str
    args: str
    run_at: int = 0
    created_at: int = 0
    priority: int = 0
    max_attempts: int = 5
    unique_key: str | None = None
    unique: Unique = Unique()
    limit: Limit | None = None
    needs: str | None = None
    expires_us: int | None = None
    on_success: NewJob | None = None
    on_failure: NewJob | None = None
    parent: Parent | None = None
    cause_id: int | None = None


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the column `options` holds, as JSON."""

    limit: Limit | None = None
    on_success: NewJob | None = None
    on_failure: NewJob | None = None
    parent: Parent | None = None


class Dispatched(msgspec.Struct, frozen=True):
    """The answer to a dispatch: the job's id; `existed`: it is that of a job with the same unique key that was there."""

    id: int
    existed: bool = False


class StoredJob(msgspec.Struct, frozen=True):
    """A job as it stands in the table. `args`, `result`, `progress` and `options` are JSON text; the first line of
    `error` sums it up."""

    id: int
    queue: str
    kind: str
    args: str
    priority: int
    state: str
    attempt: int
    max_attempts: int
    run_at: int
    lease_owner: str | None
    lease_token: int | None
    lease_expires_at: int | None
    unique_key: str | None
    progress: str | None
    result: str | None
    error: str | None
    cause_id: int | None
    created_at: int
    finished_at: int | None
    blocked_by: str | None
    limit_key: str | None
    needs: str | None
    expires_at: int | None
    options: str | None


def source(queue: str) -> str:
    """What the dead letters of a queue's jobs name as their source."""
    return f"job:{queue}"


def add(tx: Tx, jobs: Sequence[NewJob]) -> None:
    """Store jobs, to be claimed from their `run_at` on."""
    rows = [
        (
            job.queue, job.kind, job.args, job.priority, "scheduled" if job.run_at > job.created_at else "available", 0,
            job.max_attempts, job.run_at, job.unique_key, job.cause_id, job.created_at,
        )
        for job in jobs
    ]  # fmt: skip
    tx.insert(Jobs, _NEW, rows)
    if rows:
        tx.touch("jobs")


def retry_dead(tx: Tx, ids: Iterable[int], now: int) -> int:
    """Let dead jobs run again, with all their attempts before them; how many were dead. Their open dead letters are
    marked as redriven."""
    revived = 0
    for job_id in filter(_possible, ids):
        for (queue,) in tx.rows(REVIVE, (now, job_id)):
            tx.run(REDRIVEN, (now, source(queue), job_id))
            revived += 1
    if revived:
        tx.touch("jobs")
    return revived


def cancel(tx: Tx, ids: Iterable[int], now: int) -> int:
    """Cancel jobs that aren't finished; how many. One that is running is stopped when its worker next extends its
    lease, and nothing that it decided is committed."""
    return sum(tx.run(CANCEL, (now, job_id)) for job_id in filter(_possible, ids))


async def one(store: Store, job_id: int) -> StoredJob | None:
    """The job of that id, or None."""
    rows = await store.read(ONE, (job_id,)) if _possible(job_id) else []
    return StoredJob(*rows[0]) if rows else None


async def find(
    store: Store, *, limit: int, queue: str = "", state: str = "", kind: str = "", before_id: int = 0
) -> list[StoredJob]:
    """The latest `limit` jobs that fit all given, newest first; `before_id` for the next page."""
    query = Jobs.select(*COLUMNS).order_by(Jobs.id.desc()).limit(limit)
    for column, word in ((Jobs.queue, queue), (Jobs.state, state), (Jobs.kind, kind)):
        if word:
            query = query.where(column == storable(word))
    if before_id:
        query = query.where(Jobs.id < min(before_id, _ID_MAX))
    return [StoredJob(*row) for row in await store.read(query)]


async def counts(store: Store, now: int) -> list[dict[str, Any]]:
    """For each queue that any job names, configured or not: how many jobs are in each state, and for how many seconds
    the oldest available one has been waiting for a worker. `now` is in microseconds since 1970 UTC."""
    queues: dict[str, dict[str, Any]] = {}
    for queue, state, count in await store.read(COUNT):
        empty = {"queue": queue, **dict.fromkeys(STATES, 0), "oldest_available_seconds": 0.0}
        queues.setdefault(queue, empty)[state] = count
    for queue, run_at in await store.read(OLDEST):
        if queue in queues:
            queues[queue]["oldest_available_seconds"] = max(0.0, (now - run_at) / 1e6)
    return [queues[name] for name in sorted(queues)]


def _possible(job_id: int) -> bool:
    return 0 < job_id <= _ID_MAX
