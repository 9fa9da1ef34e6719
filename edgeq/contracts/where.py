"""Conditions on events: fields of their data, and the mapping `where`. Compiled at load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..config.origin import child
from ..config.suggest import did_you_mean

MISSING: Any = object()

Path = tuple[str, ...]
Test = Callable[[Any], bool]

_MOST = sys.float_info.max


def parse_path(text: str) -> Path:
    """The steps of a field's dotted path in an event's data; `data.` in front may be left out. Raises ValueError."""
    steps = tuple(text.removeprefix("data.").split("."))
    if not all(steps):
        raise ValueError("must be a field of the event's data, such as value or battery.level")
    return steps


def field_path(text: str) -> None:
    """A check for configuration records: see `parse_path`."""
    parse_path(text)


def lookup(data: Any, path: Path) -> Any:
    """The field at `path`, or MISSING."""
    for step in path:
        if not isinstance(data, dict) or step not in data:
            return MISSING
        data = data[step]
    return data


def is_number(value: Any) -> bool:
    """Whether it is a number to compare with: neither true nor false, nor endless."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def compile_where(where: Mapping[str, Any]) -> Test | None:
    """Whether data fulfils all of `where`, which `where_faults` found nothing wrong with; None when it always does."""
    if not where:
        return None
    tests = [(parse_path(field), _compile_condition(condition)) for field, condition in where.items()]
    return lambda data: all(test(lookup(data, path)) for path, test in tests)


def where_faults(where: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with `where`: for each mistake the key's path and a sentence."""
    for field, condition in where.items():
        path = child("where", field)
        try:
            parse_path(field)
        except ValueError as error:
            yield path, str(error)
        yield from ((f"{path}{key}", message) for key, message in _condition_faults(condition))


def _compile_condition(condition: Any) -> Test:
    if isinstance(condition, Mapping):
        above, below = condition.get("above"), condition.get("below")
        return lambda value: is_number(value) and (above is None or value > above) and (below is None or value < below)
    if isinstance(condition, list):
        choices = [_compile_condition(each) for each in condition]
        return lambda value: any(choice(value) for choice in choices)
    truth = isinstance(condition, bool)
    return lambda value: isinstance(value, bool) == truth and bool(value == condition)


def _condition_faults(condition: Any) -> Iterator[tuple[str, str]]:
    if isinstance(condition, list):
        if not condition:
            yield "", "must not be an empty list: nothing is in it"
        for index, choice in enumerate(condition):
            if isinstance(choice, Mapping | list):
                yield f"[{index}]", "must be a text, a number, true or false"
    elif isinstance(condition, Mapping):
        if not condition:
            yield "", "must be a value, a list of values, or a mapping with above, below or both"
        for key, limit in condition.items():
            if key not in ("above", "below"):
                yield f".{key}", f"unknown key ({did_you_mean(key, ('above', 'below'))})"
            elif not is_number(limit):
                yield f".{key}", "must be a number"
        if set(condition) == {"above", "below"} and all(map(is_number, condition.values())):
            low, high = condition["above"], condition["below"]
            if low >= high:
                yield ".above", f"must be less than below: nothing is above {low} and below {high}"
