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
        self._boots = 1
        self._booted_at = 0.0
        self._synchronised = True

    def now(self) -> int:
        """See Clock.now."""
        return self._now

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return self._monotonic

    def boot(self) -> str:
        """See Clock.boot."""
        return f"boot {self._boots}"

    def since_boot(self) -> float:
        """See Clock.since_boot."""
        return self._monotonic - self._booted_at

    def synchronised(self) -> bool:
        """See Clock.synchronised."""
        return self._synchronised

    def synchronise(self, synchronised: bool = True) -> None:
        """Have the wall clock count as set by something that knows, or not."""
        self._synchronised = synchronised

    def reboot(self, off_seconds: float = 0.0, *, synchronised: bool = True) -> None:
        """Have the machine be off for so long, and boot: the wall clock has gone on; if it hasn't, `step` it."""
        self.advance(off_seconds)
        self._boots += 1
        self._booted_at = self._monotonic
        self._synchronised = synchronised

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks go on by `seconds`. Raises ValueError for a negative number."""
        if seconds < 0:
            raise ValueError("time doesn't run backwards; to set the wall clock back, use step()")
        self._monotonic += seconds
        self.step(seconds)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back if negative, as NTP does: no time passes."""
        self._now += round(seconds * MICROSECONDS)
