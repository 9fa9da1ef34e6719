"""The only file that asks the machine for the time.

Times are integers, microseconds since 1970 UTC; durations are seconds as float. Everything timed takes
a `Clock`, so that a test can hand it `edgeq.testing.FakeClock`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """The machine's clocks."""

    def now(self) -> int:
        """Wall time in microseconds since 1970 UTC. May jump in either direction."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back and isn't stepped. The base of every timer."""
        return time.monotonic()


def rfc3339(microseconds: int) -> str:
    """`2026-01-31T12:00:00.250Z` for a time in microseconds since 1970 UTC."""
    seconds, rest = divmod(microseconds, MICROSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:03d}Z"
