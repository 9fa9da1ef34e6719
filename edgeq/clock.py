"""The only file that asks the machine for the time.

Times are integers, microseconds since 1970 UTC; durations are seconds as float. Everything timed takes
a `Clock`, so that a test can hand it `edgeq.testing.FakeClock`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = -62_135_596_800 * MICROSECONDS  # the years 1 to 9999, which is what calendars here can say
LATEST = 253_402_300_800 * MICROSECONDS - 1
CLOCKLESS_BEFORE = 946_684_800 * MICROSECONDS  # 2000-01-01: a machine that says less has no clock yet

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIMESYNC = Path("/run/systemd/timesync")
_UNSYNCHRONISED = 5  # TIME_ERROR
_TIMEX_BYTES = 512  # twice what the kernel fills


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

    def boot(self) -> str:
        """What names this boot of the machine, and no other; empty where that can't be known. Linux says it, and where
        its file is hidden, as by the unit of edgeq, `EDGEQ_BOOT_ID` in the environment."""
        try:
            return _BOOT_ID.read_text().strip().replace("-", "")
        except OSError:
            return os.environ.get("EDGEQ_BOOT_ID", "").replace("-", "")

    def since_boot(self) -> float:
        """Seconds since the machine was booted, those that it slept included; isn't stepped."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def synchronised(self) -> bool | None:
        """Whether wall time was set right by something that knows, such as NTP, as the kernel sees it. Where that can't
        be asked, as in a sandbox that keeps the clock from being set, what systemd-timesyncd says, if it runs; else
        None."""
        adjtimex = _adjtimex()
        state = -1 if adjtimex is None else adjtimex(bytes(_TIMEX_BYTES))  # zeros: it only asks
        if state >= 0:
            return state != _UNSYNCHRONISED
        try:
            return (_TIMESYNC / "synchronized").exists() or (False if _TIMESYNC.exists() else None)
        except OSError:
            return None


def is_time(value: object) -> bool:
    """Whether `value` is a time: whole microseconds since 1970 UTC, within the years 1 to 9999."""
    return type(value) is int and EARLIEST <= value <= LATEST


def rfc3339(microseconds: int) -> str:
    """`2026-01-31T12:00:00.250Z` for a time in microseconds since 1970 UTC. For what lies outside of the years 1 to
    9999, as anybody may write it into a table, the first or last moment of these."""
    seconds, rest = divmod(min(max(microseconds, EARLIEST), LATEST), MICROSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:03d}Z"


@cache
def _adjtimex() -> Callable[[bytes], int] | None:
    try:
        import ctypes  # not every Python has it, or may load it in its sandbox

        function = ctypes.CDLL(None).adjtimex
    except (ImportError, OSError, AttributeError, MemoryError):
        return None

    def ask(question: bytes) -> int:
        return int(function(ctypes.create_string_buffer(question, len(question))))

    return ask
