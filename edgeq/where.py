"""Conditions on events: fields of their data, and the mapping `where`. Compiled at load.

A condition on a field is

- a value, which the field must be: `unit: C`, `open: true`, `error: null`;
- a list of values, of which it must be one: `unit: [C, K]`;
- a mapping, all of which must hold: `above` and `below` a number (at the limit is neither), `not` any of these
  conditions, `exists: true` or `false`.

A field that is missing is no value, no number and not there: so only `exists: false` and `not` hold for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

from .config.origin import child
from .config.suggest import did_you_mean

MISSING: Any = object()

Path = tuple[str, ...]
Test = Callable[[Any], bool]

_MOST = sys.float_info.max
_TESTS = ("above", "below", "not", "exists")
_CONTAINERS = frozenset((dict, list))


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


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number to compare with: neither true nor false, nor endless."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def compile_where(where: Mapping[str, Any]) -> Test | None:
    """Whether data fulfils all of `where`, which `where_faults` found nothing wrong with; None when it always does."""
    tests = [_compile_field(parse_path(field), _compile_condition(where[field])) for field in where]
    if len(tests) < 2:
        return tests[0] if tests else None
    return _all(tests)


class Choice(NamedTuple):
    """The field at `path` must be one of `keys`, each as `choice_key` makes it of a value."""

    path: Path
    keys: tuple[Any, ...]


def choice(where: Mapping[str, Any]) -> Choice | None:
    """The first field in `where` that must be a value or one of a list, if there is one."""
    for field, condition in where.items():
        if not isinstance(condition, Mapping):
            values = condition if isinstance(condition, list) else [condition]
            return Choice(parse_path(field), tuple(dict.fromkeys(map(choice_key, values))))
    return None


def choice_key(value: Any) -> Any:
    """What values have in common that fulfil the same condition: 1 and 1.0, but not 1 and true. A list and a mapping
    fulfil none."""
    if value is True or value is False:
        return (value,)
    return MISSING if type(value) in _CONTAINERS else value


def where_faults(where: Mapping[str, Any], key: str = "where") -> Iterator[tuple[str, str]]:
    """What is wrong with the mapping `where` at `key`: for each mistake its path and a sentence."""
    for field, condition in where.items():
        path = child(key, field)
        try:
            parse_path(field)
        except ValueError as error:
            yield path, str(error)
        yield from ((f"{path}{below}", message) for below, message in _condition_faults(condition))


def _compile_field(path: Path, test: Test) -> Test:
    if len(path) > 1:
        return lambda data: test(lookup(data, path))
    (step,) = path
    return lambda data: test(data.get(step, MISSING) if isinstance(data, dict) else MISSING)


def _compile_condition(condition: Any) -> Test:
    if isinstance(condition, Mapping):
        if condition.keys() == {"above", "below"}:
            low, high = condition["above"], condition["below"]
            return lambda value: (type(value) is float or type(value) is int) and low < value < high
        return _all([_compile_test(name, wanted) for name, wanted in condition.items()])
    if isinstance(condition, list):
        keys = frozenset(map(choice_key, condition))
        return lambda value: choice_key(value) in keys
    if isinstance(condition, bool):
        return lambda value: value is condition
    return lambda value: bool(value == condition) and not isinstance(value, bool)


def _compile_test(name: str, wanted: Any) -> Test:
    if name == "above":  # is_number, but quicker
        return lambda value: (type(value) is float or type(value) is int) and wanted < value <= _MOST
    if name == "below":
        return lambda value: (type(value) is float or type(value) is int) and -_MOST <= value < wanted
    if name == "exists":
        return lambda value: (value is not MISSING) is wanted
    test = _compile_condition(wanted)
    return lambda value: not test(value)


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)
    return lambda value: all(test(value) for test in tests)


def _condition_faults(condition: Any) -> Iterator[tuple[str, str]]:
    if isinstance(condition, list):
        if not condition:
            yield "", "must not be an empty list: nothing is in it"
        for index, choice in enumerate(condition):
            if isinstance(choice, Mapping | list):
                yield f"[{index}]", "must be a text, a number, true or false"
    elif isinstance(condition, Mapping):
        if not condition:
            yield "", f"must be a value, a list of values, or a mapping with some of {', '.join(_TESTS)}"
        for name, wanted in condition.items():
            if name not in _TESTS:
                yield f".{name}", f"unknown key ({did_you_mean(name, _TESTS)})"
            elif name == "not":
                yield from ((f".not{below}", message) for below, message in _condition_faults(wanted))
            elif name == "exists":
                if not isinstance(wanted, bool):
                    yield ".exists", "must be true or false"
            elif not is_number(wanted):
                yield f".{name}", "must be a number"
        low, high = condition.get("above"), condition.get("below")
        if is_number(low) and is_number(high) and low >= high:
            yield ".above", f"must be less than below: nothing is above {low} and below {high}"
