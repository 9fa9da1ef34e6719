"""How many notifications a target takes: `burst` at once, and then `rate` a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Of a token: what sums of fractions are off by.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `burst` at once, which is at least 1, and `rate` a second in the long run."""

    rate: float
    burst: int = 1


class Bucket:
    """Tokens of one target: as many as `limit` lets out now. Without a limit there are always enough.

    `monotonic` tells seconds and never goes back.
    """

    def __init__(self, limit: Limit | None, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._tokens = float(limit.burst) if limit else 0.0
        self._then = monotonic()

    def take(self) -> None:
        """One is about to be sent."""
        if self._limit is not None:
            self._fill(self._limit)
            self._tokens -= 1.0

    def seconds(self) -> float:
        """How long to wait until the next may be sent; 0 when it may be now."""
        if self._limit is None:
            return 0.0
        self._fill(self._limit)
        missing = 1.0 - self._tokens
        return missing / self._limit.rate if missing > _NOTHING else 0.0

    def within(self, seconds: float) -> int | None:
        """How many may be sent within that time; None when that is without a limit."""
        if self._limit is None:
            return None
        self._fill(self._limit)
        return int(self._tokens + self._limit.rate * seconds)

    def _fill(self, limit: Limit) -> None:
        now = self._monotonic()
        self._tokens = min(float(limit.burst), self._tokens + (now - self._then) * limit.rate)
        self._then = now
