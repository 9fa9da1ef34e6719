"""How a claim ends: each kind of end a record, and one verb that commits many of them.

Nothing is changed by the end of a claim that isn't the current one any more (G7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import peewee as pw

from . import dead_letters, jobs, limits
from .batches import batch, batches, each, item
from .breakers import BreakerSettings, Outcome, judge
from .dead_letters import NewDeadLetter
from .gates import AVAILABLE
from .job_records import MOMENT_MAX, NO_LEASE, NewJob, Parent, StoredJob, read_options, source
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
_Claim = tuple[int, int | None]
_ONE = pw.SQL("1")


def held() -> pw.Node:
    """For a statement whose rows are [id, token, …]: that the claim is still the current one."""
    return (Jobs.id == item(0, int)) & (Jobs.state == literal("executing")) & (Jobs.lease_token == item(1, int))


def _end(p: pw.SQL, changes: Mapping[object, object]) -> pw.Node:
    return Jobs.update({**changes, **NO_LEASE}).from_(each(p)).where(held()).returning(Jobs.id, Jobs.lease_token)


HELD = Statement(lambda p: Jobs.select(Jobs.id, Jobs.lease_token).from_(Jobs, each(p)).where(held()))
COMPLETE = Statement(
    lambda p: _end(p, {Jobs.state: literal("completed"), Jobs.finished_at: p, Jobs.result: item(2), Jobs.error: NULL})
)
RETRY = Statement(
    lambda p: _end(
        p,
        {
            Jobs.state: literal("retryable"), Jobs.run_at: item(2, int), Jobs.error: item(3),
            Jobs.attempt: Jobs.attempt - item(4, int),
        },
    )
)  # fmt: skip
SNOOZE = Statement(
    lambda p: _end(p, {Jobs.state: literal("scheduled"), Jobs.run_at: item(2, int), Jobs.attempt: Jobs.attempt - _ONE})
)
BURY = Statement(lambda p: _end(p, {Jobs.state: literal("dead"), Jobs.finished_at: p, Jobs.error: item(2)}))
RELEASE = Statement(lambda p: _end(p, {**AVAILABLE, Jobs.attempt: Jobs.attempt - _ONE}))


def end(tx: Tx, ends: Sequence[End], *, now: int, breakers: Mapping[str, BreakerSettings] = {}) -> list[bool]:
    """End claims, each at most once; for each, in their order, whether it took effect.

    In the same commit callbacks are added, those who wait for a limit go on, and it is noted what the ends say of the
    dependencies that the jobs need: one that completes says that its dependency works, one that is to be tried again
    that it doesn't. `now` is in microseconds since 1970 UTC.
    """
    broken = _judge(tx, ends, now, breakers)
    done: set[_Claim] = set()

    def run(statement: Statement, rows: Sequence[tuple[object, ...]], *params: object) -> None:
        for some in batches(rows) if rows else ():
            done.update((job_id, token) for job_id, token in tx.rows(statement, (*params, some)))

    run(COMPLETE, [(*_claim(end), storable(end.result)) for end in _of(ends, Completed)], now)
    retried = [end for end in _of(ends, Retried) if not end.last or _claim(end) in broken]
    run(
        RETRY,
        [(*_claim(end), _moment(end.run_at), storable(end.error), int(_claim(end) in broken)) for end in retried],
    )
    run(SNOOZE, [(*_claim(end), _moment(end.run_at)) for end in _of(ends, Snoozed)])
    run(BURY, [(*_claim(end), storable(end.error)) for end in _of(ends, Buried)], now)
    run(RELEASE, [_claim(end) for end in _of(ends, Released)])
    answers = [_claim(end) in done for end in ends]
    _follow_up(tx, [end for end, did in zip(ends, answers, strict=True) if did], now)
    return answers


def _follow_up(tx: Tx, ends: Sequence[End], now: int) -> None:
    dead_letters.add(tx, [_letter(end, now) for end in _of(ends, Buried)])
    jobs.add(tx, [callback for end in ends if end.job.options is not None for callback in _callbacks(end, now)])
    limits.admit(tx, (end.job.limit_key for end in ends), now)
    finished = sum(isinstance(end, Completed | Buried) for end in ends)
    if finished:
        tx.touch("finished")
    if finished < len(ends):
        tx.touch("jobs")


def _judge(tx: Tx, ends: Sequence[End], now: int, settings: Mapping[str, BreakerSettings]) -> set[_Claim]:
    """Those claims whose attempt doesn't count, because what the job needs is broken."""
    needing = [end for end in ends if end.job.needs is not None]
    if not needing:
        return set()
    tx.alone()
    current = {(job_id, token) for job_id, token in tx.rows(HELD, (batch([_claim(end) for end in needing]),))}
    needing = [end for end in needing if _claim(end) in current]
    answers = judge(tx, [_outcome(end) for end in needing], now, settings)
    return {_claim(end) for end, broken in zip(needing, answers, strict=True) if broken}


def _outcome(end: End) -> Outcome:
    needs = end.job.needs or ""
    match end:
        case Completed():
            return Outcome(needs, end.job.id, "worked")
        case Retried():
            return Outcome(needs, end.job.id, "failed", storable(end.error))
    return Outcome(needs, end.job.id, "unknown")


def _callbacks(end: End, now: int) -> Iterator[NewJob]:
    """The jobs that were to be added when this job ends so."""
    job = end.job
    options = read_options(job.id, job.options)
    match end:
        case Completed():
            new, parent = options.on_success, Parent(job.id, job.kind, job.args, result=end.result)
        case Buried():
            new, parent = options.on_failure, Parent(job.id, job.kind, job.args, error=storable(end.error))
        case _:
            return
    if new is not None:
        cause_id = job.cause_id if new.cause_id is None else new.cause_id
        yield msgspec.structs.replace(new, run_at=now, created_at=now, parent=parent, cause_id=cause_id)


def _of(ends: Iterable[End], kind: type[_E]) -> list[_E]:
    return [end for end in ends if type(end) is kind]


def _claim(end: End) -> _Claim:
    return end.job.id, end.job.lease_token


def _moment(moment: int) -> int:
    return max(-MOMENT_MAX, min(moment, MOMENT_MAX))


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
