"""Retention: finished jobs are deleted once they are older than the configuration wants to keep them.

A little at a time, so that nobody waits: at most `ROWS_AT_ONCE` rows in one unit, and a rest between two. What isn't
due writes nothing (G9). The dead letter of a dead job stays: it has the arguments and the error.
"""

from __future__ import annotations

from ..clock import CLOCKLESS_BEFORE, Clock
from ..config.schema import Retention as Ages
from ..service import Service
from ..store import jobs
from ..store.store import Store, Tx
from ..telemetry.metrics import Metrics

ROWS_AT_ONCE = 500
LOOK_SECONDS_MAX = 3600.0
_LOOK_SECONDS_MIN = 5.0
_REST_SECONDS = 0.2


class Retention(Service):
    """Deletes by the ages that `store.retention` gives, and looks at them every hour, or more often when one is short.

    A job that ended before the machine's clock was set counts from when that is noticed.
    """

    def __init__(self, ages: Ages, store: Store, clock: Clock, metrics: Metrics) -> None:
        super().__init__("retention", clock)
        kept = ages.by_state()
        self._ages = {state: age.microseconds for state, age in kept.items()}
        self._look_seconds = min(LOOK_SECONDS_MAX, max(_LOOK_SECONDS_MIN, min(kept.values()) / 10))
        self._store = store
        self._metrics = metrics

    async def run(self) -> None:
        """See Service."""
        while not self.stopping.is_set():
            await self.look()
            await self.pause(self._look_seconds)

    async def look(self) -> None:
        """Delete what is due now."""
        now = self.clock.now()
        if now > CLOCKLESS_BEFORE:
            await self._store.write(lambda tx: jobs.redate(tx, before=CLOCKLESS_BEFORE, now=now))
        for state, age in self._ages.items():
            removed = await self._remove(state, now - age)
            if removed:
                self.log.info("%d %s jobs were older than they are kept", removed, state)

    async def _remove(self, state: str, before: int) -> int:
        def unit(tx: Tx) -> int:
            return jobs.purge(tx, states=[state], finished_before=before, limit=ROWS_AT_ONCE)

        total = 0
        while not self.stopping.is_set():
            removed = await self._store.write(unit)
            self._metrics.purged.add(removed, state)
            total += removed
            if removed < ROWS_AT_ONCE:
                break
            await self.pause(_REST_SECONDS)
        return total
