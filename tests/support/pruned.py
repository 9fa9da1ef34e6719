"""Stores full of old things, for tests of retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeq.config.schema import Retention as Ages
from edgeq.events import NewEvent
from edgeq.store import cursors, events
from edgeq.store.store import Store, Tx
from edgeq.store.tables import Cursors
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock
from edgeq.units import Duration, Size
from edgeq.upkeep.retention import Retention

SECOND = 1_000_000
DAY = 86_400 * SECOND
DAYS_30 = 30 * DAY


async def fill(store: Store, moments: Sequence[int], *, keep: int = 0, bytes_each: int = 2, key: str = "") -> None:
    """Store an event for each moment, recorded then."""
    data = '{"x":"' + "x" * (bytes_each - 8) + '"}' if bytes_each > 8 else "{}"
    new = [
        NewEvent("t", moment, moment, data_json=data, keep=keep, idempotency_key=f"{key}{number}" if key else None)
        for number, moment in enumerate(moments)
    ]
    await store.write(lambda tx: events.append(tx, new))
    await store.write(lambda tx: None)  # what is done after a commit is done before the next one


async def place(store: Store, processor: str, at: int, *, moved_at: int = 0, paused: bool = False) -> None:
    """Have the cursor of a processor stand there, moved last at that moment."""

    def unit(tx: Tx) -> None:
        cursors.take(tx, processor, 0, moved_at)
        tx.run(
            Cursors.update(last_consumed_id=at, updated_at=moved_at, paused=paused).where(
                Cursors.processor == processor
            )
        )

    await store.write(unit)


async def ids(store: Store) -> list[int]:
    """The ids of all events that are there."""
    found: list[int] = []
    while page := await events.after(store, found[-1] if found else 0, 1000):
        found += [event.id for event in page]
    return found


async def no_rest(seconds: float) -> None:
    """Don't wait between two units."""


def ages(**given: Any) -> Ages:
    """Limits that aren't given aren't there."""
    none: dict[str, Any] = {"max_size": None, "min_free_disk": Size(0)}
    return Ages(**{**none, **given})


def retention(
    store: Store, clock: FakeClock, kept: Ages | None = None, *, processors: Sequence[str] = (), **settings: Any
) -> Retention:
    """One that keeps events for 30 days, if nothing else is said, and never waits."""
    settings = {"metrics": Metrics(), "gateway": "gw", "rest": no_rest, **settings}
    metrics = settings.pop("metrics")
    return Retention(
        kept or ages(events=Duration(30 * 86_400)), store, clock, metrics, processors=processors, **settings
    )
