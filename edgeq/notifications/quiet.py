"""Quiet hours: times of day at which only what is critical is told. Pure reckoning.

They are what clocks on the wall show in their time zone: over a change to summer time they are an hour shorter, over
the change back an hour longer. See `edgeq.calendar`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..calendar import Calendar, Windows, local_zone, parse_days, parse_times
from ..config.schema import Quiet

# Any moment will do: what never changes is the same at all of them.
_SOME_MOMENT = 0


class QuietHours:
    """Compiled from what `quiet_faults` found nothing wrong with."""

    def __init__(self, quiet: str | Quiet) -> None:
        self._calendar = Calendar(_windows(_whole(quiet)))

    def until(self, at: int) -> int | None:
        """When the quiet hours that `at` lies in are over; None when it lies in none. Microseconds since 1970 UTC."""
        return self._calendar.next_change(at) if self._calendar.is_active(at) else None


def quiet_faults(quiet: str | Quiet, key: str = "quiet") -> Iterator[tuple[str, str]]:
    """What is wrong with quiet hours at `key`: for each mistake its path and a sentence."""
    whole = _whole(quiet)
    faults: list[tuple[str, str]] = []
    times_key = key if isinstance(quiet, str) else f"{key}.times"
    if isinstance(whole.times, str):
        faults += _fault(times_key, whole.times)
    elif whole.times:
        for index, each in enumerate(whole.times):
            faults += _fault(f"{times_key}[{index}]", each)
    else:
        faults.append((times_key, "must not be empty"))
    for index, each in enumerate(whole.days):
        try:
            parse_days(each)
        except ValueError as error:
            faults.append((f"{key}.days[{index}]", str(error)))
    try:
        local_zone(whole.timezone)
    except ValueError as error:
        faults.append((f"{key}.timezone", f"must be a time zone such as Europe/Berlin: {error}"))
    if not faults:
        windows = _windows(whole)
        if windows.holds(_SOME_MOMENT) and windows.next_change(_SOME_MOMENT) is None:
            faults.append((times_key, "must end at some time: nothing but what is critical would ever be told"))
    yield from faults


def _fault(key: str, times: str) -> list[tuple[str, str]]:
    try:
        parse_times(times)
    except ValueError as error:
        return [(key, str(error))]
    return []


def _whole(quiet: str | Quiet) -> Quiet:
    return Quiet(quiet) if isinstance(quiet, str) else quiet


def _windows(quiet: Quiet) -> Windows:
    times = [quiet.times] if isinstance(quiet.times, str) else quiet.times
    return Windows(quiet.days, times, local_zone(quiet.timezone))
