"""A worker's verbs on the table `jobs`: claim, keep the claim, and end it.

The attempt is counted at the claim (G7), so a job that kills its process runs out of attempts like any other. Every
claim has a token of its own, greater than the last: a verb that ends or extends a claim does nothing when the claim
isn't the current one any more.

Workers of several machines may claim, extend and end at the same moment (`shared`, see store.submit). They never wait
for one another's rows: a claim passes over those that another one is about to take, and what has a lease is changed by
its holder alone. Who takes jobs from others, `rescue`, is alone; and so is whoever finds that a limit, a rate, a
breaker or a unique key has a say, which is read first and written then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import peewee as pw

from . import limits, queues
from .batches import batch, each, item
from .breakers import BreakerSettings as BreakerSettings
from .breakers import attend, busy, clear, left
from .dialect import unlocked
from .ends import HELD, held
from .ends import Buried as Buried
from .ends import Completed as Completed
from .ends import End as End
from .ends import Released as Released
from .ends import Retried as Retried
from .ends import Snoozed as Snoozed
from .ends import end as end
from .gates import AVAILABLE
from .job_outlook import Outlook as Outlook
from .job_outlook import look
from .job_outlook import outlook as outlook
from .job_records import AGE_SECONDS as AGE_SECONDS
from .job_records import COLUMNS, NO_LEASE, StoredJob, order
from .rates import Rate as Rate
from .store import ZERO, Statement, Store, Tx, literal, storable
from .tables import Jobs

PROMOTED_AT_ONCE_MAX = 1000

_ONE = pw.SQL("1")
_WAITING = pw.SQL("('scheduled', 'retryable')")
_AVAILABLE, _EXECUTING = literal("available"), literal("executing")

_due = Jobs.alias("due")
_ready = Jobs.alias("ready")


PROMOTE = Statement(
    lambda p: (
        Jobs.update(AVAILABLE)
        .where(
            unlocked(
                Jobs.id,
                _due.select(_due.id)
                .where(_due.state.in_(_WAITING) & (_due.queue == p) & (_due.run_at <= p))
                .order_by(_due.state, _due.queue, _due.run_at)
                .limit(p),
            )
        )
        .returning(Jobs.limit_key)
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
            unlocked(
                Jobs.id,
                _ready.select(_ready.id)
                .where((_ready.state == _AVAILABLE) & _ready.blocked_by.is_null() & (_ready.queue == p))
                .order_by(*order(_ready))
                .limit(p),
            )
        )
        .returning(*COLUMNS)
    )
)  # fmt: skip
EXTEND = Statement(
    lambda p: Jobs.update({Jobs.lease_expires_at: p}).from_(each(p)).where(held()).returning(Jobs.id, Jobs.lease_token)
)
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
    lambda p: Jobs.update({**AVAILABLE, Jobs.run_at: p, Jobs.error: item(2), **NO_LEASE}).from_(each(p)).where(held())
)


class Rescued(msgspec.Struct, frozen=True):
    """A job whose lease ended without a word from its worker. `dead`: that was its last attempt."""

    id: int
    dead: bool


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
    at. The lease ends `lease_seconds` after `now`, which is Tx.now, here and in all verbs. A job whose `expires_at`
    has passed is claimed like any other, for its worker to bury. `rate` is that of the queue.
    """
    ahead = look(tx, queue, now)
    if ahead.paused or limit <= 0:
        return []
    if rate is not None or ahead.rate_at or ahead.attend:
        tx.alone()
    ready = ahead.ready
    if ahead.admit_at is not None and ahead.admit_at <= now:
        limits.admit_due(tx, now)
        ready = True
    if ahead.due_at is not None and ahead.due_at <= now:
        promoted = tx.rows(PROMOTE, (queue, now, PROMOTED_AT_ONCE_MAX))
        limits.admit(tx, (row[0] for row in promoted), now)
        tx.touch("jobs")
        ready = True
    limit = queues.left(tx, queue, ahead.rate_at, rate, limit, now)
    if ahead.attend:
        found = busy(tx)
        limit = clear(tx, found, queue, limit, now)
        attend(tx, found, queue, now, breakers)
        ready = True
    if limit <= 0 or not ready:
        return []
    rows = tx.rows(CLAIM, (storable(owner), now + round(lease_seconds * 1e6), queue, limit))
    claimed = sorted((StoredJob(*row) for row in rows), key=_turn)
    limits.use(tx, claimed, now)
    if claimed:
        tx.touch("claimed")
    if rate is not None and claimed:
        queues.use(tx, queue, ahead.rate_at, rate, len(claimed), now)
    return claimed


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
    tx.alone()
    latest = now + round(lease_seconds * 1e6)
    tx.run(SHORTEN, (latest, queue, latest))
    rescued, again, buried = [], [], []
    for row in tx.rows(EXPIRED, (queue, now, limit)):
        job = StoredJob(*row)
        error = (
            f"worker {job.lease_owner} went silent during attempt {job.attempt} of {job.max_attempts}: "
            f"its lease ended {(now - (job.lease_expires_at or 0)) / 1e6:.0f}s ago"
        )
        if job.attempt >= job.max_attempts:
            buried.append(Buried(job, "lease_expired", error))
        else:
            again.append((job, error))
        rescued.append(Rescued(job.id, job.attempt >= job.max_attempts))
    if buried:
        end(tx, buried, now=now)
    if again:
        tx.run(GIVE_AGAIN, (now, batch([(job.id, job.lease_token, storable(error)) for job, error in again])))
        limits.admit(tx, (job.limit_key for job, _ in again), now)
        left(tx, ((job.id, job.needs) for job, _ in again), now)
        tx.touch("jobs")
    return rescued


def _turn(job: StoredJob) -> tuple[int, int]:
    return job.run_at - job.priority * round(AGE_SECONDS * 1e6), job.id


def _claims(jobs: Sequence[StoredJob]) -> str:
    return batch([(job.id, job.lease_token) for job in jobs])


def _missing(jobs: Sequence[StoredJob], rows: Sequence[Sequence[int]]) -> set[int]:
    there = {tuple(row) for row in rows}
    return {job.id for job in jobs if (job.id, job.lease_token) not in there}
