"""Verbs of the table `queues`: pausing, and the rate at which a queue's jobs may begin.

A queue needs no row: one that was never paused and has no rate has none.
"""

from __future__ import annotations

from .store import Store, Tx, storable
from .tables import Queues


def pause(tx: Tx, name: str) -> bool:
    """No more jobs of the queue are claimed; what runs goes on. Whether it wasn't paused already."""
    return _set(tx, storable(name), paused=True)


def resume(tx: Tx, name: str) -> bool:
    """Jobs of the queue are claimed again. Whether it was paused."""
    return _set(tx, storable(name), paused=False)


async def paused(store: Store) -> set[str]:
    """The names of all queues that are paused."""
    return {row[0] for row in await store.read(Queues.select(Queues.name).where(Queues.paused))}


def _set(tx: Tx, name: str, *, paused: bool) -> bool:
    tx.insert(Queues, ("name", "paused", "rate_at"), [(name, 0, 0)])
    changed = tx.run(Queues.update({Queues.paused: paused}).where((Queues.name == name) & (Queues.paused != paused)))
    if changed:
        tx.touch("jobs")
    return changed > 0
