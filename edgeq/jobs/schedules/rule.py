"""When a schedule runs: by a cron line in a time zone, or again and again after a period. Pure reckoning.

Daylight saving is as with Debian's cron. A line of which neither the minute nor the hour begins with `*` says times of
day: one that a change of the clocks leaves out runs at the moment of the change, one that comes twice runs the first
time only. A line with such a `*` says how often: it runs whenever the time of day fits, so not in an hour that is left
out, and twice in one that comes twice.

All moments are integers, microseconds since 1970 UTC.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from cronsim import CronSim, CronSimError

from ...clock import LATEST, MICROSECONDS
from ...units import Duration
from ...zones import as_reading, as_seconds, change_of_clocks, moment_of, offset_at, reading_at

CRON_CHARACTERS_MAX = 200
_FIELDS = "five fields: minute, hour, day of the month, month, day of the week, such as '0 2 * * *'"
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_SECOND = MICROSECONDS
_SOME_MONDAY = datetime(2001, 1, 1)


class Rule(Protocol):
    """A rule says which moments are run times. `spec` is its text, by which a change of the rule is noticed, too;
    `comes_again`: whether a clock that is set back comes by the same run times again."""

    spec: str
    comes_again: bool

    def first(self, now: int) -> int:
        """The first run time for a schedule that begins now."""

    def after(self, moment: int, run: int) -> int:
        """The first run time after `moment`, if `run` is one of them."""

    def set_right(self, next_run_at: int, last_run_at: int | None, since: int, step: int) -> int:
        """What `next_run_at` is to be when the clock was set by `step`, or, if that is 0, nobody knows by how much.
        The clock has been right since `since`, and nothing was dispatched since then."""

    def local(self, moment: int) -> datetime:
        """`moment` as its people read it from their clocks. Raises ValueError, OverflowError out of a calendar."""


class Every:
    """Once in `period`, counted from the last time."""

    comes_again = False

    def __init__(self, period: Duration) -> None:
        self.spec = f"every {period}"
        self._period = period.microseconds

    def first(self, now: int) -> int:
        """See Rule: a period from now."""
        return now + self._period

    def after(self, moment: int, run: int) -> int:
        """See Rule."""
        return run + ((moment - run) // self._period + 1) * self._period

    def set_right(self, next_run_at: int, last_run_at: int | None, since: int, step: int) -> int:
        """See Rule: what was left of the period is left still."""
        return min(next_run_at + step, since + self._period)

    def local(self, moment: int) -> datetime:
        """See Rule: in UTC."""
        return datetime.fromtimestamp(moment / _SECOND, UTC)


class Cron:
    """At the times that a cron line of five fields names, or a word such as `@daily`.

    Raises ValueError for a line that can't be read, and for one that never comes (30 February).
    """

    comes_again = True

    def __init__(self, line: str, zone: tzinfo, zone_name: str) -> None:
        self.spec = f"{' '.join(line.split())} {zone_name}"
        self._zone = zone
        words = _words(line)
        self._line = _parse(line, words)
        self._says_times = not (words[0].startswith("*") or words[1].startswith("*"))
        try:
            self._following(_SOME_MONDAY)
        except StopIteration:
            raise ValueError(f"{line!r} never comes") from None

    def first(self, now: int) -> int:
        """See Rule."""
        return self.after(now, now)

    def after(self, moment: int, run: int) -> int:
        """See Rule. LATEST when the calendar ends before there is one."""
        seconds = moment // _SECOND
        try:
            return (self._time_after(seconds) if self._says_times else self._fit_after(seconds)) * _SECOND
        except (OverflowError, ValueError, StopIteration):
            return LATEST

    def set_right(self, next_run_at: int, last_run_at: int | None, since: int, step: int) -> int:
        """See Rule. If the clock was set back, or the zone has changed, then what comes is the next run time from then
        on, unless that is the last one that was run."""
        if next_run_at <= since:
            return next_run_at
        coming = self.after(since, since)
        return self.after(coming, coming) if coming == last_run_at else coming

    def local(self, moment: int) -> datetime:
        """See Rule: in the rule's zone."""
        return datetime.fromtimestamp(moment / _SECOND, self._zone)

    # Below, moments are whole seconds; a `reading` is what a clock on the wall shows, without a zone.

    def _time_after(self, moment: int) -> int:
        reading = reading_at(moment, self._zone)
        while True:
            reading = self._following(reading)
            found = moment_of(reading, self._zone)
            if found > moment:
                return found

    def _fit_after(self, moment: int) -> int:
        offset = offset_at(moment, self._zone)
        while True:
            reading = self._following(as_reading(moment + offset))
            found = as_seconds(reading) - offset
            change = change_of_clocks(moment + 1, found, offset, self._zone)
            if change is None:
                return found
            moment, offset = change - 1, offset_at(change, self._zone)

    def _following(self, reading: datetime) -> datetime:
        line = copy.copy(self._line)
        line.dt = reading.replace(second=0)
        return next(line)


def _words(line: str) -> list[str]:
    """The five fields. Raises ValueError."""
    words = _WORDS.get(line.strip().lower(), line).split()
    if line.startswith("@") and len(words) == 1:
        raise ValueError(f"there is no {line!r:.80}; there is {', '.join(_WORDS)}")
    if len(words) != 5 or len(line) > CRON_CHARACTERS_MAX or not line.isascii():
        raise ValueError(f"must have {_FIELDS}")
    return words


def _parse(line: str, words: list[str]) -> CronSim:
    """Raises ValueError."""
    try:
        return CronSim(" ".join(words), _SOME_MONDAY)
    except (CronSimError, ValueError) as error:
        field = str(error).removeprefix("Bad ").replace("-", " ")
        raise ValueError(f"{line!r} has a {field} that can't be read or never comes") from None
