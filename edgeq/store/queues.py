"""Verbs of the table `queues`: pausing, and the rate at which a queue's jobs may begin.

A queue needs no row: one that was never paused and has no rate has none.
"""

from __future__ import annotations

from .rates import Rate
from .store import Statement, Store, Tx, storable
from .tables import Queues

SET_RATE_AT = Statement(lambda p: Queues.update({Queues.rate_at: p}).where(Queues.name == p))


def pause(tx: Tx, name: str) -> bool:
    """No more jobs of the queue are claimed; what runs goes on. Whether it wasn't paused already."""
    return _set(tx, storable(name), paused=True)


def resume(tx: Tx, name: str) -> bool:
    """Jobs of the queue are claimed again. Whether it was paused."""
    return _set(tx, storable(name), paused=False)


async def paused(store: Store) -> set[str]:
    """The names of all queues that are paused."""
    return {row[0] for row in await store.read(Queues.select(Queues.name).where(Queues.paused))}


def left(tx: Tx, name: str, rate_at: int, rate: Rate | None, limit: int, now: int) -> int:
    """How many jobs, of at most `limit`, the queue's rate lets begin now. `rate_at` is the row's. When the rate was
    taken away, or the clock set back, `rate_at` is brought into line."""
    if rate is None:
        allowed, latest = limit, 0
    else:
        allowed, latest = rate.left(_full_at(rate_at, rate, now), now), now + rate.interval_us
    if rate_at > latest:
        tx.run(SET_RATE_AT, (latest, name))
    return min(limit, allowed)


def use(tx: Tx, name: str, rate_at: int, rate: Rate, number: int, now: int) -> None:
    """So many jobs begin now."""
    tx.insert(Queues, ("name", "paused", "rate_at"), [(name, False, 0)])
    tx.run(SET_RATE_AT, (rate.next_at(rate.taken(_full_at(rate_at, rate, now), number)), name))


def _full_at(rate_at: int, rate: Rate, now: int) -> int:
    # The row has the moment from which on one may begin, which says all to those who don't know the rate.
    return rate.full_at(rate_at + (rate.burst - 1) * rate.interval_us, now)


def _set(tx: Tx, name: str, *, paused: bool) -> bool:
    tx.insert(Queues, ("name", "paused", "rate_at"), [(name, False, 0)])
    changed = tx.run(Queues.update({Queues.paused: paused}).where((Queues.name == name) & (Queues.paused != paused)))
    if changed:
        tx.touch("jobs")
    return changed > 0
