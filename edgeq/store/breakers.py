"""Verbs of the table `breakers`: what is known of the dependencies that jobs need."""

from __future__ import annotations

import msgspec

from .store import Store
from .tables import Breakers


class StoredBreaker(msgspec.Struct, frozen=True):
    """A dependency of jobs. `state` is `closed` (it works), `open` (it doesn't) or `half_open` (a job is trying it).
    `failures` in a row, the first of them at `failed_at`; `error` is that of the last. Times in microseconds since
    1970 UTC."""

    name: str
    state: str
    failures: int
    failed_at: int | None
    opened_at: int | None
    probe_at: int | None
    probe_id: int | None
    error: str | None


async def all(store: Store) -> list[StoredBreaker]:  # noqa: A001 - breakers.all says it best
    """Every dependency that has ever failed, by name."""
    query = Breakers.select(
        Breakers.name, Breakers.state, Breakers.failures, Breakers.failed_at, Breakers.opened_at, Breakers.probe_at,
        Breakers.probe_id, Breakers.error,
    ).order_by(Breakers.name)  # fmt: skip
    return [StoredBreaker(*row) for row in await store.read(query)]
