"""Verbs of the table `jobs` that anybody may use: dispatch, look, retry what is dead, cancel, purge. A worker's verbs,
which need a claim, are in `claims`.

A job's way: `scheduled` (until `run_at`) or `available`, then `executing` under a lease, then `completed`, `retryable`
(until its next `run_at`), `dead` or `cancelled`. One that is available may be blocked all the same: see `limits` and
`breakers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from peewee import SQL, fn

from . import breakers, limits
from .batches import batch, elements
from .gates import AVAILABLE
from .job_adding import add
from .job_records import (
    FINISHED,
    INCOMPLETE,
    IS_FINISHED,
    NO_LEASE,
    STATES,
    Dispatched,
    Limit,
    NewJob,
    Options,
    Parent,
    StoredJob,
    Unique,
    possible,
    source,
)
from .job_views import conditions, counts, find, one
from .store import NULL, ZERO, Statement, Tx, literal, storable
from .tables import DeadLetters, Jobs

__all__ = [
    "FINISHED", "INCOMPLETE", "STATES", "Dispatched", "Limit", "NewJob", "Options", "Parent", "StoredJob", "Unique",
    "add", "cancel", "counts", "find", "one", "purge", "redate", "remove", "retry", "retry_where", "source",
]  # fmt: skip

_DEAD = literal("dead")


NEXT_QUEUE = Statement(
    lambda p: Jobs.select(fn.MIN(Jobs.queue)).where(IS_FINISHED & (Jobs.state == p) & (Jobs.queue > p))
)
REVIVE = Statement(
    lambda p: (
        Jobs.update(
            {
                **AVAILABLE, Jobs.attempt: ZERO, Jobs.run_at: p, Jobs.error: NULL, Jobs.finished_at: NULL,
                Jobs.expires_at: p + Jobs.expires_at - Jobs.created_at,
            }
        )
        .where(Jobs.id.in_(elements(p, int)) & (Jobs.state == _DEAD))
        .returning(Jobs.id, Jobs.limit_key)
    )
)  # fmt: skip
REDRIVEN = Statement(
    lambda p: DeadLetters.update({DeadLetters.redriven_at: p}).where(
        DeadLetters.job_id.in_(elements(p, int)) & DeadLetters.redriven_at.is_null()
    )
)
CANCEL = Statement(
    lambda p: (
        Jobs.update({Jobs.state: literal("cancelled"), Jobs.finished_at: p, Jobs.blocked_by: NULL, **NO_LEASE})
        .where(
            Jobs.id.in_(elements(p, int)) & Jobs.state.in_(SQL("('scheduled', 'available', 'executing', 'retryable')"))
        )
        .returning(Jobs.id, Jobs.limit_key, Jobs.needs)
    )
)
REMOVE = Statement(lambda p: Jobs.delete().where(Jobs.id.in_(elements(p, int)) & IS_FINISHED))
REDATE = Statement(
    lambda p: Jobs.update({Jobs.finished_at: p}).where(
        IS_FINISHED & (Jobs.state == p) & (Jobs.queue == p) & (Jobs.finished_at < p)
    )
)


def retry(tx: Tx, ids: Iterable[int], now: int) -> int:
    """Let dead jobs run again, with all their attempts and all their time before them; how many were dead. Their open
    dead letters are marked as redriven."""
    revived = tx.rows(REVIVE, (now, now, _batch(ids)))
    if revived:
        tx.run(REDRIVEN, (now, batch([row[0] for row in revived])))
        limits.admit(tx, (row[1] for row in revived), now)
        tx.touch("jobs")
    return len(revived)


def retry_where(tx: Tx, *, queue: str = "", kind: str = "", reason: str = "", now: int, limit: int) -> int:
    """`retry` of up to `limit` dead jobs that fit all given; `reason` is that of their open dead letter. Call it again
    while it returns `limit`."""
    query = Jobs.select(Jobs.id).where(*conditions("dead", queue, kind)).limit(limit)
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
        limits.admit(tx, (key for _, key, _ in cancelled), now)
        breakers.left(tx, ((job_id, needs) for job_id, _, needs in cancelled), now)
        tx.touch("cancelled")
    return len(cancelled)


def remove(tx: Tx, ids: Iterable[int]) -> int:
    """Remove jobs that have ended; how many."""
    return tx.run(REMOVE, (_batch(ids),))


def purge(
    tx: Tx,
    *,
    states: Sequence[str],
    queue: str = "",
    kind: str = "",
    finished_before: int | None,
    limit: int,
) -> int:
    """Remove up to `limit` jobs in one of `states`; how many. With `finished_before` (microseconds since 1970 UTC) only
    those that had ended by then, the first to end first. A job that runs is never removed: cancel it. Call it again
    while it returns `limit`."""
    removed = 0
    for state in STATES if finished_before is None else FINISHED:
        if state not in states or state == "executing":
            continue
        for name in [queue] if queue or finished_before is None else _queues(tx, state):
            query = Jobs.select(Jobs.id).where(*conditions(state, name, kind)).limit(limit - removed)
            if finished_before is not None:
                query = query.where(Jobs.finished_at < finished_before).order_by(Jobs.finished_at)
            delete = Jobs.delete().where(Jobs.id.in_(query)).returning(Jobs.id, Jobs.limit_key, Jobs.needs)
            gone = tx.rows(delete)
            if state not in FINISHED:
                limits.admit_later(tx, (key for _, key, _ in gone))
                breakers.left(tx, ((job_id, needs) for job_id, _, needs in gone), 0)
            removed += len(gone)
            if removed >= limit:
                return removed
    return removed


def redate(tx: Tx, *, before: int, now: int) -> int:
    """Say of jobs that ended before a clock was set, at a moment earlier than `before`, that they ended `now` (both in
    microseconds since 1970 UTC): their age isn't known. How many."""
    return sum(tx.run(REDATE, (now, state, queue, before)) for state in FINISHED for queue in _queues(tx, state))


def _batch(ids: Iterable[int]) -> str:
    return batch([job_id for job_id in ids if possible(job_id)])


def _queues(tx: Tx, state: str) -> Iterator[str]:
    """The queues of finished jobs in `state`, found without reading all of them."""
    name = ""
    while True:
        [(name,)] = tx.rows(NEXT_QUEUE, (state, name))
        if name is None:
            return
        yield name
