"""Time zones by name, and what clocks on the wall show in them. Pure reckoning, but for the machine's own zone.

Moments here are whole seconds since 1970 UTC; a `reading` is what a clock on the wall shows, without a zone.
"""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

from .clock import EPOCH
from .config.suggest import did_you_mean

_LOCALTIME = "/etc/localtime"
_WEEK_SECONDS = 7 * 86400
_UNZONED_EPOCH = EPOCH.replace(tzinfo=None)


def machine_zone(environ: Mapping[str, str], path: str = _LOCALTIME) -> tuple[tzinfo, str]:
    """The time zone of the machine and its name: that of TZ in `environ`, or else what /etc/localtime is, or else UTC.

    Raises ValueError for a TZ that isn't known by name.
    """
    named = environ.get("TZ")
    if named is not None:
        named = named.removeprefix(":") or "UTC"
        if not named.startswith("/"):
            return zone(named), named
        path = named
    elif not os.path.exists(path):
        return UTC, "UTC"
    _, found, name = os.path.realpath(path).partition("/zoneinfo/")
    try:
        with open(path, "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key=name or None), name if found else path
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from None


def zone(name: str) -> tzinfo:
    """The time zone of that name. Raises ValueError."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    if name.upper() == "UTC":
        return UTC
    known = zoneinfo.available_timezones()
    if not known:
        raise ValueError("there is no list of time zones on this machine: install the package tzdata")
    hint = did_you_mean(name, sorted(known))
    raise ValueError(f"there is no time zone {name!r}" + (f" ({hint})" if hint.startswith("did") else ""))


def offset_at(moment: int, zone: tzinfo) -> int:
    """By how many seconds clocks in `zone` are ahead of UTC at `moment`."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    return 0 if offset is None else offset.days * 86400 + offset.seconds


def reading_at(moment: int, zone: tzinfo) -> datetime:
    """What clocks in `zone` show at `moment`."""
    return as_reading(moment + offset_at(moment, zone))


def moment_of(reading: datetime, zone: tzinfo, *, last: bool = False) -> int:
    """When clocks in `zone` show `reading` for the first (or `last`) time; if they never do, when they are set past
    it."""
    seconds = as_seconds(reading)
    offset = reading.replace(tzinfo=zone, fold=int(last)).utcoffset()
    assert offset is not None
    moment = seconds - (offset.days * 86400 + offset.seconds)
    if reading_at(moment, zone) == reading:
        return moment
    before = moment - 86400
    return change_of_clocks(before, moment + 86400, offset_at(before, zone), zone) or moment


def change_of_clocks(begin: int, end: int, offset: int, zone: tzinfo) -> int | None:
    """The first moment from `begin` to `end` at which the clocks are no longer ahead of UTC by `offset` seconds."""
    low = begin - 1
    while low < end:
        high = min(low + _WEEK_SECONDS, end)
        if offset_at(high, zone) == offset:
            low = high
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if offset_at(middle, zone) == offset:
                low = middle
            else:
                high = middle
        return high
    return None


def as_reading(seconds: int) -> datetime:
    """Seconds since 1970 on the wall as a reading."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def as_seconds(reading: datetime) -> int:
    """A reading as seconds since 1970 on the wall."""
    passed = reading - _UNZONED_EPOCH
    return passed.days * 86400 + passed.seconds
