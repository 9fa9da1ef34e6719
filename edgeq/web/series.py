"""Numbers in events over time: so many points that a chart can show, whatever the number of events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..clock import MICROSECONDS
from ..contracts.overview import data_of
from ..events import Event
from ..where import Path, is_number, lookup

DAY = 86_400 * MICROSECONDS
FIELDS_MAX = 100
DEPTH_MAX = 5

Point = tuple[int, float, float, float, int]
"""When a stretch of time begins, the least, mean and greatest of its numbers, and how many these are."""


class Series:
    """The number at `path` in events that happened from `since` until `until` (microseconds since 1970 UTC), told in
    `count` points at most."""

    def __init__(self, path: Path, since: int, until: int, count: int) -> None:
        self._path = path
        self._since = since
        self._until = until
        self._width = max(1, -(-(until - since) // count))
        self._found: dict[int, tuple[float, float, float, int]] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Take what they hold."""
        for event in events:
            value = lookup(data_of(event), self._path)
            if not is_number(value) or not self._since <= event.occurred_at < self._until:
                continue
            place = (event.occurred_at - self._since) // self._width
            low, total, high, count = self._found.get(place, (value, 0.0, value, 0))
            self._found[place] = (min(low, value), total + value, max(high, value), count + 1)

    def points(self) -> list[Point]:
        """What was taken, in the order of time; nothing for a time of which there is no number."""
        return [
            (self._since + place * self._width, float(low), total / count, float(high), count)
            for place, (low, total, high, count) in sorted(self._found.items())
        ]


def numbers_in(events: Iterable[Event]) -> list[str]:
    """The dotted paths of all fields with numbers, in order; FIELDS_MAX of them."""
    found: dict[str, None] = {}
    for event in events:
        _collect(data_of(event), "", DEPTH_MAX, found)
    return sorted(found)[:FIELDS_MAX]


def _collect(value: Any, path: str, depth: int, found: dict[str, None]) -> None:
    if isinstance(value, dict) and depth:
        for name, inner in value.items():
            if name and "." not in name:
                _collect(inner, f"{path}.{name}" if path else name, depth - 1, found)
    elif path and is_number(value) and len(found) < 10 * FIELDS_MAX:
        found[path] = None
