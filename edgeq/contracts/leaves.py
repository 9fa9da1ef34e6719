"""Conditions that aren't made of others: what they remember of events, and what they find in that. Compiled at load.

What is remembered are whole numbers, the marks of a condition: of X with `within`, the times of the last `count` +
`SPARE`; of X ever, the first `count`; of `since`, the last X and the last Y, by time and id.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections.abc import Callable

from ..calendar import Windows, local_zone
from ..clock import MICROSECONDS
from ..events import Event
from ..zones import reading_at
from .conditions import Condition, Which, selects, told, window
from .keys import listed

SPARE = 10

Marks = tuple[int, ...]


class Leaf(ABC):
    """A condition that isn't made of others. It holds of an event when `found` at least `wanted`.

    `types` are those of what it counts, `meaning` says what its marks mean. `after_microseconds`: for how long after
    the event more may be found; None: not at all.
    """

    types: tuple[str, ...] = ()
    meaning: tuple[object, ...] = ()
    wanted = 1
    after_microseconds: int | None = None

    @abstractmethod
    def found(self, marks: Marks, at: int) -> int | None:
        """How many there are, to be seen from an event at `at` that comes after everything in `marks`; at most as many
        as are remembered. None when `marks` don't tell, because the event is late and too much came after it."""

    def counts(self, event: Event) -> bool:
        """Whether `event` is one of those that are counted."""
        return False

    def marked(self, marks: Marks, event: Event, at: int) -> Marks:
        """`marks` after `event`, which happened at `at`."""
        return marks

    def moved(self, marks: Marks, move: Callable[[int], int]) -> Marks:
        """`marks` with their times moved by a step of the clock."""
        return marks

    def reaches(self, at: int, counted_at: int) -> bool:
        """Whether what was counted at `counted_at` isn't too old for an event at `at`."""
        return True

    @abstractmethod
    def words(self, found: int, at: int) -> str:
        """What was found, and what was wanted instead."""


class Counted(Leaf):
    """X so many times."""

    def __init__(self, keys: Condition) -> None:
        assert keys.of is not None
        self.types = (keys.of,)
        self.wanted = keys.count
        self.after_microseconds = None if keys.after is None else keys.after.microseconds
        self._is_wanted = selects(keys.of, keys.where)
        self._within = None if keys.within is None else keys.within.microseconds
        self._name = told(keys.of, keys.where)
        self._window = window(keys)
        self._most = keys.count if keys.within is None else keys.count + SPARE
        self.meaning = (keys.of, keys.where, keys.count, keys.within is None)

    def found(self, marks: Marks, at: int) -> int | None:
        """See Leaf."""
        until = at + (self.after_microseconds or 0)
        if self._within is None:
            return bisect_right(marks, until)
        begin = at - self._within
        found = bisect_right(marks, until) - bisect_right(marks, begin - 1)
        forgotten = len(marks) == self._most and marks[0] >= begin
        return None if forgotten and found < self.wanted else found

    def counts(self, event: Event) -> bool:
        """See Leaf."""
        return self._is_wanted(event)

    def marked(self, marks: Marks, event: Event, at: int) -> Marks:
        """See Leaf."""
        if not self._is_wanted(event):
            return marks
        if self._within is None and len(marks) == self._most and marks[-1] <= at:
            return marks
        times = list(marks)
        insort(times, at)
        return tuple(times[: self._most] if self._within is None else times[-self._most :])

    def moved(self, marks: Marks, move: Callable[[int], int]) -> Marks:
        """See Leaf."""
        return tuple(move(at) for at in marks)

    def reaches(self, at: int, counted_at: int) -> bool:
        """See Leaf."""
        return self._within is None or counted_at >= at - self._within

    def words(self, found: int, at: int) -> str:
        """See Leaf."""
        if found < self.wanted:
            if self.wanted == 1:
                return f"no {self._name}{self._window}"
            return f"{_times(self._name, found)}{self._window}, wanted at least {self.wanted}"
        more = " or more" if found >= self._most and found > 1 else ""
        most = f"at most {self.wanted - 1}" if self.wanted > 1 else "none"
        return f"{_times(self._name, found)}{more}{self._window}, wanted {most}"


class Since(Leaf):
    """X after the last Y. Marks are the time and id of the last X and of the last Y; an id of 0 means none."""

    def __init__(self, keys: Condition) -> None:
        assert keys.of is not None
        assert keys.since is not None
        since = keys.since if isinstance(keys.since, Which) else Which(of=keys.since)
        self.types = (keys.of, since.of)
        self._is_wanted = selects(keys.of, keys.where)
        self._is_since = selects(since.of, since.where)
        self._name, self._since = told(keys.of, keys.where), told(since.of, since.where)
        self.meaning = (keys.of, keys.where, since.of, since.where)

    def counts(self, event: Event) -> bool:
        """See Leaf."""
        return self._is_wanted(event) or self._is_since(event)

    def found(self, marks: Marks, at: int) -> int | None:
        """See Leaf."""
        if not marks:
            return 0
        last_at, last_id, since_at, since_id = marks
        if (last_id and last_at > at) or (since_id and since_at > at):
            return None
        return int(last_id > 0 and (not since_id or (last_at, last_id) > (since_at, since_id)))

    def marked(self, marks: Marks, event: Event, at: int) -> Marks:
        """See Leaf."""
        last, since = (marks[:2], marks[2:]) if marks else ((0, 0), (0, 0))
        if self._is_wanted(event) and (not last[1] or (at, event.id) > last):
            last = (at, event.id)
        if self._is_since(event) and (not since[1] or (at, event.id) > since):
            since = (at, event.id)
        return (*last, *since) if last[1] or since[1] else ()

    def moved(self, marks: Marks, move: Callable[[int], int]) -> Marks:
        """See Leaf."""
        return (move(marks[0]), marks[1], move(marks[2]), marks[3]) if marks else ()

    def words(self, found: int, at: int) -> str:
        """See Leaf."""
        return f"{self._name} since {self._since}, wanted none" if found else f"no {self._name} since {self._since}"


class During(Leaf):
    """The event itself, at a time of day, on days."""

    def __init__(self, keys: Condition) -> None:
        self._local = local_zone(keys.timezone)
        self._windows = Windows(listed(keys.days), listed(keys.between), self._local)
        self._wanted = " or ".join(listed(keys.between)) or "all day"
        if keys.days:
            self._wanted += f" on {', '.join(listed(keys.days))}"
        self._shows = "%a %H:%M:%S" if keys.days else "%H:%M:%S"

    def found(self, marks: Marks, at: int) -> int | None:
        """See Leaf."""
        return int(self._windows.holds(at))

    def words(self, found: int, at: int) -> str:
        """See Leaf."""
        shown = f"{reading_at(at // MICROSECONDS, self._local):{self._shows}}"
        return f"at {shown}, wanted {'not ' if found else ''}{self._wanted}"


def _times(name: str, count: int) -> str:
    return f"{name} once" if count == 1 else f"{name} {count} times"
