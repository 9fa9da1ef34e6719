"""Periods of the calendar in which something is counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

import msgspec

from ..calendar import Unit, period
from ..clock import MICROSECONDS


class Span(msgspec.Struct, frozen=True, array_like=True):
    """The period [start, end): how many were counted in it, when the newest of them happened, when there were enough
    (0: there aren't), and whether there were too many. Times are microseconds since 1970 UTC."""

    start: int
    end: int
    count: int = 0
    newest: int = 0
    met_at: int = 0
    over: bool = False


class Periods:
    """The hours, days, weeks or months of a time zone. Spans are given in order, and don't overlap; if the zone has
    become another one since they were made, those between them are as long as there is room."""

    def __init__(self, unit: Unit, local: tzinfo) -> None:
        self._unit = unit
        self._local = local

    def at(self, at: int) -> Span:
        """The period that `at` lies in."""
        return Span(*period(self._unit, at, self._local))

    def locate(self, spans: Sequence[Span], at: int) -> tuple[Sequence[Span], Span, Sequence[Span]]:
        """Those before the one that `at` lies in, that one, and those after it. `at` isn't before the first."""
        place = sum(span.end <= at for span in spans)
        before, after = spans[:place], spans[place:]
        if after and after[0].start <= at:
            return before, after[0], after[1:]
        start, end = period(self._unit, at, self._local)
        found = Span(max(start, before[-1].end), min(end, after[0].start) if after else end)
        return before, found, after

    def without_first(self, spans: Sequence[Span]) -> Sequence[Span]:
        """Those after the first one, the period right behind it in front."""
        behind = self.locate(spans, spans[0].end)
        return (behind[1], *behind[2])

    def is_whole(self, span: Span) -> bool:
        """Whether it is a period, and not what was left when the zone became another one."""
        return period(self._unit, span.start, self._local) == (span.start, span.end)

    def name(self, span: Span) -> str:
        """When it begins, as people say it: a date, or for an hour its time with the distance from UTC."""
        begin = datetime.fromtimestamp(span.start // MICROSECONDS, self._local)
        return begin.isoformat(timespec="minutes") if self._unit == "hour" else begin.date().isoformat()
