"""The clock by which leases are given, on a machine that may have another one."""

from __future__ import annotations

from ..clock import Clock
from ..store.store import Tx


class LeaseClock(Clock):
    """The store's clock (see Tx.now), as well as it is known here: `clock`, by as much later or earlier as it was at
    the last look. What a worker reckons with the times in the table `jobs` it reckons by this one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = 0

    def look(self, tx: Tx) -> int:
        """The moment of a transaction, which has just begun. Time that has passed since makes us late by it, never
        early: what is due here is due there."""
        here = self._clock.now()
        moment = tx.now(here)
        self._ahead = moment - here
        return moment

    def now(self) -> int:
        """See Clock.now."""
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return self._clock.monotonic()

    def offset(self) -> int:
        """See Clock.offset. It tells when this machine's clock is set."""
        return self._clock.offset()
