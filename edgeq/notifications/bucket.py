"""How many notifications a target takes: `burst` at once, and then `rate` a second; as it says itself; and none for a
while after it failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..backoff import Backoff

# A target to which there is no way is looked for so often at least: critical ones are to be out within a minute.
UNREACHABLE_SECONDS_MAX = 30.0

# Who says when to come again is believed so often; who goes on saying so is asked ever more seldom.
_PATIENCE = 3
# For how long a target that asks for a short wait, of so many seconds at most, is believed to say its rate.
_PACE_SECONDS = 600.0
_PACE_SECONDS_MAX = 30.0
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

    def take(self, count: int = 1) -> None:
        """So many are about to be sent."""
        if self._limit is not None:
            self._fill(self._limit)
            self._tokens -= count

    def seconds(self, count: int = 1) -> float:
        """How long to wait until the next `count` may be sent, which are `burst` at most; 0 when they may be now."""
        if self._limit is None:
            return 0.0
        self._fill(self._limit)
        missing = count - self._tokens
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


class Pace:
    """When the next notification may be handed to a target. `failures` are those since it last took one."""

    def __init__(self, limit: Limit | None, backoff: Backoff, monotonic: Callable[[], float]) -> None:
        self.failures = 0
        self._bucket = Bucket(limit, monotonic)
        self._backoff = backoff
        self._monotonic = monotonic
        self._failing_since = 0.0
        self._resumes = monotonic()
        self._own_seconds = 0.0  # between two, as the target said
        self._own_until = monotonic()

    @property
    def pause_seconds(self) -> float:
        """How long the target is left alone, apart from its limit; 0 when it isn't."""
        return max(0.0, self._resumes - self._monotonic())

    @property
    def failing_seconds(self) -> float:
        """For how long it has failed; 0 when it doesn't."""
        return self._monotonic() - self._failing_since if self.failures else 0.0

    def seconds(self) -> float:
        """How long to wait until the next may be sent; 0 when it may be now."""
        return max(self.pause_seconds, self._bucket.seconds())

    def within(self, seconds: float) -> int | None:
        """How many it takes within that time; None when that is without a limit."""
        allowed = self._bucket.within(seconds)
        if self._monotonic() >= self._own_until:
            return allowed
        own = int(seconds / self._own_seconds)
        return own if allowed is None else min(own, allowed)

    def take(self) -> None:
        """One is about to be sent."""
        self._bucket.take()

    def took(self) -> None:
        """It has answered, and takes more."""
        self.failures = 0
        if self._monotonic() < self._own_until:
            self._resumes = self._monotonic() + self._own_seconds

    def failed(self, after_seconds: float | None, *, unreachable: bool) -> None:
        """It took none; not before `after_seconds`, it said. `unreachable`: there was no way to it."""
        now = self._monotonic()
        self.failures += 1
        if self.failures == 1:
            self._failing_since = now
        if after_seconds and after_seconds <= _PACE_SECONDS_MAX:
            self._own_seconds, self._own_until = after_seconds, now + _PACE_SECONDS
        delay = self._backoff.delay(self.failures)
        if unreachable:
            delay = min(delay, UNREACHABLE_SECONDS_MAX)
        believed = after_seconds is not None and self.failures <= _PATIENCE
        self._resumes = now + (after_seconds or 0.0 if believed else max(after_seconds or 0.0, delay))
