"""How a claim ends: each kind of end a record, and one verb that commits many of them.

Nothing is changed by the end of a claim that isn't the current one any more (G7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
import peewee as pw

from . import dead_letters
from .batches import batch, each, item
from .dead_letters import NewDeadLetter
from .job_records import NO_LEASE, StoredJob, source
from .store import NULL, Statement, Tx, literal, storable
from .tables import Jobs


class End(msgspec.Struct, frozen=True):
    """What became of a claim. `job` is what the claim returned."""

    job: StoredJob


class Completed(End, frozen=True):
    """Done. `result` is JSON text."""

    result: str


class Retried(End, frozen=True):
    """It failed, with `error`, and is tried again from `run_at` on.

    `last`: there is no attempt left. It takes effect only if this attempt doesn't count, because what the job needs is
    broken; if it does count, nothing is changed, `end` says False, and the job is to be buried.
    """

    run_at: int
    error: str
    last: bool = False


class Snoozed(End, frozen=True):
    """Not now: the job runs again from `run_at` on, and the attempt doesn't count."""

    run_at: int


class Buried(End, frozen=True):
    """Dead for good, with a dead letter that has `reason`, one short word, and `error`."""

    reason: str
    error: str


class Released(End, frozen=True):
    """Given back as if it had not been claimed: the attempt doesn't count."""


_E = TypeVar("_E", bound=End)
_ONE = pw.SQL("1")


def held() -> pw.Node:
    """For a statement whose rows are [id, token, …]: that the claim is still the current one."""
    return (Jobs.id == item(0)) & (Jobs.state == literal("executing")) & (Jobs.lease_token == item(1))


def _end(p: pw.SQL, changes: dict[pw.Field, object]) -> pw.Node:
    return Jobs.update({**changes, **NO_LEASE}).from_(each(p)).where(held()).returning(Jobs.id, Jobs.lease_token)


COMPLETE = Statement(
    lambda p: _end(p, {Jobs.state: literal("completed"), Jobs.finished_at: p, Jobs.result: item(2), Jobs.error: NULL})
)
RETRY = Statement(lambda p: _end(p, {Jobs.state: literal("retryable"), Jobs.run_at: item(2), Jobs.error: item(3)}))
SNOOZE = Statement(
    lambda p: _end(p, {Jobs.state: literal("scheduled"), Jobs.run_at: item(2), Jobs.attempt: Jobs.attempt - _ONE})
)
BURY = Statement(lambda p: _end(p, {Jobs.state: literal("dead"), Jobs.finished_at: p, Jobs.error: item(2)}))
RELEASE = Statement(lambda p: _end(p, {Jobs.state: literal("available"), Jobs.attempt: Jobs.attempt - _ONE}))


def end(tx: Tx, ends: Sequence[End], *, now: int) -> list[bool]:
    """End claims; for each, in their order, whether it took effect. `now` is in microseconds since 1970 UTC."""
    done: set[tuple[int, int]] = set()
    completed = _of(ends, Completed)
    if completed:
        rows = [[*_claim(end), storable(end.result)] for end in completed]
        done |= _run(tx, COMPLETE, (now, batch(rows)))
    retried = [end for end in _of(ends, Retried) if not end.last]
    if retried:
        done |= _run(tx, RETRY, (batch([[*_claim(end), end.run_at, storable(end.error)] for end in retried]),))
    snoozed = _of(ends, Snoozed)
    if snoozed:
        done |= _run(tx, SNOOZE, (batch([[*_claim(end), end.run_at] for end in snoozed]),))
    buried = _of(ends, Buried)
    if buried:
        dead = _run(tx, BURY, (now, batch([[*_claim(end), storable(end.error)] for end in buried])))
        dead_letters.add(tx, [_letter(end, now) for end in buried if _claim(end) in dead])
        done |= dead
    released = _of(ends, Released)
    if released:
        done |= _run(tx, RELEASE, (batch([_claim(end) for end in released]),))
    if retried or snoozed or released:
        tx.touch("jobs")
    return [_claim(end) in done for end in ends]


def _of(ends: Iterable[End], kind: type[_E]) -> list[_E]:
    return [end for end in ends if type(end) is kind]


def _claim(end: End) -> tuple[int, int]:
    return end.job.id, end.job.lease_token or 0


def _run(tx: Tx, statement: Statement, params: Sequence[object]) -> set[tuple[int, int]]:
    return {(job_id, token) for job_id, token in tx.rows(statement, params)}


def _letter(end: Buried, now: int) -> NewDeadLetter:
    job = end.job
    return NewDeadLetter(
        source=source(job.queue),
        reason=end.reason,
        error=end.error,
        payload=job.args.encode(),
        event_id=job.cause_id,
        job_id=job.id,
        created_at=now,
        detail={"kind": job.kind, "attempt": job.attempt, "max_attempts": job.max_attempts},
    )
