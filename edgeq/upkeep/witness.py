"""Which time to delete by: a clock that is wrong must not delete what is young."""

from __future__ import annotations

import msgspec

from ..clock import CLOCKLESS_BEFORE, MICROSECONDS, Clock

JUMP_SECONDS_MAX = 86_400.0


class Seen(msgspec.Struct, frozen=True):
    """What was believed `at` last, and since when the clock says something else (None: it doesn't), both in
    microseconds since 1970 UTC by what was believed."""

    at: int
    doubted_since: int | None = None


class Witness:
    """The time that is believed for deleting by age.

    A synchronised clock is believed, one that says a year before 2000 is none. One of which nobody knows whether it is
    right may go as fast as time does, and may be set by up to JUMP_SECONDS_MAX, also while edgeq doesn't run. When it
    leaps further ahead, only the time counts that was seen to pass; until as much of that has passed as anything is
    kept: then what was there before the leap is old by any clock, and this one is believed again.
    """

    def __init__(self, clock: Clock, longest_us: int) -> None:
        self._clock = clock
        self._longest = longest_us
        self._looked = clock.monotonic()
        self.seen: Seen | None = None

    def begin(self, seen: Seen | None) -> None:
        """Go on from what an earlier run has seen, or from the time of the latest event; None: there is neither."""
        self._looked = self._clock.monotonic()
        self.seen = seen if seen is None or seen.at > CLOCKLESS_BEFORE else None

    @property
    def doubts(self) -> bool:
        """Whether another time is believed than what the clock says."""
        return self.seen is not None and self.seen.doubted_since is not None

    def now(self) -> int | None:
        """The time by which to delete, in microseconds since 1970 UTC; None: nobody knows."""
        now, looked = self._clock.now(), self._clock.monotonic()
        passed, self._looked = round((looked - self._looked) * MICROSECONDS), looked
        expected = None if self.seen is None else self.seen.at + passed
        since = None if self.seen is None else self.seen.doubted_since
        if now <= CLOCKLESS_BEFORE:
            if expected is not None:
                self.seen = Seen(expected, since)
            return None
        if expected is None or self._clock.synchronised():
            self.seen = Seen(now)
        elif now <= expected + JUMP_SECONDS_MAX * MICROSECONDS:
            self.seen = Seen(max(now, expected))
        elif since is not None and expected - since > self._longest:
            self.seen = Seen(now)
        else:
            self.seen = Seen(expected, expected if since is None else since)
            return expected
        return now
