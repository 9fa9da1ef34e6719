"""The clock: whether it is right, and whether it survives a power cut."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator

from ..clock import CLOCKLESS_BEFORE, rfc3339
from .case import Case
from .finding import Finding, bad, ok, unknown, warn

_BUILT_AT = 1_735_689_600_000_000  # 2025-01-01: edgeq is younger
_NTP = "sudo timedatectl set-ntp true, or: sudo apt install systemd-timesyncd"


def synchronised(case: Case) -> Iterator[Finding]:
    """Whether the clock is right."""
    now = case.clock.now()
    if now < max(CLOCKLESS_BEFORE, _BUILT_AT):
        yield bad(f"the clock says {rfc3339(now)}", "events get times that never were, and schedules run then", _NTP)
        return
    state = case.clock.synchronised()
    if state:
        yield ok(f"the clock is synchronised: {rfc3339(now)}")
    elif state is None:
        yield unknown(
            f"nobody says whether the clock is right; it says {rfc3339(now)}", "the kernel can't be asked here", _NTP
        )
    else:
        yield warn(
            f"the clock is not synchronised; it says {rfc3339(now)}",
            "times of events may be wrong, and contracts over a reboot wait their full time once more",
            _NTP,
        )


def kept(case: Case) -> Iterator[Finding]:
    """Whether the time survives without power."""
    if any((case.root / "sys/class/rtc").glob("rtc*")):
        yield ok("there is a clock that runs without power (RTC)")
        return
    if (case.root / "sys/hypervisor").exists() or "hypervisor" in case.read("proc/cpuinfo"):
        yield ok("there is no clock that runs without power (RTC); the host of this virtual machine has one")
        return
    yield warn(
        "there is no clock that runs without power (RTC)",
        "after a power cut the time is wrong until the network answers; edgeq waits for nothing, so first events may "
        "have times of the past",
        "add an RTC module (dtoverlay=i2c-rtc,ds3231 in config.txt)",
    )


def zones(case: Case) -> Iterator[Finding]:
    """Whether time zones are known."""
    if zoneinfo.available_timezones():
        yield ok("time zones are known")
    else:
        yield bad(
            "there is no data of time zones",
            "quiet hours and schedules with a timezone can't be told",
            "sudo apt install tzdata",
        )
