"""What the verbs of the table `jobs` take and give: records without behaviour, and the columns they are read from."""

from __future__ import annotations

import logging
from typing import Annotated

import msgspec
from peewee import SQL, ModelAlias, Node

from .dialect import ByDialect
from .store import NULL, literal, storable
from .tables import Jobs

log = logging.getLogger("edgeq.store")

WAITING = ("scheduled", "retryable")
INCOMPLETE = ("scheduled", "available", "executing", "retryable")
FINISHED = ("completed", "cancelled", "dead")
STATES = (*INCOMPLETE, *FINISHED)

# One point of priority is worth so many seconds of waiting. The indexes that give the order have it written out.
AGE_SECONDS = 6.0
_AGE_US = round(AGE_SECONDS * 1e6)
_AGE = ByDialect(sqlite=SQL(f"{_AGE_US}"), postgresql=SQL(f"{_AGE_US}::bigint"))

ID_MAX = 2**63 - 1
# Far enough from the ends of 64 bits that a sum of two such numbers isn't beyond them.
MOMENT_MAX = 2**61
PRIORITY_MAX = 1_000_000

COLUMNS = (
    Jobs.id, Jobs.queue, Jobs.kind, Jobs.args, Jobs.priority, Jobs.state, Jobs.attempt, Jobs.max_attempts, Jobs.run_at,
    Jobs.lease_owner, Jobs.lease_token, Jobs.lease_expires_at, Jobs.unique_key, Jobs.progress, Jobs.result, Jobs.error,
    Jobs.cause_id, Jobs.created_at, Jobs.finished_at, Jobs.blocked_by, Jobs.limit_key, Jobs.needs, Jobs.expires_at,
    Jobs.options,
)  # fmt: skip
# FINISHED, as the index of such jobs says it: no other state's name is between these two. The index is for queries that
# say the same.
IS_FINISHED = Jobs.state.between(literal("cancelled"), literal("dead"))
NO_LEASE = {Jobs.lease_owner: NULL, Jobs.lease_expires_at: NULL}


AtLeast1 = Annotated[int, msgspec.Meta(ge=1)]


class Unique(msgspec.Struct, frozen=True):
    """When a job with a `unique_key` isn't added because one with that key and kind is there already: one in one of
    `states`, and, with `within_us` microseconds, created no longer ago than that."""

    states: tuple[str, ...] = INCOMPLETE
    within_us: int | None = None


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many jobs with one `key` may run: at most `concurrency` at once, and one every `interval_us` microseconds,
    `burst` of them at once after a pause. None: without that limit."""

    key: str
    concurrency: AtLeast1 | None = None
    interval_us: AtLeast1 | None = None
    burst: AtLeast1 = 1


class Parent(msgspec.Struct, frozen=True):
    """What a callback is told of the job that ended: one of `result` (JSON text) and `error` is there."""

    id: int
    kind: str
    args: str
    result: str | None = None
    error: str | None = None


class NewJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that isn't stored yet. `args` is JSON text, `run_at` and `created_at` microseconds since 1970 UTC.

    Of two jobs that are ready, the one with the greater `priority` runs first, unless the other has been ready for
    longer by AGE_SECONDS for each point between them. No attempt begins later than `expires_us` microseconds
    after `run_at`. While the dependency that it `needs` is broken, the job waits. When it completes (is dead for good),
    `on_success` (`on_failure`) is added in the same commit, with `run_at` and `created_at` of that moment.
    """

    queue: str
    kind: str
    args: str
    run_at: int = 0
    created_at: int = 0
    priority: int = 0
    max_attempts: int = 5
    unique_key: str | None = None
    unique: Unique = Unique()
    limit: Limit | None = None
    needs: str | None = None
    expires_us: int | None = None
    on_success: NewJob | None = None
    on_failure: NewJob | None = None
    parent: Parent | None = None
    cause_id: int | None = None


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the column `options` holds, as JSON."""

    limit: Limit | None = None
    on_success: NewJob | None = None
    on_failure: NewJob | None = None
    parent: Parent | None = None


class Dispatched(msgspec.Struct, frozen=True):
    """The answer to a dispatch: the id of the new job, or, `existed`, of the one with the same unique key."""

    id: int
    existed: bool = False


class StoredJob(msgspec.Struct, frozen=True):
    """A job as it stands in the table. `args`, `result`, `progress` and `options` are JSON text; the first line of
    `error` sums it up."""

    id: int
    queue: str
    kind: str
    args: str
    priority: int
    state: str
    attempt: int
    max_attempts: int
    run_at: int
    lease_owner: str | None
    lease_token: int | None
    lease_expires_at: int | None
    unique_key: str | None
    progress: str | None
    result: str | None
    error: str | None
    cause_id: int | None
    created_at: int
    finished_at: int | None
    blocked_by: str | None
    limit_key: str | None
    needs: str | None
    expires_at: int | None
    options: str | None


_NO_OPTIONS = Options()
_options = msgspec.json.Decoder(Options)


def read_options(job_id: int, text: str | None) -> Options:
    """The column `options` of a job. What somebody wrote into it by hand and can't be read counts as nothing."""
    if text is None:
        return _NO_OPTIONS
    try:
        return _options.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        log.error("job %d: its options can't be read, so it has no limit and no callbacks: %s", job_id, error)
        return _NO_OPTIONS


def write_options(job: NewJob) -> str | None:
    """The column `options` for a new job; None when there is nothing in it."""
    if job.limit is None and job.on_success is None and job.on_failure is None and job.parent is None:
        return None
    options = Options(limit=job.limit, on_success=job.on_success, on_failure=job.on_failure, parent=job.parent)
    return msgspec.json.encode(options).decode()


def check(job: NewJob) -> None:
    """Raise ValueError that says what of a job, or of its callbacks, no database takes."""
    texts = {
        "queue": job.queue, "kind": job.kind, "args": job.args, "unique_key": job.unique_key or "",
        "limit.key": job.limit.key if job.limit else "", "needs": job.needs or "",
    }  # fmt: skip
    whole = "".join(texts.values())
    if not whole.isascii() or "\0" in whole:
        for name, text in texts.items():
            if storable(text) != text:
                raise ValueError(
                    f"{name} of a job can't be stored: {text!a:.80} holds null characters or lone surrogates"
                )
    numbers = (
        job.run_at, job.created_at, job.expires_us or 0, job.unique.within_us or 0, job.max_attempts, job.cause_id or 0,
    )  # fmt: skip
    if max(map(abs, numbers)) > MOMENT_MAX or abs(job.priority) > PRIORITY_MAX:
        raise ValueError(f"a number of job {job.kind} is too large to be stored")
    if job.limit is not None:
        concurrency, interval_us, burst = (
            1 if number is None else number
            for number in (job.limit.concurrency, job.limit.interval_us, job.limit.burst)
        )
        if min(concurrency, interval_us, burst) < 1 or max(concurrency, interval_us * burst) > MOMENT_MAX:
            raise ValueError(f"the limit of job {job.kind} must be at least 1, and small enough to be stored")
    for callback in (job.on_success, job.on_failure):
        if callback is not None:
            check(callback)


def order(jobs: ModelAlias[Jobs]) -> tuple[Node, Node]:
    """In which order jobs of one queue, or of one limit, get their turn."""
    return jobs.run_at - jobs.priority * _AGE, jobs.id


def possible(job_id: int) -> bool:
    """Whether a job can have that id."""
    return 0 < job_id <= ID_MAX


def source(queue: str) -> str:
    """What the dead letters of a queue's jobs name as their source."""
    return f"job:{queue}"
