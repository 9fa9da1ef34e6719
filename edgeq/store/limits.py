"""Limits of single keys: how many jobs with one key may run at once, and how often one may begin.

Every job with a limit waits, blocked, until `admit` lets it go on, in the order of its turn: as many as there is room
for. Room is reckoned from the jobs themselves: those that run, and those that were let on and aren't claimed yet. So
whoever changes a job with a key calls `admit` for it, in the same commit, and nothing has to be given back. Among the
queues that share a limit, a place that nobody claims goes round: see `turns`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
import peewee as pw

from .batches import VALUE, batch, each, elements, item
from .gates import BLOCKED_BY_BREAKER, BREAKER, LIMIT
from .job_records import Limit, StoredJob, order, read_options
from .rates import Rate
from .store import NULL, Statement, Tx, literal
from .tables import Jobs, Limits
from .turns import ends_at, pass_on, shared

ADMITTED_AT_ONCE_MAX = 1000
_KEYS_AT_ONCE_MAX = 100
_ROUNDS_MAX = 5

_ONE = pw.SQL("1")
_AVAILABLE, _EXECUTING = literal("available"), literal("executing")
_job = Jobs.alias("job")
_head = Jobs.alias("head")


def _with(key: pw.Node, state: pw.SQL) -> pw.Node:
    # The IN term is what lets SQLite use the partial index.
    here: pw.Node = (
        (_job.limit_key == key) & _job.state.in_(pw.SQL("('available', 'executing')")) & (_job.state == state)
    )
    return here


def _blocked(key: pw.Node) -> pw.Node:
    waits: pw.Node = _with(key, _AVAILABLE) & (_job.blocked_by == LIMIT)
    return waits


def _first(key: pw.Node) -> pw.Select:
    return _job.select(_job.id).where(_blocked(key)).order_by(*order(_job)).limit(_ONE)


STANDING = Statement(
    lambda p: pw.Select(
        [pw.Join(each(p), _head, pw.JOIN.LEFT_OUTER, _head.id == _first(VALUE))],
        [
            VALUE,
            _job.select(pw.fn.COUNT(_job.id)).where(_with(VALUE, _EXECUTING)),
            _job.select(pw.fn.COUNT(_job.id)).where(_with(VALUE, _AVAILABLE) & _job.blocked_by.is_null()),
            _head.id,
            _head.options,
            _head.needs,
            pw.fn.EXISTS(_first(VALUE).offset(_ONE)),
            Limits.select(Limits.rate_at).where(Limits.key == VALUE),
            Limits.select(Limits.admit_at).where(Limits.key == VALUE),
            Limits.select(Limits.waits_since).where(Limits.key == VALUE),
            shared(VALUE, _head.queue),
        ],
    )
)
ADMIT_THESE = Statement(lambda p: Jobs.update({Jobs.blocked_by: NULL}).where(Jobs.id.in_(elements(p, int))))
ADMIT = Statement(
    lambda p: (
        Jobs.update({Jobs.blocked_by: BLOCKED_BY_BREAKER})
        .where(Jobs.id.in_(_job.select(_job.id).where(_blocked(p)).order_by(*order(_job)).limit(p)))
        .returning(Jobs.blocked_by, Jobs.needs)
    )
)
PARK = Statement(
    lambda p: Jobs.update({Jobs.blocked_by: BREAKER}).where(
        Jobs.id.in_(
            _job.select(_job.id)
            .where((_job.needs == p) & (_job.state == _AVAILABLE) & (_job.blocked_by == LIMIT))
            .limit(p)
        )
    )
)
MORE = Statement(lambda p: pw.Select(columns=[pw.fn.EXISTS(_job.select(_ONE).where(_blocked(p)))]))
WAIT = Statement(
    lambda p: (
        Limits.update({Limits.admit_at: item(1, int), Limits.waits_since: item(2, int)})
        .from_(each(p))
        .where(Limits.key == item(0))
    )
)
DUE = Statement(lambda p: Limits.select(Limits.key).where(Limits.admit_at <= p).order_by(Limits.admit_at).limit(p))
AHEAD = Statement(
    lambda p: Limits.select(Limits.key).where(Limits.admit_at.is_null(False) & (Limits.waits_since > p)).limit(p)
)
USED = Statement(lambda p: Limits.select(Limits.key, Limits.rate_at).where(Limits.key.in_(elements(p))))
USE = Statement(lambda p: Limits.update({Limits.rate_at: item(1, int)}).from_(each(p)).where(Limits.key == item(0)))
FORGET = Statement(
    lambda p: Limits.delete().where(
        Limits.key.in_(Limits.select(Limits.key).where((Limits.rate_at < p) & Limits.admit_at.is_null()).limit(p))
    )
)


class _Standing(msgspec.Struct, frozen=True):
    """How things are with one key. `executing` and `admitted`: so many run, and so many were let on and aren't claimed
    yet. `id`, `options` and `needs` are those of the first that waits, `more`: it isn't the only one. `shared`: jobs of
    several queues wait or were let on."""

    key: str
    executing: int
    admitted: int
    id: int | None
    options: str | None
    needs: str | None
    more: bool
    rate_at: int | None
    admit_at: int | None
    waits_since: int | None
    shared: bool


def admit(tx: Tx, keys: Iterable[str | None], now: int, *, exact: bool = False) -> None:
    """Let on as many of the jobs that wait for one of these limits as there is room for. Unless `now` is `exact` it may
    be that of a dispatch which is committed only later: then a rate may let on fewer, and never more."""
    wanted = sorted({key for key in keys if key is not None})
    if not wanted:
        return
    tx.alone()
    these: list[int] = []
    waits: list[tuple[str, int | None, int | None]] = []
    let_on = 0
    for row in tx.rows(STANDING, (batch(wanted),)):
        standing = _Standing(*row)
        again_at = None
        if standing.id is not None:
            limit = read_options(standing.id, standing.options).limit or Limit(standing.key)
            rate_at = _cut(tx, standing.key, limit, standing.rate_at, now) if exact else standing.rate_at
            room = _room(limit, standing.executing, standing.admitted, rate_at, now)
            if room > 0 and standing.needs is None and not (room > 1 and standing.more):
                these.append(standing.id)
                again_at = _next_at(limit, standing.executing, standing.admitted + 1, rate_at, now)
                again_at = again_at if standing.more else None
            else:
                number, again_at = _admit(tx, limit, standing, room, rate_at, now)
                let_on += number
            if standing.shared and (standing.admitted or room > 0):
                again_at = min(again_at or sys.maxsize, ends_at(now, standing.admit_at))
        if again_at != standing.admit_at or (standing.waits_since or now) > now:
            waits.append((standing.key, again_at, None if again_at is None else now))
    if these:
        tx.run(ADMIT_THESE, (batch(these),))
    if waits:
        tx.insert(Limits, ("key", "rate_at"), [(key, now) for key, again_at, _ in waits if again_at is not None])
        tx.run(WAIT, (batch(waits),))
        tx.run(FORGET, (now, 2 * len(waits)))
    if let_on or these:
        tx.touch("jobs")


def admit_later(tx: Tx, keys: Iterable[str | None]) -> None:
    """Have the next claim, of whatever queue, see to these keys."""
    wanted = sorted({key for key in keys if key is not None})
    if wanted:
        tx.alone()
        tx.insert(Limits, ("key", "rate_at"), [(key, 0) for key in wanted])
        tx.run(WAIT, (batch([(key, 0, 0) for key in wanted]),))
        tx.touch("jobs")


def admit_due(tx: Tx, now: int) -> None:
    """Let on those whose time has come, of _KEYS_AT_ONCE_MAX keys; also those that wait for a time that was reckoned
    before the clock was set back."""
    tx.alone()
    due = {row[0] for statement in (DUE, AHEAD) for row in tx.rows(statement, (now, _KEYS_AT_ONCE_MAX))}
    pass_on(tx, due)
    admit(tx, due, now, exact=True)


def has_room(tx: Tx, job_id: int, key: str, options: str | None, now: int) -> bool:
    """Whether this job, which doesn't wait for its limit but for something else, could be let on."""
    [row] = tx.rows(STANDING, (batch([key]),))
    standing = _Standing(*row)
    limit = read_options(job_id, options).limit or Limit(key)
    rate_at = _cut(tx, key, limit, standing.rate_at, now)
    return _room(limit, standing.executing, standing.admitted, rate_at, now) > 0


def use(tx: Tx, claimed: Sequence[StoredJob], now: int) -> None:
    """Take from the rates what these jobs, claimed just now, use up."""
    numbers: dict[str, int] = {}
    rates: dict[str, Rate] = {}
    for job in claimed:
        key = job.limit_key
        limit = None if key is None else read_options(job.id, job.options).limit
        if key is not None and limit is not None and limit.interval_us is not None:
            numbers[key] = numbers.get(key, 0) + 1
            rates[key] = Rate(limit.interval_us, limit.burst)
    if not rates:
        return
    tx.alone()
    tx.run(FORGET, (now, 2 * len(rates)))
    used: dict[str, int] = dict(tx.rows(USED, (batch(list(rates)),)))
    tx.insert(Limits, ("key", "rate_at"), [(key, now) for key in rates if key not in used])
    full_at = {key: rate.taken(rate.full_at(used.get(key), now), numbers[key]) for key, rate in rates.items()}
    tx.run(USE, (batch(list(full_at.items())),))
    admit(tx, rates, now)


def _admit(
    tx: Tx, limit: Limit, standing: _Standing, room: int, rate_at: int | None, now: int
) -> tuple[int, int | None]:
    """How many were let on, and when to look again though nothing else happens."""
    if room <= 0:
        return 0, _next_at(limit, standing.executing, standing.admitted, rate_at, now)
    wanted = min(room, ADMITTED_AT_ONCE_MAX)
    let_on = rounds = 0
    while let_on < wanted and rounds < _ROUNDS_MAX:
        rows = tx.rows(ADMIT, (standing.key, wanted - let_on))
        if not rows:
            return let_on, None
        let_on += sum(blocked_by is None for blocked_by, _ in rows)
        for needs in {needs for blocked_by, needs in rows if blocked_by is not None}:
            tx.run(PARK, (needs, ADMITTED_AT_ONCE_MAX))
        rounds += 1
    if let_on < wanted or wanted < room:
        again_at: int | None = now
    else:
        again_at = _next_at(limit, standing.executing, standing.admitted + let_on, rate_at, now)
    if again_at is not None and not tx.rows(MORE, (standing.key,))[0][0]:
        again_at = None
    return let_on, again_at


def _cut(tx: Tx, key: str, limit: Limit, rate_at: int | None, now: int) -> int | None:
    """`rate_at`, brought into line when the clock was set back since: else it would be cut anew at each look."""
    if rate_at is None or limit.interval_us is None:
        return rate_at
    latest = now + limit.burst * limit.interval_us
    if rate_at <= latest:
        return rate_at
    tx.run(USE, (batch([(key, latest)]),))
    return latest


def _room(limit: Limit, executing: int, admitted: int, rate_at: int | None, now: int) -> int:
    """How many more may be let on, when `admitted` were and aren't claimed yet."""
    rooms = []
    if limit.concurrency is not None:
        rooms.append(limit.concurrency - executing - admitted)
    if limit.interval_us is not None:
        rate = Rate(limit.interval_us, limit.burst)
        rooms.append(rate.left(rate.full_at(rate_at, now), now) - admitted)
    return min(rooms, default=sys.maxsize)


def _next_at(limit: Limit, executing: int, admitted: int, rate_at: int | None, now: int) -> int | None:
    """When time alone makes room for one more. None: only a claim, or the end of one, does."""
    if limit.concurrency is not None and executing + admitted >= limit.concurrency:
        return None
    if limit.interval_us is None or admitted >= limit.burst:
        return None
    if rate_at is not None and rate_at > now + limit.burst * limit.interval_us:
        return now  # the clock was set back since, or `now` isn't exact: that is for the next claim to say
    rate = Rate(limit.interval_us, limit.burst)
    return rate.next_at(rate.full_at(rate_at, now), admitted + 1)
