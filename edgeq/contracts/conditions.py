"""Conditions on what happened before an event: how they are written, and what they must remember. Compiled at load.

A condition is one of

- `{of: X, count: N, within: T, after: T2, where: {…}}`: X happened at least N times (default: once) within T before the
  event; without `within`, ever. With `after`, X may also follow within T2: see `requires`;
- `{of: X, since: Y}`: X happened after Y did last; if Y never did, X happened at all. X and Y of one moment go by their
  order. Y is a type, or `{of: Y, where: {…}}`. "The last X was after the last Y and not longer ago than T" is `all_of`
  this one and `{of: X, within: T}`;
- `{between: "22:00-06:00", days: [mon-fri], timezone: …}`: the event happened then, from the first minute until before
  the last. A window over midnight belongs to the day on which it begins. `days` alone are whole days;
- `{all_of: […]}`, `{any_of: […]}`, `{not: …}` of conditions.

A window of time is closed: X exactly T before counts. What happened at the same moment as the event counts if it came
before it.

Each condition remembers, as whole numbers (its marks): of X with `within`, the times of the last N + `SPARE`; of X
ever, the first N; of `since`, the last X and the last Y, by time and id. N is at most `COUNT_MAX`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from ..clock import LATEST, MICROSECONDS
from ..config import checks
from ..config.schema import Record
from ..events import Event
from ..patterns import pattern
from ..zones import reading_at
from .calendar import DaysKey, TimesKey, Windows, ZoneKey, local_zone
from .contract import say
from .keys import EventType, Period, listed
from .logic import Fact, Not, Term, all_of, any_of
from .where import compile_where, where_faults

COUNT_MAX = 1000
SPARE = 10

Marks = tuple[int, ...]

_FORMS = {
    "of": ("where", "count", "within", "after", "since"),
    "between": ("days", "timezone"),
    "days": ("between", "timezone"),
    "all_of": (),
    "any_of": (),
    "not": (),
}


class Which(Record, frozen=True, kw_only=True):
    """Events of a type, whose data are as `where` says."""

    of: EventType
    where: dict[str, Any] = msgspec.field(default_factory=dict)


class Condition(Record, frozen=True, kw_only=True):
    """See the module's text."""

    of: EventType | None = None
    where: dict[str, Any] = msgspec.field(default_factory=dict)
    count: Annotated[int, checks.between(1, COUNT_MAX)] = 1
    within: Period | None = None
    after: Period | None = None
    since: Which | EventType | None = None
    between: list[TimesKey] | TimesKey = msgspec.field(default_factory=list)
    days: list[DaysKey] | DaysKey = msgspec.field(default_factory=list)
    timezone: ZoneKey = ""
    all_of: Annotated[list[Condition], checks.some] | None = None
    any_of: Annotated[list[Condition], checks.some] | None = None
    not_: Condition | None = msgspec.field(name="not", default=None)

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """One form, and only keys that belong to it."""
        form = next((each for each in _FORMS if each in given), None)
        if form is None:
            yield "", f"needs one of: {', '.join(_FORMS)}"
            return
        for key in given:
            if key != form and key not in _FORMS[form]:
                beside = "both can be parts of all_of" if key in _FORMS else f"it belongs to {_owners(key)}"
                yield key, f"can't stand beside {form}: {beside}"
        if "since" in given:
            for key in ("count", "within", "after"):
                if key in given:
                    yield key, "can't stand beside since: both can be parts of all_of"

    def mistakes(self, path: str) -> Iterator[tuple[str, str]]:
        """What `faults` can't see of this condition, which stands at `path`, and those below it."""
        yield from where_faults(self.where, f"{path}.where")
        if isinstance(self.since, Which):
            yield from where_faults(self.since.where, f"{path}.since.where")
        for key, part in self.parts():
            yield from part.mistakes(f"{path}.{key}")

    def parts(self) -> Iterator[tuple[str, Condition]]:
        """The conditions that this one is made of, each with its key."""
        for key, parts in (("all_of", self.all_of), ("any_of", self.any_of)):
            yield from ((f"{key}[{index}]", part) for index, part in enumerate(parts or ()))
        if self.not_ is not None:
            yield "not", self.not_


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
        self._window = _window(keys)
        self._most = keys.count if keys.within is None else keys.count + SPARE
        self.meaning = (keys.of, _sorted(keys.where), keys.count, keys.within is None)

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
        self.meaning = (keys.of, _sorted(keys.where), since.of, _sorted(since.where))

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
        self._known = (0, 0, 0)  # from when until when it is what: asking the calendar costs half a millisecond

    def found(self, marks: Marks, at: int) -> int | None:
        """See Leaf."""
        begin, end, found = self._known
        if not begin <= at < end:
            found, change = int(self._windows.holds(at)), self._windows.next_change(at)
            self._known = (at, LATEST if change is None else change, found)
        return found

    def words(self, found: int, at: int) -> str:
        """See Leaf."""
        shown = f"{reading_at(at // MICROSECONDS, self._local):{self._shows}}"
        return f"at {shown}, wanted {'not ' if found else ''}{self._wanted}"


def compile_condition(keys: Condition, leaves: list[Leaf]) -> Term:
    """The condition as a term whose facts are those of `leaves`, to which its own are added."""
    if keys.not_ is not None:
        return Not(compile_condition(keys.not_, leaves))
    if keys.all_of is not None:
        return all_of([compile_condition(part, leaves) for part in keys.all_of])
    if keys.any_of is not None:
        return any_of([compile_condition(part, leaves) for part in keys.any_of])
    if keys.of is None:
        leaves.append(During(keys))
    else:
        leaves.append(Counted(keys) if keys.since is None else Since(keys))
    return Fact(len(leaves) - 1)


def form_of(keys: Condition) -> object:
    """How the condition is made of others: what JSON can say."""
    parts = [form_of(part) for _, part in keys.parts()]
    return ["not" if keys.not_ else "all_of" if keys.all_of else "any_of", *parts] if parts else "."


def selects(of: str, where: Mapping[str, Any]) -> Callable[[Event], bool]:
    """Whether an event is of a type that fits `of`, with data as `where` says."""
    fits, test = pattern(of), compile_where(where)
    if test is None:
        return lambda event: fits(event.type)
    return lambda event: fits(event.type) and test(event.data)


def told(of: str, where: Mapping[str, Any]) -> str:
    """The events that `selects` selects, in words."""
    return f"{of} ({', '.join(f'{field} {_told(where[field])}' for field in where)})" if where else of


def _told(condition: Any) -> str:
    if isinstance(condition, Mapping):
        return " and ".join(f"{name} {_told(wanted)}" for name, wanted in condition.items())
    if isinstance(condition, list):
        return " or ".join(_told(each) for each in condition)
    return str(condition).lower() if isinstance(condition, bool) else say(condition)


def _owners(key: str) -> str:
    return " and ".join(form for form, keys in _FORMS.items() if key in keys)


def _sorted(where: Mapping[str, Any]) -> Collection[object]:
    return sorted(where.items(), key=str)


def _window(keys: Condition) -> str:
    if keys.within is None:
        return " before" if keys.after is None else f" before or within {keys.after} after"
    return f" within {keys.within}" + ("" if keys.after is None else f" before or {keys.after} after")


def _times(name: str, count: int) -> str:
    return f"{name} once" if count == 1 else f"{name} {count} times"
