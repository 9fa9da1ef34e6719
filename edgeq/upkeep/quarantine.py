"""A damaged store is told of in the new one that took its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ..clock import Clock
from ..context import Context
from ..store import cursors
from ..store.decisions import record
from ..store.store import Store, Tx

log = logging.getLogger("edgeq.app")


def tell_of_quarantine(store: Store, gateway: str, starts: Mapping[str, str | int], clock: Clock) -> None:
    """Store an event that says where the damaged store was put, if it was. `starts` says of each processor where it
    begins."""
    if store.quarantined is None:
        return
    found = store.recovery
    data: dict[str, Any] = {"severity": "critical", "put_aside_as": store.quarantined}
    became = "edgeq started empty"
    if found is not None and found.readable:
        data |= {"recovered": found.rows, "unreadable": found.gaps, "held": found.held}
        became = f"recovered so far: {found.summary()}"
    ctx = Context(clock)
    ctx.emit(
        "edgeq.store_damaged",
        subject=gateway,
        data=data,
        tags=("notification",),
        description=f"The database was damaged, put aside as {store.quarantined}; {became}.",
    )

    def unit(tx: Tx) -> None:
        for name, start in starts.items():  # those that start at `latest` must see it, too
            cursors.take(tx, name, start, clock.now())
        record(tx, ctx.decisions)

    store.submit(unit).add_done_callback(_note_failure)


def _note_failure(done: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        log.error("that the database was damaged could not be stored as an event: %s", error)
