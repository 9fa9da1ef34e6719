"""What a template can do with a value: `{observed|round:1}`. Nothing here can do more than make a text.

Each function takes any value that JSON can say; for one that it can make nothing of it raises Unfit, and the text has a
gap there. To add one: a function, a line in FUNCTIONS, and its sentence in `config/edgeq.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import Any, NamedTuple

import msgspec

from ..clock import EARLIEST, LATEST, MICROSECONDS, rfc3339
from ..events import to_json
from ..moments import moment
from ..units import spoken
from ..zones import reading_at

VALUE_CHARACTERS_MAX = 16 * 1024
DIGITS_MAX = 9
TIME_FORMAT = "%Y-%m-%d %H:%M"

_DIRECTIVES = frozenset("YmdHMSyjaAbBpI%")
_DIRECTIVE = re.compile("%(.?)", re.DOTALL)
_LENGTH_SECONDS_MAX = 1e12
_DAY = 86_400 * MICROSECONDS


class Place(msgspec.Struct, frozen=True):
    """Where notifications are written: the gateway's name, and what clocks on the wall show there."""

    gateway: str = ""
    zone: tzinfo = UTC


class Moment(int):
    """A time in microseconds since 1970 UTC."""


class Length(float):
    """A length of time in seconds."""


class Now(NamedTuple):
    """When something is written, in microseconds since 1970 UTC, and where."""

    at: int
    place: Place


class Unfit(Exception):
    """A value isn't what a function is for: a number, a time."""


class Function(NamedTuple):
    """A function of templates. `checks` has one for each argument, and raises ValueError for a wrong one; the last
    `optional` of them may be left out. `fills`: it is called where there is nothing, too (with None)."""

    apply: Callable[..., Any]
    checks: tuple[Callable[[object], None], ...] = ()
    optional: int = 0
    fills: bool = False


def text_of(value: Any, place: Place) -> str:
    """A value as a text for people, of at most VALUE_CHARACTERS_MAX characters."""
    if isinstance(value, str):
        return value[:VALUE_CHARACTERS_MAX]
    if isinstance(value, Moment):
        return _shown(value, place, TIME_FORMAT)
    if isinstance(value, Length):
        return length(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return to_json(value)[:VALUE_CHARACTERS_MAX]


def length(seconds: float) -> str:
    """`15d 3h`, `2h 5m`, `1m 5s`: whole seconds in the two largest units."""
    return spoken(round(seconds))


def clock_time(at: int, beside: int, place: Place) -> str:
    """The time of day of `at` in `place`, with the date unless `beside` is on the same day."""
    days = [_shown(each, place, "%Y-%m-%d") for each in (at, beside)]
    return _shown(at, place, "%H:%M" if days[0] == days[1] else TIME_FORMAT)


def _shown(at: int, place: Place, form: str) -> str:
    """What clocks show at `at`; for what calendars can't say, as anybody may write it into a table, their ends."""
    at = min(max(at, EARLIEST + _DAY), LATEST - _DAY)
    return reading_at(at // MICROSECONDS, place.zone).strftime(form)


# The functions


def _round(value: Any, now: Now, digits: int) -> str:
    text = f"{_number(value):.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def _time(value: Any, now: Now, form: str = TIME_FORMAT) -> str:
    return _shown(_moment(value), now.place, form)


def _ago(value: Any, now: Now) -> str:
    seconds = (now.at - _moment(value)) / MICROSECONDS
    return f"in {length(-seconds)}" if seconds <= -1 else f"{length(max(seconds, 0.0))} ago"


def _duration(value: Any, now: Now) -> str:
    seconds = _number(value)
    if not 0 <= seconds <= _LENGTH_SECONDS_MAX:
        raise Unfit("length of time")
    return length(seconds)


def _upper(value: Any, now: Now) -> str:
    return text_of(value, now.place).upper()


def _lower(value: Any, now: Now) -> str:
    return text_of(value, now.place).lower()


def _capital(value: Any, now: Now) -> str:
    text = text_of(value, now.place)
    return text[:1].upper() + text[1:]


def _cut(value: Any, now: Now, characters: int) -> str:
    text = text_of(value, now.place)
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _default(value: Any, now: Now, instead: str) -> Any:
    return instead if value is None else value


def _json(value: Any, now: Now) -> str:
    if isinstance(value, Moment):
        value = rfc3339(value)
    elif isinstance(value, Length):
        value = float(value)
    return to_json(value)


def _plural(value: Any, now: Now, one: str, more: str) -> str:
    return one if _number(value) == 1 else more


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit("number")
    try:
        return float(value)
    except OverflowError:
        raise Unfit("number") from None


def _moment(value: Any) -> int:
    if isinstance(value, Moment):
        return value
    try:
        return moment(value)
    except ValueError:
        raise Unfit("time") from None


# Their arguments


def _between(low: int, high: int) -> Callable[[object], None]:
    def check(argument: object) -> None:
        if not isinstance(argument, int) or not low <= argument <= high:
            raise ValueError(f"takes a whole number from {low} to {high}")

    return check


def _is_text(argument: object) -> None:
    if not isinstance(argument, str):
        raise ValueError("takes a text in quotes, such as '?'")


def _is_form(argument: object) -> None:
    if not isinstance(argument, str) or not argument.isprintable():
        raise ValueError("takes a form in quotes, such as '%H:%M'")
    for found in _DIRECTIVE.finditer(argument):
        if found[1] not in _DIRECTIVES or not found[1]:
            raise ValueError(f"knows no {found[0]!r}; there is %H %M %S %I %p %Y %y %m %d %j %a %A %b %B and %%")


FUNCTIONS: dict[str, Function] = {
    "round": Function(_round, (_between(0, DIGITS_MAX),)),
    "time": Function(_time, (_is_form,), optional=1),
    "ago": Function(_ago),
    "duration": Function(_duration),
    "upper": Function(_upper),
    "lower": Function(_lower),
    "capital": Function(_capital),
    "cut": Function(_cut, (_between(1, VALUE_CHARACTERS_MAX),)),
    "default": Function(_default, (_is_text,), fills=True),
    "json": Function(_json),
    "plural": Function(_plural, (_is_text, _is_text)),
}
