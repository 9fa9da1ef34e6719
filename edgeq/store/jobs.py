"""Verbs of the table `jobs` that anybody may use: dispatch, look, retry what is dead, cancel, purge. A worker's verbs,
which need a claim, are in `claims`.

A job's way: `scheduled` (until `run_at`) or `available`, then `executing` under a lease, then `completed`, `retryable`
(until its next `run_at`), `dead` or `cancelled`. One that is available may be blocked all the same: see `limits` and
`breakers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peewee import SQL, fn

from .batches import batch, elements
from .job_records import (
    COLUMNS,
    FINISHED,
    ID_MAX,
    INCOMPLETE,
    NO_LEASE,
    STATES,
    Dispatched,
    Limit,
    NewJob,
    Options,
    Parent,
    StoredJob,
    Unique,
    check,
    possible,
    source,
    write_options,
)
from .queues import paused
from .store import NULL, ZERO, Statement, Store, Tx, literal, storable
from .tables import DeadLetters, Jobs

__all__ = [
    "FINISHED", "INCOMPLETE", "STATES", "Dispatched", "Limit", "NewJob", "Options", "Parent", "StoredJob", "Unique",
    "add", "cancel", "counts", "find", "one", "purge", "retry", "retry_where", "source",
]  # fmt: skip

_NEW = (
    "queue", "kind", "args", "priority", "state", "attempt", "max_attempts", "run_at", "unique_key", "cause_id",
    "created_at", "blocked_by", "limit_key", "needs", "expires_at", "options",
)  # fmt: skip
_COMPLETED, _CANCELLED, _DEAD = literal("completed"), literal("cancelled"), literal("dead")

ONE = Statement(lambda p: Jobs.select(*COLUMNS).where(Jobs.id == p))
REVIVE = Statement(
    lambda p: (
        Jobs.update(
            {
                Jobs.state: literal("available"), Jobs.attempt: ZERO, Jobs.run_at: p, Jobs.error: NULL,
                Jobs.finished_at: NULL, Jobs.expires_at: p + Jobs.expires_at - Jobs.created_at,
            }
        )
        .where(Jobs.id.in_(elements(p)) & (Jobs.state == _DEAD))
        .returning(Jobs.id)
    )
)  # fmt: skip
REDRIVEN = Statement(
    lambda p: DeadLetters.update({DeadLetters.redriven_at: p}).where(
        DeadLetters.job_id.in_(elements(p)) & DeadLetters.redriven_at.is_null()
    )
)
CANCEL = Statement(
    lambda p: (
        Jobs.update({Jobs.state: _CANCELLED, Jobs.finished_at: p, **NO_LEASE})
        .where(Jobs.id.in_(elements(p)) & Jobs.state.in_(SQL("('scheduled', 'available', 'executing', 'retryable')")))
        .returning(Jobs.id)
    )
)


def add(tx: Tx, jobs: Sequence[NewJob]) -> list[Dispatched]:
    """Store jobs, to be claimed from their `run_at` on; their ids, in their order.

    Raises ValueError for a text or a number that no database takes.
    """
    rows = []
    for job in jobs:
        check(job)
        rows.append(_row(job))
    ids = tx.insert_returning(Jobs, _NEW, rows)
    if rows:
        tx.touch("jobs")
    return [Dispatched(job_id) for job_id in ids]


def retry(tx: Tx, ids: Iterable[int], now: int) -> int:
    """Let dead jobs run again, with all their attempts and all their time before them; how many were dead. Their open
    dead letters are marked as redriven."""
    revived = [row[0] for row in tx.rows(REVIVE, (now, now, _batch(ids)))]
    if revived:
        tx.run(REDRIVEN, (now, batch(revived)))
        tx.touch("jobs")
    return len(revived)


def retry_where(tx: Tx, *, queue: str = "", kind: str = "", reason: str = "", now: int, limit: int) -> int:
    """`retry` of up to `limit` dead jobs that fit all given, the oldest first; `reason` is that of their open dead
    letter. Call it again while it returns `limit`."""
    query = Jobs.select(Jobs.id).where(Jobs.state == "dead").order_by(Jobs.id).limit(limit)
    for column, word in ((Jobs.queue, queue), (Jobs.kind, kind)):
        if word:
            query = query.where(column == storable(word))
    if reason:
        letters = DeadLetters.select(DeadLetters.job_id).where(
            DeadLetters.redriven_at.is_null()
            & DeadLetters.job_id.is_null(False)
            & (DeadLetters.reason == storable(reason))
        )
        query = query.where(Jobs.id.in_(letters))
    return retry(tx, [row[0] for row in tx.rows(query)], now)


def cancel(tx: Tx, ids: Iterable[int], now: int) -> int:
    """Cancel jobs that aren't finished; how many. One that is running is told to stop, and nothing that it decides
    from now on is committed."""
    cancelled = tx.rows(CANCEL, (now, _batch(ids)))
    if cancelled:
        tx.touch("cancelled")
    return len(cancelled)


def purge(
    tx: Tx,
    *,
    states: Sequence[str],
    queue: str = "",
    kind: str = "",
    finished_before: int | None,
    limit: int,
) -> int:
    """Remove up to `limit` jobs in one of `states`, the oldest first; how many. With `finished_before` (microseconds
    since 1970 UTC) only those that had ended by then. A job that runs is never removed: cancel it. Call it again while
    it returns `limit`."""
    query = Jobs.select(Jobs.id).where(Jobs.state.in_([state for state in states if state != "executing"]))
    for column, word in ((Jobs.queue, queue), (Jobs.kind, kind)):
        if word:
            query = query.where(column == storable(word))
    if finished_before is not None:
        query = query.where(Jobs.finished_at < finished_before)
    return tx.run(Jobs.delete().where(Jobs.id.in_(query.order_by(Jobs.id).limit(limit))))


def _row(job: NewJob) -> tuple[Any, ...]:
    return (
        job.queue, job.kind, job.args, job.priority, "scheduled" if job.run_at > job.created_at else "available", 0,
        job.max_attempts, job.run_at, job.unique_key, job.cause_id, job.created_at, None,
        job.limit.key if job.limit else None, job.needs,
        None if job.expires_us is None else job.run_at + job.expires_us, write_options(job),
    )  # fmt: skip


def _batch(ids: Iterable[int]) -> str:
    return batch([job_id for job_id in ids if possible(job_id)])


# Looking

READY = Statement(
    lambda p: (
        Jobs.select(Jobs.queue, fn.COUNT(Jobs.id), fn.MIN(Jobs.run_at))
        .where((Jobs.state == literal("available")) & Jobs.blocked_by.is_null())
        .group_by(Jobs.queue)
    )
)
BLOCKED = Statement(
    lambda p: (
        Jobs.select(Jobs.queue, fn.COUNT(Jobs.id))
        .where((Jobs.state == literal("available")) & Jobs.blocked_by.is_null(False))
        .group_by(Jobs.queue)
    )
)
WAITING = Statement(
    lambda p: (
        Jobs.select(Jobs.state, Jobs.queue, fn.COUNT(Jobs.id), fn.MIN(Jobs.run_at))
        .where(Jobs.state.in_(SQL("('scheduled', 'retryable')")))
        .group_by(Jobs.state, Jobs.queue)
    )
)
EXECUTING = Statement(
    lambda p: Jobs.select(Jobs.queue, fn.COUNT(Jobs.id)).where(Jobs.state == literal("executing")).group_by(Jobs.queue)
)
ENDED = Statement(
    lambda p: (
        Jobs.select(Jobs.state, Jobs.queue, fn.COUNT(Jobs.id))
        .where(Jobs.state.in_(SQL("('completed', 'cancelled', 'dead')")))
        .group_by(Jobs.state, Jobs.queue)
    )
)


async def one(store: Store, job_id: int) -> StoredJob | None:
    """The job of that id, or None."""
    rows = await store.read(ONE, (job_id,)) if possible(job_id) else []
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
        query = query.where(Jobs.id < min(before_id, ID_MAX))
    return [StoredJob(*row) for row in await store.read(query)]


async def counts(store: Store, now: int) -> list[dict[str, Any]]:
    """For each queue that any job names, configured or not, or that is paused: how many jobs are in each state; of
    those available, how many are `ready` and how many `blocked`; how many are `delayed` (scheduled or to be tried
    again); for how many seconds the oldest one that is due has been waiting for a worker; and whether it is `paused`.
    `now` is in microseconds since 1970 UTC."""
    empty = {**dict.fromkeys(STATES, 0), "ready": 0, "blocked": 0, "delayed": 0, "oldest_ready_seconds": 0.0}
    queues: dict[str, dict[str, Any]] = {}

    def row(queue: str) -> dict[str, Any]:
        return queues.setdefault(queue, {"queue": queue, **empty, "paused": False})

    def waited(queue: str, since: int) -> None:
        row(queue)["oldest_ready_seconds"] = max(row(queue)["oldest_ready_seconds"], (now - since) / 1e6)

    for queue, count, since in await store.read(READY):
        row(queue)["ready"] = count
        waited(queue, since)
    for queue, count in await store.read(BLOCKED):
        row(queue)["blocked"] = count
    for state, queue, count, since in await store.read(WAITING):
        row(queue)[state] = count
        row(queue)["delayed"] += count
        waited(queue, since)
    for queue, count in await store.read(EXECUTING):
        row(queue)["executing"] = count
    for state, queue, count in await store.read(ENDED):
        row(queue)[state] = count
    for queue in await paused(store):
        row(queue)["paused"] = True
    for each in queues.values():
        each["available"] = each["ready"] + each["blocked"]
    return [queues[name] for name in sorted(queues)]


def retry_dead(tx: Tx, ids: Iterable[int], now: int) -> int:
    """The old name of `retry`."""
    return retry(tx, ids, now)
