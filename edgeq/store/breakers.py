"""What is known of the dependencies that jobs need, and who waits for one that is broken.

A dependency is `closed` while it works, `open` once it has failed often enough, and `half_open` while one job, the
probe, tries it. While it isn't closed, what needs it is blocked as soon as it becomes available; what was available
before is blocked when a claim meets it, PARKED_AT_ONCE_MAX at once, and goes on in such portions after the dependency
has closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from . import limits
from .batches import batch, elements
from .gates import BLOCKED_BY_LIMIT, BREAKER
from .job_records import order
from .store import NULL, Statement, Store, Tx, literal
from .tables import Breakers, Jobs

PARKED_AT_ONCE_MAX = 1000
ERROR_CHARACTERS_MAX = 500
_CANDIDATES_MAX = 20
_AGAIN_US = 1_000_000
_ROUNDS_MAX = 5

Verdict = Literal["worked", "failed", "unknown"]

_AVAILABLE = literal("available")
_job = Jobs.alias("job")
_COLUMNS = (
    Breakers.name, Breakers.state, Breakers.failures, Breakers.failed_at, Breakers.opened_at, Breakers.probe_at,
    Breakers.probe_id, Breakers.error,
)  # fmt: skip

BUSY = Statement(lambda p: Breakers.select(*_COLUMNS).where(Breakers.probe_at.is_null(False)))
NAMED = Statement(lambda p: Breakers.select(*_COLUMNS).where(Breakers.name.in_(elements(p))))
SAVE = Statement(
    lambda p: Breakers.update(
        {
            Breakers.state: p, Breakers.failures: p, Breakers.failed_at: p, Breakers.opened_at: p, Breakers.probe_at: p,
            Breakers.probe_id: p, Breakers.error: p,
        }
    ).where(Breakers.name == p)
)  # fmt: skip
PARKED = Statement(
    lambda p: (
        _job.select(_job.id, _job.limit_key, _job.options)
        .where((_job.needs == p) & (_job.state == _AVAILABLE) & (_job.blocked_by == BREAKER) & (_job.queue == p))
        .order_by(*order(_job))
        .limit(p)
    )
)
LET_ON = Statement(lambda p: Jobs.update({Jobs.blocked_by: NULL}).where(Jobs.id == p))
PROBE = Statement(lambda p: Jobs.select(Jobs.state, Jobs.blocked_by, Jobs.limit_key).where(Jobs.id == p))
BLOCK = Statement(lambda p: Jobs.update({Jobs.blocked_by: BREAKER}).where(Jobs.id == p))
PARK = Statement(
    lambda p: (
        Jobs.update({Jobs.blocked_by: BREAKER})
        .where(
            Jobs.id.in_(
                _job.select(_job.id)
                .where((_job.needs == p) & (_job.state == _AVAILABLE) & _job.blocked_by.is_null() & (_job.id != p))
                .limit(p)
            )
        )
        .returning(Jobs.limit_key)
    )
)
UNPARK = Statement(
    lambda p: (
        Jobs.update({Jobs.blocked_by: BLOCKED_BY_LIMIT})
        .where(
            Jobs.id.in_(
                _job.select(_job.id)
                .where((_job.needs == p) & (_job.state == _AVAILABLE) & (_job.blocked_by == BREAKER))
                .limit(p)
            )
        )
        .returning(Jobs.limit_key)
    )
)
HEADS = Statement(
    lambda p: (
        _job.select(_job.id, _job.needs)
        .where((_job.state == _AVAILABLE) & _job.blocked_by.is_null() & (_job.queue == p))
        .order_by(*order(_job))
        .limit(p)
    )
)


class BreakerSettings(msgspec.Struct, frozen=True):
    """When a dependency counts as broken: after so many `failures` in a row, `within_us` microseconds of the first.
    `wait_us` after the last one a job tries it again."""

    failures: int = 5
    within_us: int = 60_000_000
    wait_us: int = 30_000_000


_DEFAULT = BreakerSettings()


class StoredBreaker(msgspec.Struct, frozen=True):
    """A dependency of jobs. `state` is `closed` (it works), `open` (it doesn't) or `half_open` (`probe_id` tries it).
    `failures` in a row, the first of them at `failed_at`; `error` is the first line of the last. Times are in
    microseconds since 1970 UTC; for `probe_at` see tables.Breakers."""

    name: str
    state: str
    failures: int = 0
    failed_at: int | None = None
    opened_at: int | None = None
    probe_at: int | None = None
    probe_id: int | None = None
    error: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What the end of a job says of what it `needs`: it `worked`, it `failed` with `error`, or neither is known."""

    needs: str
    job_id: int
    verdict: Verdict
    error: str = ""


async def all(store: Store) -> list[StoredBreaker]:  # noqa: A001 - breakers.all says it best
    """Every dependency that has ever failed, by name."""
    return [StoredBreaker(*row) for row in await store.read(Breakers.select(*_COLUMNS).order_by(Breakers.name))]


# What a claim does


def busy(tx: Tx) -> list[StoredBreaker]:
    """All that are broken, and those that work again, but for which some jobs still wait."""
    return [StoredBreaker(*row) for row in tx.rows(BUSY)]


def attend(
    tx: Tx, found: Sequence[StoredBreaker], queue: str, now: int, settings: Mapping[str, BreakerSettings]
) -> None:
    """Do what is due for them: let on a probe from `queue`, or some of those that wait for what works again."""
    for breaker in found:
        _save(tx, breaker, _attend(tx, breaker, queue, now, settings.get(breaker.name, _DEFAULT).wait_us))


def clear(tx: Tx, found: Sequence[StoredBreaker], queue: str, limit: int, now: int) -> int:
    """Block those that need what is broken, where they stand in the way of a claim of `limit` jobs; how many can be
    claimed before one of them stands in the way again."""
    broken = {breaker.name: breaker.probe_id for breaker in found if breaker.state != "closed"}
    if not broken or limit <= 0:
        return limit
    for _ in range(_ROUNDS_MAX):
        heads = tx.rows(HEADS, (queue, limit))
        met = [number for number, (job_id, needs) in enumerate(heads) if broken.get(needs, job_id) != job_id]
        if not met:
            return limit
        for needs in {heads[number][1] for number in met}:
            rows = tx.rows(PARK, (needs, broken[needs] or 0, PARKED_AT_ONCE_MAX))
            limits.admit(tx, (row[0] for row in rows), now)
    return met[0]


def _attend(tx: Tx, breaker: StoredBreaker, queue: str, now: int, wait_us: int) -> StoredBreaker:
    change = msgspec.structs.replace
    if breaker.state == "closed":
        rows = tx.rows(UNPARK, (breaker.name, PARKED_AT_ONCE_MAX))
        limits.admit(tx, (row[0] for row in rows), now)
        tx.touch("jobs")
        return breaker if len(rows) == PARKED_AT_ONCE_MAX else change(breaker, probe_at=None)
    if (breaker.opened_at or 0) > now:  # the clock was set back since
        breaker = change(breaker, opened_at=now, probe_at=min(breaker.probe_at or 0, now + wait_us))
    if (breaker.probe_at or 0) > now:
        return breaker
    if breaker.state == "half_open":
        if _runs(tx, breaker.probe_id or 0, now):
            return change(breaker, probe_at=now + wait_us)
        breaker = change(breaker, state="open", probe_id=None, probe_at=now)
    candidates = tx.rows(PARKED, (breaker.name, queue, _CANDIDATES_MAX))
    for job_id, key, options in candidates:
        if key is None or limits.has_room(tx, job_id, key, options, now):
            tx.run(LET_ON, (job_id,))
            tx.touch("jobs")
            return change(breaker, state="half_open", probe_id=job_id, probe_at=now + wait_us)
    return change(breaker, probe_at=now + _AGAIN_US) if candidates else breaker


def _runs(tx: Tx, job_id: int, now: int) -> bool:
    """Whether a probe runs. One that nobody has claimed for so long is blocked again: its queue may be paused."""
    for state, blocked_by, key in tx.rows(PROBE, (job_id,)):
        if state == "executing":
            return True
        if state == "available" and blocked_by is None:
            tx.run(BLOCK, (job_id,))
            limits.admit(tx, (key,), now)
    return False


# What the end of jobs says


def judge(tx: Tx, outcomes: Sequence[Outcome], now: int, settings: Mapping[str, BreakerSettings]) -> list[bool]:
    """Note how these jobs ended, in this order; for each, whether what it needs is broken now, so that its attempt
    doesn't count."""
    before = {row[0]: StoredBreaker(*row) for row in tx.rows(NAMED, (batch(sorted({o.needs for o in outcomes})),))}
    after = dict(before)
    answers = []
    for outcome in outcomes:
        breaker = after.get(outcome.needs) or StoredBreaker(outcome.needs, "closed")
        after[outcome.needs] = breaker = _judged(breaker, outcome, now, settings.get(outcome.needs, _DEFAULT))
        answers.append(breaker.state != "closed")
    for name, breaker in after.items():
        _save(tx, before.get(name), breaker)
    return answers


def left(tx: Tx, jobs: Iterable[tuple[int, str | None]], now: int) -> None:
    """These jobs (id, needs) were cancelled or taken from their worker: a probe among them has shown nothing."""
    outcomes = [Outcome(needs, job_id, "unknown") for job_id, needs in jobs if needs is not None]
    if outcomes:
        judge(tx, outcomes, now, {})


def _judged(breaker: StoredBreaker, outcome: Outcome, now: int, settings: BreakerSettings) -> StoredBreaker:
    change = msgspec.structs.replace
    failed, error = outcome.verdict == "failed", outcome.error.partition("\n")[0][:ERROR_CHARACTERS_MAX]
    if breaker.state == "closed" and failed:
        # A failure from a time that hasn't come yet was noted before the clock was set back.
        in_row = breaker.failed_at is not None and abs(now - breaker.failed_at) <= settings.within_us
        failures = breaker.failures + 1 if in_row else 1
        breaker = change(breaker, failures=failures, failed_at=breaker.failed_at if in_row else now, error=error)
        if failures < settings.failures:
            return breaker
        return change(breaker, state="open", opened_at=now, probe_at=now + settings.wait_us)
    if breaker.state == "closed" and outcome.verdict == "worked":
        return change(breaker, failures=0, failed_at=None, error=None)
    if breaker.state == "half_open" and breaker.probe_id == outcome.job_id:
        if outcome.verdict == "worked":
            return StoredBreaker(breaker.name, "closed", probe_at=now)
        if failed:
            failures, probe_at = breaker.failures + 1, now + settings.wait_us
            return change(
                breaker, state="open", failures=failures, opened_at=now, probe_at=probe_at, probe_id=None, error=error
            )
        return change(breaker, state="open", probe_at=now, probe_id=None)
    return breaker


def _save(tx: Tx, before: StoredBreaker | None, after: StoredBreaker) -> None:
    if before is None and after.failures:
        tx.insert(Breakers, ("name", "state"), [(after.name, "closed")])
    elif before is None or before == after:
        return
    name, *values = msgspec.structs.astuple(after)
    tx.run(SAVE, (*values, name))
    if after.probe_at is not None and (before is None or before.probe_at != after.probe_at):
        tx.touch("jobs")
