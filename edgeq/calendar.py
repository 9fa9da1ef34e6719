"""When a contract is in force, and which hour, day, week or month a moment lies in. Pure reckoning.

Moments are integers, microseconds since 1970 UTC. Everything is a half-open span [start, end), in a time zone.

Daylight saving: a day begins when its date does, and has 23, 24 or 25 hours; an hour that comes twice is two hours. A
window begins when clocks first show its beginning, and ends after they last show a time before its end, so that it
holds every moment at which a clock shows a time within; a time of day that a change of the clocks leaves out is when
they are set past it.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Annotated, Literal

from .clock import EPOCH, LATEST, MICROSECONDS, is_time
from .config.suggest import did_you_mean
from .zones import change_of_clocks, machine_zone, moment_of, offset_at, reading_at, zone

Unit = Literal["hour", "day", "week", "month"]
Times = tuple[int, int]
Span = tuple[int, int]
Stretch = tuple[int, int | None, bool]

_machine_in: ContextVar[str] = ContextVar("machine_in", default="")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"(\d\d?):(\d\d)")
_DAY_MINUTES = 24 * 60
_WEEK = 7 * 86400 * MICROSECONDS  # what goes on for longer never ends
_HORIZON_DAYS = 16  # the only window of a week may be left out by a change of the clocks
_FOUND_MAX = 8
_HOUR_SECONDS = 3600


def parse_times(text: str) -> Times:
    """`"22:00-06:00"` as minutes of the day at which it begins and ends; the end is beyond a day when it lies on the
    next one. Raises ValueError."""
    first, dash, second = text.replace("–", "-").partition("-")
    begin, end = _minutes(first), _minutes(second)
    if not dash or begin is None or end is None or begin == _DAY_MINUTES:
        raise ValueError('must be times of day such as "08:00-17:30", over midnight "22:00-06:00"')
    if begin == end:
        raise ValueError('must not end when it begins; the whole day is "00:00-24:00"')
    return begin, end if end > begin else end + _DAY_MINUTES


def parse_days(text: str) -> frozenset[int]:
    """`mon` or `fri-mon` as numbers of days, 0 is Monday. Raises ValueError."""
    first, dash, last = (part.strip().lower() for part in text.partition("-"))
    names = (first, last) if dash else (first, first)
    for name in names:
        if name not in _DAYS:
            hint = did_you_mean(name, _DAYS)
            raise ValueError(f"must be a day or a range of days, such as sat or mon-fri ({hint})")
    begin, end = (_DAYS.index(name) for name in names)
    return frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1))


def parse_moment(text: str, local: tzinfo, *, end: bool = False) -> int:
    """An RFC 3339 time, or a date: the beginning of that day in `local`, or, with `end`, its end. A time without an
    offset is in `local`. The end of the year 9999 is the latest there is, wherever it is. Raises ValueError."""
    if end and text == "9999-12-31":
        return LATEST
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            found = _midnight(date.fromisoformat(text) + timedelta(days=1 if end else 0), local)
        elif (moment := datetime.fromisoformat(text.upper())).tzinfo is not None:
            found = (moment - EPOCH) // timedelta(microseconds=1)
        else:
            found = moment_of(moment.replace(microsecond=0), local) * MICROSECONDS + moment.microsecond
    except (ValueError, OverflowError):
        found = LATEST + 1
    if not is_time(found):
        raise ValueError("must be a date such as 2026-03-31, or a time such as 2026-03-31T12:00:00+02:00")
    return found


def local_zone(name: str) -> tzinfo:
    """The time zone of that name, or the machine's if it is empty. Raises ValueError."""
    name = name or _machine_in.get()
    if name:
        return zone(name)
    try:
        return machine_zone(os.environ)[0]
    except ValueError as error:
        raise ValueError(f"the machine's time zone can't be used: {error}") from None


@contextmanager
def machine_in(name: str) -> Iterator[None]:
    """In the block, the machine's time zone is taken to be that of this name."""
    token = _machine_in.set(name)
    try:
        yield
    finally:
        _machine_in.reset(token)


def _checks_times(text: str) -> None:
    parse_times(text)


def _checks_days(text: str) -> None:
    parse_days(text)


def _checks_moment(text: str) -> None:
    parse_moment(text, zone("UTC"))


def _checks_zone(name: str) -> None:
    """An empty one is the machine's."""
    try:
        local_zone(name)
    except ValueError as error:
        raise ValueError(f"must be a time zone such as Europe/Berlin: {error}") from None


TimesKey = Annotated[str, _checks_times]
DaysKey = Annotated[str, _checks_days]
MomentKey = Annotated[str, _checks_moment]
ZoneKey = Annotated[str, _checks_zone]


def period(unit: Unit, at: int, local: tzinfo) -> Span:
    """The hour, day, week (from Monday) or month of the calendar in `local` that `at` lies in."""
    seconds = at // MICROSECONDS
    if unit == "hour":
        begin, end = _hour(seconds, local)
        return begin * MICROSECONDS, end * MICROSECONDS
    today = reading_at(seconds, local).date()
    if unit == "day":
        first, following = today, today + timedelta(days=1)
    elif unit == "week":
        first = today - timedelta(days=today.weekday())
        following = first + timedelta(days=7)
    else:
        first = today.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
    return _midnight(first, local), _midnight(following, local)


class Windows:
    """Times of day on days of the week, in a time zone. A window over midnight belongs to the day it begins on.

    To ask the clocks costs half a millisecond, so what was found out last is remembered: many events come in one
    window, and many subjects to its end.
    """

    def __init__(self, days: Iterable[str], times: Iterable[str], local: tzinfo) -> None:
        """Raises ValueError; no days are all days, no times the whole day."""
        self._days = frozenset[int]().union(*(parse_days(each) for each in days)) or frozenset(range(7))
        self._times: Sequence[Times] = [parse_times(each) for each in times] or [(0, _DAY_MINUTES)]
        self._local = local
        self._found: deque[Stretch] = deque(maxlen=_FOUND_MAX)

    def holds(self, at: int) -> bool:
        """Whether `at` lies in a window."""
        return self._stretch(at)[2]

    def next_change(self, at: int) -> int | None:
        """The first moment after `at` at which a window begins or ends; None when none ever does."""
        return self._stretch(at)[1]

    def _stretch(self, at: int) -> Stretch:
        """From when on until before when (None: for ever) it is as it is at `at`, in a window or not."""
        for found in self._found:
            if found[0] <= at and (found[1] is None or at < found[1]):
                return found
        found = self._find(at)
        self._found.appendleft(found)
        return found

    def _find(self, at: int) -> Stretch:
        ended = at
        for begin, end in self._around(at):
            if at < begin:
                return ended, begin, False
            if at < end:
                return begin, end if end - at <= _WEEK else None, True
            ended = end
        return ended, None, False

    def _around(self, at: int) -> Iterator[Span]:
        """The windows from before `at` until two weeks after it, those that touch made one, in order."""
        today = reading_at(at // MICROSECONDS, self._local).date()
        days = (today + timedelta(days=step) for step in range(-2, _HORIZON_DAYS))
        spans = sorted(
            (self._begin(day, begin), self._end(day, end))
            for day in days
            if day.weekday() in self._days
            for begin, end in self._times
        )
        joined: Span | None = None
        for begin, end in spans:
            if begin >= end:
                continue  # the change of the clocks leaves it out
            if joined is None or begin > joined[1]:
                if joined is not None:
                    yield joined
                joined = begin, end
            else:
                joined = joined[0], max(joined[1], end)
        if joined is not None:
            yield joined

    def _begin(self, day: date, minutes: int) -> int:
        return moment_of(_reading(day, minutes), self._local) * MICROSECONDS

    def _end(self, day: date, minutes: int) -> int:
        before = _reading(day, minutes) - timedelta(seconds=1)
        moment = moment_of(before, self._local, last=True)
        shown = reading_at(moment, self._local) == before
        return (moment + shown) * MICROSECONDS


class Calendar:
    """When a contract is in force: from `valid_from`, until before `valid_until`, and within `windows`."""

    def __init__(self, windows: Windows | None, valid_from: int | None = None, valid_until: int | None = None) -> None:
        self._windows = windows
        self._from = valid_from
        self._until = valid_until

    def is_active(self, at: int) -> bool:
        """Whether it is in force at `at`."""
        if (self._from is not None and at < self._from) or (self._until is not None and at >= self._until):
            return False
        return self._windows is None or self._windows.holds(at)

    def next_change(self, at: int) -> int | None:
        """The first moment after `at` at which `is_active` changes; None when it never does."""
        active = self.is_active(at)
        while self._until is None or at < self._until:
            if self._from is not None and at < self._from:
                at = self._from
            else:
                ends = [self._until, None if self._windows is None else self._windows.next_change(at)]
                coming = [end for end in ends if end is not None]
                if not coming:
                    return None
                at = min(coming)
            if self.is_active(at) is not active:
                return at
        return None


def _minutes(text: str) -> int | None:
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes = int(found[1]), int(found[2])
    return hours * 60 + minutes if minutes < 60 and hours * 60 + minutes <= _DAY_MINUTES else None


def _reading(day: date, minutes: int) -> datetime:
    return datetime.combine(day, time()) + timedelta(minutes=minutes)


def _midnight(day: date, local: tzinfo) -> int:
    """When `day` begins."""
    return moment_of(datetime.combine(day, time()), local) * MICROSECONDS


def _hour(seconds: int, local: tzinfo) -> tuple[int, int]:
    offset = offset_at(seconds, local)
    begin = (seconds + offset) // _HOUR_SECONDS * _HOUR_SECONDS - offset
    end = begin + _HOUR_SECONDS
    before = offset_at(begin, local)
    if before != offset:
        begin = change_of_clocks(begin, seconds, before, local) or begin
    if offset_at(end, local) != offset:
        end = change_of_clocks(seconds, end, offset, local) or end
    return begin, end
