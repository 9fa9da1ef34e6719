"""What a worker's last look at the store has found, and when the next one is due."""

from __future__ import annotations

from math import inf

from ..backoff import Backoff
from ..clock import MICROSECONDS, Clock
from ..store.claims import Outlook

_FRUITLESS = 2  # claims in a row that found nothing although there was something: then they get rarer
_RARER = Backoff(0.005, 1.0)
_STEP_US = MICROSECONDS  # what isn't more is no step of the clock


class Horizon:
    """Looks are due when somebody has dispatched (`version`, of the topic `jobs`, is another one), when a job becomes
    due, while the last look has left something, and after `net_seconds` in any case. Seconds from now; the wall clock
    may be stepped in between, which the net catches."""

    def __init__(self, clock: Clock, *, lease_seconds: float, net_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._net_seconds = net_seconds
        self._outlook: Outlook | None = None
        self._version = -1
        self._looked_at = 0.0
        self._fruitless = 0
        self._offset = clock.offset()
        self._spared_until = -inf

    def clock_was_set(self) -> bool:
        """Whether the wall clock was set since the last call. Set forward, it has ended leases before their time: until
        those who live must have extended theirs, none is over."""
        step = self._clock.offset() - self._offset
        self._offset += step
        if step > _STEP_US:
            self._spared_until = self._clock.monotonic() + self._lease_seconds
        return abs(step) > _STEP_US

    def note(self, outlook: Outlook | None, version: int, *, fruitless: bool) -> None:
        """A look is over; `version` was that of the topic when it began. `fruitless`: a claim found nothing."""
        self._outlook = outlook
        self._version = version
        self._looked_at = self._clock.monotonic()
        self._fruitless = self._fruitless + 1 if fruitless and self.ready else 0

    @property
    def ready(self) -> bool:
        """Whether the last look has left something to claim, or something has become due since."""
        ahead = self._outlook
        return ahead is not None and not ahead.paused and (ahead.ready or self._until(ahead.next_at) <= 0)

    def clear(self, version: int) -> bool:
        """Whether nothing can be claimed now, as far as was dispatched until now."""
        return self._outlook is not None and self._version == version and not self.ready

    def until_look(self, version: int) -> float:
        """Until it is worth while to look for something to claim."""
        if self._outlook is None or self._version != version:
            return 0.0
        since = self._clock.monotonic() - self._looked_at
        if self.ready:
            return _RARER.delay(self._fruitless - _FRUITLESS) - since if self._fruitless > _FRUITLESS else 0.0
        return min(self._net_seconds - since, self._until(self._outlook.next_at))

    def until_rescue(self) -> float:
        """Until some lease of this queue is over; 0 also when it can't be one of ours: the clock was set back since."""
        if self._outlook is None:
            return inf
        seconds = self._until(self._outlook.lease_expires_at)
        if inf > seconds > 2 * self._lease_seconds:
            return 0.0
        return max(seconds, self._spared_until - self._clock.monotonic())

    def _until(self, moment: int | None) -> float:
        return inf if moment is None else (moment - self._clock.now()) / 1e6
