"""What a worker of a queue has before it: what can be claimed now, and when that may be more."""

from __future__ import annotations

import msgspec
import peewee as pw

from .gates import BREAKER
from .store import ZERO, Statement, Tx, literal
from .tables import Breakers, Jobs, Limits, Queues

_ONE = pw.SQL("1")
_AVAILABLE, _EXECUTING = literal("available"), literal("executing")

_due = Jobs.alias("due")
_ready = Jobs.alias("ready")
_running = Jobs.alias("running")
_parked = Jobs.alias("parked")


def _first_due(state: str, p: pw.SQL) -> pw.Node:
    # The IN term is what lets SQLite use the partial index; the equation lets it read the rows in order.
    return (
        _due.select(_due.run_at)
        .where(
            _due.state.in_(pw.SQL("('scheduled', 'retryable')")) & (_due.state == literal(state)) & (_due.queue == p)
        )
        .order_by(_due.run_at)
        .limit(_ONE)
    )


LOOK = Statement(
    lambda p: pw.Select(
        columns=[
            Queues.select(Queues.paused).where(Queues.name == p),
            Queues.select(Queues.rate_at).where(Queues.name == p),
            pw.fn.EXISTS(
                _ready.select(_ONE).where(
                    (_ready.state == _AVAILABLE) & _ready.blocked_by.is_null() & (_ready.queue == p)
                )
            ),
            _first_due("scheduled", p),
            _first_due("retryable", p),
            Limits.select(pw.fn.MIN(Limits.admit_at)).where(Limits.admit_at.is_null(False)),
            pw.fn.EXISTS(Limits.select(_ONE).where(Limits.admit_at.is_null(False) & (Limits.waits_since > p))),
            pw.fn.EXISTS(Breakers.select(_ONE).where(Breakers.probe_at.is_null(False))),
            Breakers.select(pw.fn.MIN(pw.Case(None, ((Breakers.opened_at > p, ZERO),), Breakers.probe_at))).where(
                Breakers.probe_at.is_null(False)
                & (
                    (Breakers.state != literal("open"))
                    | pw.fn.EXISTS(
                        _parked.select(_ONE).where(
                            (_parked.needs == Breakers.name)
                            & (_parked.state == _AVAILABLE)
                            & (_parked.blocked_by == BREAKER)
                            & (_parked.queue == p)
                        )
                    )
                )
            ),
            _running.select(_running.lease_expires_at)
            .where((_running.state == _EXECUTING) & (_running.queue == p))
            .order_by(_running.lease_expires_at)
            .limit(_ONE),
        ]
    )
)


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


class Look(msgspec.Struct, frozen=True):
    """All that a claim and an outlook want to know before anything else. `due_at`: when the next of the queue's waiting
    jobs is due; `admit_at`: when the next job may go on under its limit; `attend`: some dependency was broken, and is
    next looked at at `attend_at`."""

    paused: bool
    rate_at: int
    ready: bool
    due_at: int | None
    admit_at: int | None
    attend: bool
    attend_at: int | None
    lease_expires_at: int | None


def outlook(tx: Tx, queue: str, now: int) -> Outlook:
    """What there is to do for a worker of `queue`, as of `now`."""
    ahead = look(tx, queue, now)
    if ahead.paused:
        return Outlook(False, None, ahead.lease_expires_at, paused=True)
    if ahead.rate_at > now and (ahead.ready or (ahead.due_at is not None and ahead.due_at <= now)):
        return Outlook(False, ahead.rate_at, ahead.lease_expires_at, paused=False)
    moments = [moment for moment in (ahead.due_at, ahead.admit_at, ahead.attend_at) if moment is not None]
    return Outlook(ahead.ready, min(moments, default=None), ahead.lease_expires_at, paused=False)


def look(tx: Tx, queue: str, now: int) -> Look:
    """See Look."""
    [(paused, rate_at, ready, scheduled_at, retryable_at, admit_at, admit_now, attend, attend_at, lease_expires_at)] = (
        tx.rows(LOOK, (queue, queue, queue, queue, queue, now, now, queue, queue))
    )
    due = [moment for moment in (scheduled_at, retryable_at) if moment is not None]
    return Look(
        bool(paused), rate_at or 0, bool(ready), min(due, default=None), now if admit_now else admit_at, bool(attend),
        attend_at, lease_expires_at,
    )  # fmt: skip
