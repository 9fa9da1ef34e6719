"""How often something may begin: one number, the moment at which a rate is all there again, says how much of it is
left (known as GCRA)."""

from __future__ import annotations

import msgspec


class Rate(msgspec.Struct, frozen=True):
    """One every `interval_us` microseconds, and `burst` of them at once after a pause. Both are at least 1.

    `full_at` is the moment, in microseconds since 1970 UTC, from which on all of the burst is there again.
    """

    interval_us: int
    burst: int = 1

    def full_at(self, stored: int | None, now: int) -> int:
        """`full_at` as of `now`. What was stored may lie further ahead than it can: the clock was set back since."""
        return now if stored is None else min(max(stored, now), now + self.burst * self.interval_us)

    def left(self, full_at: int, now: int) -> int:
        """How many may begin now."""
        return (now + self.burst * self.interval_us - full_at) // self.interval_us

    def next_at(self, full_at: int, number: int = 1) -> int:
        """When so many may begin at once, if none does until then."""
        return full_at + (number - self.burst) * self.interval_us

    def taken(self, full_at: int, number: int) -> int:
        """`full_at` after so many began."""
        return full_at + number * self.interval_us
