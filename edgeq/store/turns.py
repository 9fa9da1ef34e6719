"""A limit that jobs of several queues share: whose turn it is.

A job that was let on has its place under the limit before it is claimed. If its queue is paused, or nobody works on it,
all others would wait for it; so after TURN_SECONDS its place goes to a job of the next queue, by name, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable

import peewee as pw

from .batches import VALUE, batch, each
from .gates import BLOCKED_BY_BREAKER, LIMIT
from .job_records import order
from .store import Statement, Tx, literal
from .tables import Jobs

TURN_SECONDS = 5.0

_ONE = pw.SQL("1")
_AVAILABLE = literal("available")
_job = Jobs.alias("job")


def _let_on(key: pw.Node) -> pw.Node:
    # The IN term is what lets SQLite use the partial index.
    here: pw.Node = (
        (_job.limit_key == key)
        & _job.state.in_(pw.SQL("('available', 'executing')"))
        & (_job.state == _AVAILABLE)
        & _job.blocked_by.is_null()
    )
    return here


def _waits(key: pw.Node) -> pw.Node:
    here: pw.Node = (_job.limit_key == key) & (_job.state == _AVAILABLE) & (_job.blocked_by == LIMIT)
    return here


def shared(key: pw.Node, queue: pw.Node) -> pw.Node:
    """For a statement: whether a job of another queue than this one waits for the limit, or was let on."""

    any_of_them: pw.Node = (
        pw.fn.EXISTS(_job.select(_ONE).where(_waits(key) & (_job.queue > queue)))
        | pw.fn.EXISTS(_job.select(_ONE).where(_waits(key) & (_job.queue < queue)))
        | pw.fn.EXISTS(_job.select(_ONE).where(_let_on(key) & (_job.queue != queue)))
    )
    return any_of_them


def _holder(column: pw.Field) -> pw.Node:
    """Of an element's limit: what stands in the column of the job that was let on first."""
    return _job.select(column).where(_let_on(VALUE)).order_by(*order(_job)).limit(_ONE)


# Not a join, for which a server may read all jobs there are.
HOLDERS = Statement(lambda p: pw.Select([each(p)], [VALUE, _holder(_job.id), _holder(_job.queue)]))
AFTER = Statement(
    lambda p: _job.select(_job.id).where(_waits(p) & (_job.queue > p)).order_by(_job.queue, *order(_job)).limit(_ONE)
)
BEFORE = Statement(
    lambda p: _job.select(_job.id).where(_waits(p) & (_job.queue < p)).order_by(_job.queue, *order(_job)).limit(_ONE)
)
TAKE_BACK = Statement(lambda p: Jobs.update({Jobs.blocked_by: LIMIT}).where(Jobs.id == p))
LET_ON = Statement(lambda p: Jobs.update({Jobs.blocked_by: BLOCKED_BY_BREAKER}).where(Jobs.id == p))


def ends_at(now: int, until: int | None) -> int:
    """When a turn ends that is the present one since `now`, or is to end at `until` already."""
    end = now + round(TURN_SECONDS * 1e6)
    return end if until is None or not now < until < end else until


def pass_on(tx: Tx, keys: Iterable[str]) -> None:
    """For each of these limits give the place of a job that was let on, and isn't claimed, to one of another queue."""
    for key, holder, queue in tx.rows(HOLDERS, (batch(sorted(keys)),)):
        following = holder and (tx.rows(AFTER, (key, queue)) or tx.rows(BEFORE, (key, queue)))
        if following:
            tx.run(TAKE_BACK, (holder,))
            tx.run(LET_ON, following[0])
            tx.touch("jobs")
