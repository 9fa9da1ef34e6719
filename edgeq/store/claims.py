"""A worker's verbs on the table `jobs`: claim, keep the claim, and end it.

The attempt is counted at the claim (G7), so a job that kills its process runs out of attempts like any other. Every
claim has a token of its own, greater than the last: a verb that ends or extends a claim does nothing when the claim
isn't the current one any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import peewee as pw

from .batches import batch, each, item
from .ends import Buried as Buried
from .ends import Completed as Completed
from .ends import End as End
from .ends import Released as Released
from .ends import Retried as Retried
from .ends import Snoozed as Snoozed
from .ends import end as _end
from .ends import held
from .job_records import AGE_SECONDS as AGE_SECONDS
from .job_records import COLUMNS, NO_LEASE, StoredJob, order
from .store import ZERO, Statement, Store, Tx, literal, storable
from .tables import Jobs, Queues

PROMOTED_AT_ONCE_MAX = 1000

_ONE = pw.SQL("1")
_WAITING = pw.SQL("('scheduled', 'retryable')")
_AVAILABLE, _EXECUTING = literal("available"), literal("executing")

_due = Jobs.alias("due")
_ready = Jobs.alias("ready")
_running = Jobs.alias("running")


def _first_due(state: str, p: pw.SQL) -> pw.Node:
    # The IN term is what lets SQLite use the partial index; the equation lets it read the rows in order.
    return (
        _due.select(_due.run_at)
        .where(_due.state.in_(_WAITING) & (_due.state == literal(state)) & (_due.queue == p))
        .order_by(_due.run_at)
        .limit(_ONE)
    )


PROMOTE = Statement(
    lambda p: Jobs.update({Jobs.state: _AVAILABLE}).where(
        Jobs.id.in_(
            _due.select(_due.id)
            .where(_due.state.in_(_WAITING) & (_due.queue == p) & (_due.run_at <= p))
            .order_by(_due.state, _due.queue, _due.run_at)
            .limit(p)
        )
    )
)
CLAIM = Statement(
    lambda p: (
        Jobs.update(
            {
                Jobs.state: _EXECUTING, Jobs.attempt: Jobs.attempt + _ONE, Jobs.lease_owner: p,
                Jobs.lease_token: pw.fn.COALESCE(Jobs.lease_token, ZERO) + _ONE, Jobs.lease_expires_at: p,
            }
        )
        .where(
            Jobs.id.in_(
                _ready.select(_ready.id)
                .where((_ready.state == _AVAILABLE) & _ready.blocked_by.is_null() & (_ready.queue == p))
                .order_by(*order(_ready))
                .limit(p)
            )
        )
        .returning(*COLUMNS)
    )
)  # fmt: skip
OUTLOOK = Statement(
    lambda p: pw.Select(
        columns=[
            Queues.select(Queues.paused).where(Queues.name == p),
            pw.fn.EXISTS(
                _ready.select(_ONE).where(
                    (_ready.state == _AVAILABLE) & _ready.blocked_by.is_null() & (_ready.queue == p)
                )
            ),
            _first_due("scheduled", p),
            _first_due("retryable", p),
            _running.select(_running.lease_expires_at)
            .where((_running.state == _EXECUTING) & (_running.queue == p))
            .order_by(_running.lease_expires_at)
            .limit(_ONE),
        ]
    )
)
EXTEND = Statement(
    lambda p: Jobs.update({Jobs.lease_expires_at: p}).from_(each(p)).where(held()).returning(Jobs.id, Jobs.lease_token)
)
HELD = Statement(lambda p: Jobs.select(Jobs.id, Jobs.lease_token).from_(Jobs, each(p)).where(held()))
PROGRESS = Statement(lambda p: Jobs.update({Jobs.progress: item(2)}).from_(each(p)).where(held()))
SHORTEN = Statement(
    lambda p: Jobs.update({Jobs.lease_expires_at: p}).where(
        (Jobs.state == _EXECUTING) & (Jobs.queue == p) & (Jobs.lease_expires_at > p)
    )
)
EXPIRED = Statement(
    lambda p: (
        Jobs.select(*COLUMNS)
        .where((Jobs.state == _EXECUTING) & (Jobs.queue == p) & (Jobs.lease_expires_at <= p))
        .order_by(Jobs.lease_expires_at)
        .limit(p)
    )
)
GIVE_AGAIN = Statement(
    lambda p: (
        Jobs.update({Jobs.state: _AVAILABLE, Jobs.run_at: p, Jobs.error: item(2), **NO_LEASE})
        .from_(each(p))
        .where(held())
    )
)


class BreakerSettings(msgspec.Struct, frozen=True):
    """When a dependency counts as broken: after so many `failures` in a row `within_us` microseconds. `wait_us` after
    it was found broken one job tries it again."""

    failures: int = 5
    within_us: int = 60_000_000
    wait_us: int = 30_000_000


class Rate(msgspec.Struct, frozen=True):
    """One job every `interval_us` microseconds, and `burst` of them at once after a pause."""

    interval_us: int
    burst: int = 1


class Rescued(msgspec.Struct, frozen=True):
    """A job whose lease ended without a word from its worker. `dead`: that was its last attempt."""

    id: int
    dead: bool


class Outlook(msgspec.Struct, frozen=True):
    """What a worker of one queue has before it. Times in microseconds since 1970 UTC, None when there is nothing.

    `ready`: a job can be claimed now. `next_at`: when a claim may next find something to do that isn't there now.
    `lease_expires_at`: the earliest end of a lease in this queue. `paused`: nothing is claimed until somebody resumes
    the queue.
    """

    ready: bool
    next_at: int | None
    lease_expires_at: int | None
    paused: bool


def claim(
    tx: Tx,
    *,
    queue: str,
    owner: str,
    lease_seconds: float,
    limit: int,
    now: int,
    rate: Rate | None = None,
    breakers: Mapping[str, BreakerSettings] = {},
) -> list[StoredJob]:
    """Take up to `limit` jobs of `queue`, in the order of their turn; none while the queue is paused.

    What is due by `now` is made available first (at most PROMOTED_AT_ONCE_MAX at once); what isn't due is never looked
    at. The lease ends `lease_seconds` after `now`. A job whose `expires_at` has passed is claimed like any other, for
    its worker to bury.
    """
    paused, *_ = tx.rows(OUTLOOK, (queue,) * 5)[0]
    if paused or limit <= 0:
        return []
    if tx.run(PROMOTE, (queue, now, PROMOTED_AT_ONCE_MAX)):
        tx.touch("jobs")
    rows = tx.rows(CLAIM, (storable(owner), now + round(lease_seconds * 1e6), queue, limit))
    return sorted((StoredJob(*row) for row in rows), key=_turn)


def end(tx: Tx, ends: Sequence[End], *, now: int, breakers: Mapping[str, BreakerSettings] = {}) -> list[bool]:
    """End claims; for each, in their order, whether it took effect. `now` is in microseconds since 1970 UTC."""
    return _end(tx, ends, now=now)


def extend(tx: Tx, jobs: Sequence[StoredJob], *, lease_seconds: float, now: int) -> set[int]:
    """The leases end `lease_seconds` after `now` instead; the ids of those jobs whose claim is lost."""
    return _missing(jobs, tx.rows(EXTEND, (now + round(lease_seconds * 1e6), _claims(jobs))))


async def lost(store: Store, jobs: Sequence[StoredJob]) -> set[int]:
    """The ids of those jobs whose claim isn't the current one any more: cancelled, or taken over."""
    return _missing(jobs, await store.read(HELD, (_claims(jobs),)))


def progress(tx: Tx, job: StoredJob, text_json: str) -> bool:
    """Note how far the job is, as JSON text; False when the claim is lost."""
    return tx.run(PROGRESS, (batch([[job.id, job.lease_token, storable(text_json)]]),)) > 0


def rescue(tx: Tx, *, queue: str, lease_seconds: float, limit: int, now: int) -> list[Rescued]:
    """Take up to `limit` jobs of `queue` from workers whose lease has ended: available again, or dead
    (`lease_expired`, with a dead letter) when no attempt is left. Call it again while it returns `limit`.

    A lease that ends later than one given now would is first cut to that: the clock was set back since.
    """
    latest = now + round(lease_seconds * 1e6)
    tx.run(SHORTEN, (latest, queue, latest))
    rescued, again, buried = [], [], []
    for row in tx.rows(EXPIRED, (queue, now, limit)):
        job = StoredJob(*row)
        error = (
            f"worker {job.lease_owner} went silent during attempt {job.attempt} of {job.max_attempts}: "
            f"its lease ended {(now - (job.lease_expires_at or 0)) / 1e6:.0f}s ago"
        )
        dead = job.attempt >= job.max_attempts
        if dead:
            buried.append(Buried(job, "lease_expired", error))
        else:
            again.append((job.id, job.lease_token, storable(error)))
        rescued.append(Rescued(job.id, dead))
    if buried:
        end(tx, buried, now=now)
    if again:
        tx.run(GIVE_AGAIN, (now, batch(again)))
        tx.touch("jobs")
    return rescued


def outlook(tx: Any, queue: str, now: int | None = None) -> Any:
    """What there is to do for a worker of `queue`, as of `now`."""
    if now is None:
        return _old_outlook(tx, queue)
    paused, ready, scheduled, retryable, lease_expires_at = tx.rows(OUTLOOK, (queue,) * 5)[0]
    if paused:
        return Outlook(False, None, lease_expires_at, paused=True)
    due = [moment for moment in (scheduled, retryable) if moment is not None]
    return Outlook(bool(ready), min(due, default=None), lease_expires_at, paused=False)


def _turn(job: StoredJob) -> tuple[int, int]:
    return job.run_at - job.priority * round(AGE_SECONDS * 1e6), job.id


def _claims(jobs: Sequence[StoredJob]) -> str:
    return batch([(job.id, job.lease_token) for job in jobs])


def _missing(jobs: Sequence[StoredJob], rows: Sequence[Sequence[int]]) -> set[int]:
    there = {tuple(row) for row in rows}
    return {job.id for job in jobs if (job.id, job.lease_token) not in there}


# The old verbs, until the worker has the new ones.


class Claim(msgspec.Struct, frozen=True):
    """A worker's hold on a job: the fence of every verb that ends an attempt."""

    id: int
    token: int


class OldOutlook(msgspec.Struct, frozen=True):
    """See Outlook."""

    available: bool
    next_run_at: int | None
    lease_expires_at: int | None


async def _old_outlook(store: Store, queue: str) -> OldOutlook:
    paused, ready, scheduled, retryable, lease_expires_at = (await store.read(OUTLOOK, (queue,) * 5))[0]
    due = [moment for moment in (scheduled, retryable) if moment is not None]
    return OldOutlook(bool(ready) and not paused, min(due, default=None), lease_expires_at)


def _job(tx: Tx, claim: Claim) -> StoredJob:
    rows = tx.rows(Jobs.select(*COLUMNS).where(Jobs.id == claim.id))
    return msgspec.structs.replace(StoredJob(*rows[0]), lease_token=claim.token)


def complete(tx: Tx, claim: Claim, *, result: str, now: int) -> bool:
    """End the claim with success. `result` is JSON text."""
    return end(tx, [Completed(_job(tx, claim), result)], now=now)[0]


def retry(tx: Tx, claim: Claim, *, run_at: int, error: str) -> bool:
    """End the claim; the job is tried again from `run_at` on."""
    return end(tx, [Retried(_job(tx, claim), run_at, error)], now=run_at)[0]


def bury(tx: Tx, claim: Claim, *, reason: str, error: str, now: int) -> bool:
    """End the claim for good."""
    return end(tx, [Buried(_job(tx, claim), reason, error)], now=now)[0]


def release(tx: Tx, claim: Claim) -> bool:
    """Give the job back as if it had not been claimed: the attempt doesn't count."""
    return end(tx, [Released(_job(tx, claim))], now=0)[0]


def extend_lease(tx: Tx, claim: Claim, *, lease_seconds: float, now: int) -> bool:
    """The lease ends `lease_seconds` after `now` instead."""
    return not extend(tx, [_job(tx, claim)], lease_seconds=lease_seconds, now=now)
