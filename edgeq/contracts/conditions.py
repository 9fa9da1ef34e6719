"""Conditions on what happened before an event: how they are written.

A condition is one of

- `{of: X, count: N, within: T, after: T2, where: {…}}`: X happened at least N times (default: once) within T before the
  event; without `within`, ever. With `after`, X may also follow within T2: see `requires`;
- `{of: X, since: Y}`: X happened after Y did last; if Y never did, X happened at all. X and Y of one moment go by their
  order. Y is a type, or `{of: Y, where: {…}}`. "The last X was after the last Y and not longer ago than T" is `all_of`
  this one and `{of: X, within: T}`;
- `{between: "22:00-06:00", days: [mon-fri], timezone: …}`: the event happened then, from when the window begins until
  before it ends (see `calendar`). One over midnight belongs to the day on which it begins. `days` alone are whole days;
- `{all_of: […]}`, `{any_of: […]}`, `{not: …}` of conditions.

A window of time is closed: X exactly T before counts. What happened at the same moment as the event counts if it came
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from ..calendar import DaysKey, TimesKey, ZoneKey
from ..config import checks
from ..config.schema import Record
from ..events import Event
from ..patterns import pattern
from ..where import compile_where, where_faults
from .contract import say
from .keys import EventType, Period, listed

COUNT_MAX = 1000

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


def selects(of: str, where: Mapping[str, Any]) -> Callable[[Event], bool]:
    """Whether an event is of a type that fits `of`, with data as `where` says."""
    fits, test = pattern(of), compile_where(where)
    if test is None:
        return lambda event: fits(event.type)
    return lambda event: fits(event.type) and test(event.data)


def told(of: str, where: Mapping[str, Any]) -> str:
    """The events that `selects` selects, in words."""
    return f"{of} ({', '.join(f'{field} {_told(where[field])}' for field in where)})" if where else of


def described(keys: Condition) -> str:
    """The condition in words."""
    if keys.not_ is not None:
        return f"not ({described(keys.not_)})"
    if keys.all_of is not None or keys.any_of is not None:
        parts = [f"({described(part)})" for _, part in keys.parts()]
        return (" and " if keys.all_of is not None else " or ").join(parts)
    if keys.of is None:
        days = f" on {', '.join(listed(keys.days))}" if keys.days else ""
        return f"it is {' or '.join(listed(keys.between)) or 'any time'}{days}"
    name = told(keys.of, keys.where)
    if keys.since is not None:
        since = keys.since if isinstance(keys.since, Which) else Which(of=keys.since)
        return f"{name} since {told(since.of, since.where)}"
    times = f" {keys.count} times" if keys.count > 1 else ""
    return f"{name}{times}{window(keys)}"


def window(keys: Condition) -> str:
    """When what is counted may have happened, in words that follow its name."""
    if keys.within is None:
        return " before" if keys.after is None else f" before or within {keys.after} after"
    return f" within {keys.within}" + ("" if keys.after is None else f" before or {keys.after} after")


def _told(condition: Any) -> str:
    if isinstance(condition, Mapping):
        return " and ".join(f"{name} {_told(wanted)}" for name, wanted in condition.items())
    if isinstance(condition, list):
        return " or ".join(_told(each) for each in condition)
    return str(condition).lower() if isinstance(condition, bool) else say(condition)


def _owners(key: str) -> str:
    return " and ".join(form for form, keys in _FORMS.items() if key in keys)
