"""How new jobs come into the table `jobs`, and which of them don't, because a job with their unique key is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import peewee as pw
from peewee import fn

from . import limits
from .batches import batch, each, elements, item
from .job_records import MOMENT_MAX, Dispatched, NewJob, check, write_options
from .store import Statement, Tx, literal
from .tables import Breakers, Jobs

_ALWAYS = ("queue", "kind", "args", "priority", "state", "max_attempts", "run_at", "created_at")
_SOMETIMES = ("unique_key", "cause_id", "blocked_by", "limit_key", "needs", "expires_at", "options")
_ALL = _ALWAYS + _SOMETIMES
_COUNT, _NOTHING = len(_ALWAYS), (None,) * len(_SOMETIMES)
_EVER = (-MOMENT_MAX, MOMENT_MAX)

_same = Jobs.alias("same")

TWINS = Statement(
    lambda p: pw.Select(
        [each(p)],
        [
            item(0, int),
            _same.select(fn.MAX(_same.id)).where(
                (_same.unique_key == item(1))
                & (_same.kind == item(2))
                & _same.state.in_(elements(p))
                & _same.created_at.between(item(3, int), item(4, int))
            ),
        ],
    )
)
BROKEN = Statement(
    lambda p: Breakers.select(Breakers.name).where(
        Breakers.name.in_(elements(p)) & (Breakers.state != literal("closed"))
    )
)


def add(tx: Tx, jobs: Sequence[NewJob]) -> list[Dispatched]:
    """Store jobs, to be claimed from their `run_at` on; what became of each, in their order: a job whose `unique_key`
    a job of its kind has already isn't stored (see Unique).

    Raises ValueError for a text or a number that no database takes.
    """
    if len(jobs) == 1 and jobs[0].unique_key is None and jobs[0].limit is None and jobs[0].needs is None:
        check(jobs[0])
        tx.touch("jobs")
        return [Dispatched(_insert(tx, [_row(jobs[0], set())])[0])]
    for job in jobs:
        check(job)
    twins = {}
    if any(job.unique_key is not None for job in jobs):
        tx.alone()
        twins = _twins(tx, jobs)
    fresh = [job for number, job in enumerate(jobs) if number not in twins]
    broken = _broken(tx, fresh)
    ids = iter(_insert(tx, [_row(job, broken) for job in fresh]))
    answers: list[Dispatched] = []
    for number in range(len(jobs)):
        twin = twins.get(number)
        if twin is None:
            answers.append(Dispatched(next(ids)))
        else:
            answers.append(Dispatched(twin.id if twin.number is None else answers[twin.number].id, existed=True))
    if fresh:
        limits.admit(tx, (job.limit.key for job in fresh if job.limit), fresh[0].created_at)
        tx.touch("jobs")
    return answers


class _Twin(msgspec.Struct, frozen=True):
    """Why a new job isn't stored: a stored one, or the one with that number in the same dispatch, stands for it."""

    id: int = 0
    number: int | None = None


def _twins(tx: Tx, jobs: Sequence[NewJob]) -> dict[int, _Twin]:
    """Those of `jobs`, by their number, that are there already."""
    wanted: dict[tuple[str, ...], list[tuple[int, str | None, str, int, int]]] = {}
    for number, job in enumerate(jobs):
        if job.unique_key is not None:
            # Nor one from a time that hasn't come yet: it was created before the clock was set back.
            within = job.unique.within_us
            since, until = _EVER if within is None else (job.created_at - within, job.created_at + within)
            wanted.setdefault(job.unique.states, []).append((number, job.unique_key, job.kind, since, until))
    twins = {
        number: _Twin(id=job_id)
        for states, rows in wanted.items()
        for number, job_id in tx.rows(TWINS, (batch(states), batch(rows)))
        if job_id is not None
    }
    latest: dict[tuple[str, str, str], int] = {}  # of those that are to be stored, by key, kind and state
    for number, job in enumerate(jobs):
        if job.unique_key is None or number in twins:
            continue
        within = _EVER[1] if job.unique.within_us is None else job.unique.within_us
        for state in job.unique.states:
            twin = latest.get((job.unique_key, job.kind, state))
            if twin is not None and abs(job.created_at - jobs[twin].created_at) <= within:
                twins[number] = _Twin(number=twin)
        if number not in twins:
            latest[job.unique_key, job.kind, _state(job)] = number
    return twins


def _broken(tx: Tx, jobs: Sequence[NewJob]) -> set[str]:
    """Which of the dependencies that these jobs need are broken."""
    needed = {job.needs for job in jobs if job.needs is not None}
    return {row[0] for row in tx.rows(BROKEN, (batch(sorted(needed)),))} if needed else set()


def _insert(tx: Tx, rows: list[tuple[Any, ...]]) -> list[int]:
    """The ids of new jobs. What most have none of is left out: to bind a None takes longer than a number or a text."""
    for row in rows:
        if row[_COUNT:] != _NOTHING:
            return tx.insert_returning(Jobs, _ALL, rows)
    return tx.insert_returning(Jobs, _ALWAYS, [row[:_COUNT] for row in rows])


def _row(job: NewJob, broken: set[str]) -> tuple[Any, ...]:
    state, key, blocked_by = _state(job), None if job.limit is None else job.limit.key, None
    if state == "available":
        blocked_by = "breaker" if job.needs in broken else None if key is None else "limit"
    return (
        job.queue, job.kind, job.args, job.priority, state, job.max_attempts, job.run_at, job.created_at,
        job.unique_key, job.cause_id, blocked_by, key, job.needs,
        None if job.expires_us is None else job.run_at + job.expires_us, write_options(job),
    )  # fmt: skip


def _state(job: NewJob) -> str:
    return "scheduled" if job.run_at > job.created_at else "available"
