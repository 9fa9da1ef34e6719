"""The only file that asks the machine for the time.

Times are integers, microseconds since 1970 UTC; durations are seconds as float. Everything timed takes
a `Clock`, so that a test can hand it `edgeq.testing.FakeClock`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = -62_135_596_800 * MICROSECONDS  # the years 1 to 9999, which is what calendars here can say
LATEST = 253_402_300_800 * MICROSECONDS - 1


class Clock:
    """The machine's clocks."""

    def now(self) -> int:
        """Wall time in microseconds since 1970 UTC. May jump in either direction."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back and isn't stepped. The base of every timer."""
        return time.monotonic()

    def offset(self) -> int:
        """How far wall time is from `monotonic`, in microseconds: another number means that the wall clock was set."""
        return self.now() - round(self.monotonic() * MICROSECONDS)


def is_time(value: object) -> bool:
    """Whether `value` is a time: whole microseconds since 1970 UTC, within the years 1 to 9999."""
    return type(value) is int and EARLIEST <= value <= LATEST


def rfc3339(microseconds: int) -> str:
    """`2026-01-31T12:00:00.250Z` for a time in microseconds since 1970 UTC. For what lies outside of the years 1 to
    9999, as anybody may write it into a table, the first or last moment of these."""
    seconds, rest = divmod(min(max(microseconds, EARLIEST), LATEST), MICROSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:03d}Z"
