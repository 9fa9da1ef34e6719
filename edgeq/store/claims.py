"""A worker's verbs on the table `jobs`: claim, and end the claim.

The attempt is counted at the claim (G7), so a job that kills its process runs out of attempts like any other. Every
claim has a token of its own, greater than the last: a verb that ends or extends a claim does nothing and returns False
when the claim isn't the current one any more.
"""

from __future__ import annotations

import msgspec
import peewee as pw

from . import dead_letters
from .dead_letters import NewDeadLetter
from .jobs import COLUMNS, NO_LEASE, StoredJob, source
from .store import NULL, ZERO, Statement, Store, Tx, literal
from .tables import Jobs

PROMOTED_AT_ONCE_MAX = 1000

_ONE = pw.SQL("1")
_WAITING = pw.SQL("('scheduled', 'retryable')")
_AVAILABLE, _EXECUTING = literal("available"), literal("executing")

_due = Jobs.alias("due")
_ready = Jobs.alias("ready")
_held = Jobs.alias("held")


def _first_due(state: str) -> pw.Node:
    # The IN term is what lets SQLite use the partial index; the equation lets it read the rows in order.
    return (
        _due.select(_due.run_at)
        .where(_due.state.in_(_WAITING) & (_due.state == literal(state)))
        .order_by(_due.run_at)
        .limit(_ONE)
    )


PROMOTE = Statement(
    lambda p: Jobs.update({Jobs.state: _AVAILABLE}).where(
        Jobs.id.in_(
            _due.select(_due.id)
            .where(_due.state.in_(_WAITING) & (_due.run_at <= p))
            .order_by(_due.state, _due.run_at)
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
                .where((_ready.state == _AVAILABLE) & (_ready.queue == p))
                .order_by(_ready.priority.desc(), _ready.id)
                .limit(p)
            )
        )
        .returning(*COLUMNS)
    )
)  # fmt: skip
OUTLOOK = Statement(
    lambda p: pw.Select(
        columns=[
            pw.fn.EXISTS(_ready.select(_ONE).where((_ready.state == _AVAILABLE) & (_ready.queue == p))),
            _first_due("scheduled"),
            _first_due("retryable"),
            _held.select(_held.lease_expires_at)
            .where((_held.state == _EXECUTING) & (_held.queue == p))
            .order_by(_held.lease_expires_at)
            .limit(_ONE),
        ]
    )
)


def _while_held(p: pw.SQL) -> pw.Node:
    return (Jobs.id == p) & (Jobs.state == _EXECUTING) & (Jobs.lease_token == p)


COMPLETE = Statement(
    lambda p: Jobs.update(
        {Jobs.state: literal("completed"), Jobs.result: p, Jobs.error: NULL, Jobs.finished_at: p, **NO_LEASE}
    ).where(_while_held(p))
)
RETRY = Statement(
    lambda p: Jobs.update({Jobs.state: literal("retryable"), Jobs.run_at: p, Jobs.error: p, **NO_LEASE}).where(
        _while_held(p)
    )
)
BURY = Statement(
    lambda p: (
        Jobs.update({Jobs.state: literal("dead"), Jobs.error: p, Jobs.finished_at: p, **NO_LEASE})
        .where(_while_held(p))
        .returning(*COLUMNS)
    )
)
RELEASE = Statement(
    lambda p: Jobs.update({Jobs.state: _AVAILABLE, Jobs.attempt: Jobs.attempt - _ONE, **NO_LEASE}).where(_while_held(p))
)
EXTEND = Statement(lambda p: Jobs.update({Jobs.lease_expires_at: p}).where(_while_held(p)))
SHORTEN = Statement(
    lambda p: Jobs.update({Jobs.lease_expires_at: p}).where(
        (Jobs.state == _EXECUTING) & (Jobs.queue == p) & (Jobs.lease_expires_at > p)
    )
)
EXPIRED = Statement(
    lambda p: (
        _held.select(
            _held.id, _held.lease_token, _held.attempt, _held.max_attempts, _held.lease_owner, _held.lease_expires_at
        )
        .where((_held.state == _EXECUTING) & (_held.queue == p) & (_held.lease_expires_at <= p))
        .order_by(_held.lease_expires_at)
        .limit(p)
    )
)  # fmt: skip
GIVE_AGAIN = Statement(
    lambda p: Jobs.update({Jobs.state: _AVAILABLE, Jobs.run_at: p, Jobs.error: p, **NO_LEASE}).where(_while_held(p))
)


class Claim(msgspec.Struct, frozen=True):
    """A worker's hold on a job: the fence of every verb that ends an attempt."""

    id: int
    token: int


class Rescued(msgspec.Struct, frozen=True):
    """A job whose lease ended without a word from its worker. `dead`: that was its last attempt."""

    id: int
    dead: bool


class Outlook(msgspec.Struct, frozen=True):
    """What a worker of one queue has before it. Times in microseconds since 1970 UTC, None when there is nothing.

    `available`: a job can be claimed now. `next_run_at`: when the next waiting job of any queue is due.
    `lease_expires_at`: the earliest end of a lease in this queue.
    """

    available: bool
    next_run_at: int | None
    lease_expires_at: int | None


def claim(tx: Tx, *, queue: str, owner: str, lease_seconds: float, limit: int, now: int) -> list[StoredJob]:
    """Take up to `limit` jobs of `queue`, highest priority first, within one priority in the order of their ids.

    What is due by `now`, in any queue, is made available first (at most PROMOTED_AT_ONCE_MAX at once); what isn't due
    is never looked at. The lease ends `lease_seconds` after `now`.
    """
    if tx.run(PROMOTE, (now, PROMOTED_AT_ONCE_MAX)):
        tx.touch("jobs")
    rows = tx.rows(CLAIM, (owner, now + round(lease_seconds * 1e6), queue, limit))
    return sorted((StoredJob(*row) for row in rows), key=lambda job: (-job.priority, job.id))


def complete(tx: Tx, claim: Claim, *, result: str, now: int) -> bool:
    """End the claim with success. `result` is JSON text."""
    return tx.run(COMPLETE, (result, now, claim.id, claim.token)) > 0


def retry(tx: Tx, claim: Claim, *, run_at: int, error: str) -> bool:
    """End the claim; the job is tried again from `run_at` on."""
    tx.touch("jobs")
    return tx.run(RETRY, (run_at, error, claim.id, claim.token)) > 0


def bury(tx: Tx, claim: Claim, *, reason: str, error: str, now: int) -> bool:
    """End the claim for good: the job is dead and has a dead letter with `reason`, one short word, and `error`."""
    rows = tx.rows(BURY, (error, now, claim.id, claim.token))
    dead_letters.add(tx, [_letter(StoredJob(*row), reason, error, now) for row in rows])
    return bool(rows)


def release(tx: Tx, claim: Claim) -> bool:
    """Give the job back as if it had not been claimed: the attempt doesn't count."""
    tx.touch("jobs")
    return tx.run(RELEASE, (claim.id, claim.token)) > 0


def extend_lease(tx: Tx, claim: Claim, *, lease_seconds: float, now: int) -> bool:
    """The lease ends `lease_seconds` after `now` instead."""
    return tx.run(EXTEND, (now + round(lease_seconds * 1e6), claim.id, claim.token)) > 0


def rescue(tx: Tx, *, queue: str, lease_seconds: float, limit: int, now: int) -> list[Rescued]:
    """Take up to `limit` jobs of `queue` from workers whose lease has ended: available again, or dead
    (`lease_expired`, with a dead letter) when no attempt is left. Call it again while it returns `limit`.

    A lease that ends later than one given now would is first cut to that: the clock was set back since.
    """
    latest = now + round(lease_seconds * 1e6)
    tx.run(SHORTEN, (latest, queue, latest))
    rescued = []
    for job_id, token, attempt, max_attempts, owner, expired_at in tx.rows(EXPIRED, (queue, now, limit)):
        claim = Claim(job_id, token)
        error = (
            f"worker {owner} went silent during attempt {attempt} of {max_attempts}: "
            f"its lease ended {(now - expired_at) / 1e6:.0f}s ago"
        )
        dead = attempt >= max_attempts
        if dead:
            bury(tx, claim, reason="lease_expired", error=error, now=now)
        else:
            tx.run(GIVE_AGAIN, (now, error, job_id, token))
            tx.touch("jobs")
        rescued.append(Rescued(job_id, dead))
    return rescued


async def outlook(store: Store, queue: str) -> Outlook:
    """What there is to do for a worker of `queue`."""
    available, scheduled, retryable, lease_expires_at = (await store.read(OUTLOOK, (queue, queue)))[0]
    due = [moment for moment in (scheduled, retryable) if moment is not None]
    return Outlook(bool(available), min(due, default=None), lease_expires_at)


def _letter(job: StoredJob, reason: str, error: str, now: int) -> NewDeadLetter:
    return NewDeadLetter(
        source=source(job.queue),
        reason=reason,
        error=error,
        payload=job.args.encode(),
        event_id=job.cause_id,
        job_id=job.id,
        created_at=now,
        detail={"kind": job.kind, "attempt": job.attempt, "max_attempts": job.max_attempts},
    )
