"""A clock that stands still until a test moves it."""

from __future__ import annotations

from ..clock import MICROSECONDS, Clock

NOON = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z


class FakeClock(Clock):
    """Give it to anything that takes a `Clock`.

    It wakes nobody: a part that already waits for a moment looks at the clock again at its next real wake-up, which a
    test can bring about with `store.signal.fire(["events"])`.
    """

    def __init__(self, now: int = NOON) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> int:
        """See Clock.now."""
        return self._now

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks go on by `seconds`. Raises ValueError for a negative number."""
        if seconds < 0:
            raise ValueError("time doesn't run backwards; to set the wall clock back, use step()")
        self._monotonic += seconds
        self.step(seconds)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back if negative, as NTP does: no time passes."""
        self._now += round(seconds * MICROSECONDS)
