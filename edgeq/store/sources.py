"""What a source of jobs must know of the table `jobs`: how many wait in a queue, and what was done a moment ago."""

from __future__ import annotations

from collections.abc import Sequence

import peewee as pw
from peewee import fn

from .batches import batch, each, item
from .jobs import NewJob
from .store import Statement, Store, Tx, literal
from .tables import Jobs

_ONE = pw.SQL("1")
_jobs = Jobs.alias("done")


def _some(p: pw.SQL, blocked: bool) -> pw.Node:
    """How many jobs of a queue are available, blocked or not; up to so many."""
    found = (
        _jobs.select(_ONE)
        .where((_jobs.queue == p) & (_jobs.state == literal("available")) & _jobs.blocked_by.is_null(not blocked))
        .limit(p)
    )
    return pw.Select([found.alias("some")], [fn.COUNT(pw.SQL("*"))])


def _last(state: str) -> pw.Node:
    """When the last job with an element's key and kind ended in `state`."""
    return (
        _jobs.select(_jobs.finished_at)
        .where((_jobs.unique_key == item(1)) & (_jobs.kind == item(2)) & (_jobs.state == literal(state)))
        .order_by(_jobs.created_at.desc())
        .limit(_ONE)
    )


WAITING = Statement(lambda p: pw.Select(columns=[_some(p, False), _some(p, True)]))
ENDED = Statement(lambda p: pw.Select([each(p)], [item(0, int), _last("completed"), _last("cancelled"), _last("dead")]))


async def waiting(store: Store, queue: str, most: int) -> int:
    """How many jobs of `queue` wait for a worker, ready or blocked; `most` for that many or more."""
    return min(most, sum((await store.read(WAITING, (queue, most, queue, most)))[0]))


def fresh(tx: Tx, jobs: Sequence[NewJob], now: int, window_us: int) -> list[NewJob]:
    """Those of `jobs` of whose kind none with their unique key has ended within `window_us` microseconds of `now`:
    before it, or after it, should the clock have been set back since."""
    rows = [(number, job.unique_key, job.kind) for number, job in enumerate(jobs)]
    late = {
        number
        for number, *ended in tx.rows(ENDED, (batch(rows),))
        if any(at is not None and abs(now - at) < window_us for at in ended)
    }
    return [job for number, job in enumerate(jobs) if number not in late]
