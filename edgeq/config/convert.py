"""From plain values (text, numbers, lists, mappings) to typed records, with every mistake noted instead of the first.

Types understood: `str int float bool`, classes with a `parse` classmethod (`Duration`, `Size`, `Backoff`), `Literal`,
`list[T]`, `dict[str, T]`, unions, `Any`, `msgspec.Struct` (with renamed fields) and `Section`. A scalar becomes what
its type makes of the text as it was written, quoted or not: `version: 3.1` is the text `3.1` where text is wanted.
A heading with nothing below it (`routes:`) stands for the default of its key; a scalar must have a value.

`Annotated[T, check]` calls `check(value)`, whose ValueError is a mistake ("must be positive"; the value is added).
A record may have a classmethod `faults(given)` that yields `(key, message)` for keys that don't go together; `given`
maps the keys that stand there to their values, None for a value that is wrong in itself. A ValueError from a record's
`__post_init__` is a mistake of the whole record.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from ..errors import Problem
from .checks import may_be_a_file
from .origin import HIDDEN, Origin, child, is_secret, nearest, safe, show
from .scalars import as_text, resolve
from .section import Section
from .suggest import did_you_mean
from .types import describe, shape, takes_text

FAILED: Any = object()

_LONG = 60  # characters of a wrong value that a message repeats
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Converter:
    """Converts values that stand below `prefix`; appends mistakes to `problems`.

    `read_file` returns the text in a file for a key given as `KEY_file`, or raises ValueError; without it there are no
    such keys.
    """

    prefix: str
    origin: Origin
    problems: list[Problem]
    read_file: Callable[[str], str] | None = None

    def problem(self, path: str, message: str, hint: str = "") -> Any:
        """Notes a mistake at `path` (below the prefix). Returns FAILED."""
        place = nearest(self.origin.places, path)
        self.problems.append(Problem(place, self._full(path), safe(message), hint))
        return FAILED

    def _full(self, path: str) -> str:
        return f"{self.prefix}.{path}" if self.prefix and path else self.prefix + path

    def convert(self, target: Any, value: Any, path: str) -> Any:
        """`value` as `target`, or FAILED after noting why not."""
        if value is FAILED:
            return FAILED
        kind = get_origin(target)
        if kind is Annotated:
            return self._checked(target, value, path)
        if kind is Union or kind is types.UnionType:
            return self._union(get_args(target), value, path)
        if target is Any:
            return value
        if kind is list:
            return self._list(get_args(target)[0], value, path)
        if kind is dict:
            name, inner = get_args(target)
            return self._dict(name, inner, value, path)
        if target is Section:
            return self._section(value, path)
        if isinstance(target, type) and issubclass(target, msgspec.Struct):
            return self.record(target, value, path)
        return self._scalar(target, value, path)

    def record(self, target: type[Any], value: Any, path: str, ignore: Collection[str] = ()) -> Any:
        """A record from a mapping; keys in `ignore` are passed over. FAILED when anything in it is wrong."""
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            return self._unfit(target, value, path)
        before = len(self.problems)
        fields = {entry.encode_name: entry for entry in msgspec.structs.fields(target)}
        given: dict[str, Any] = {}
        for key, item in value.items():
            if key in ignore:
                continue
            name, content = key, item
            if key not in fields and (base := self._file_key(key)) in fields:
                if not takes_text(fields[base].type):
                    message = f"only text may come from a file, and {base} isn't text"
                    given[base] = self.problem(child(path, key), message)
                    continue
                name, content = base, self._from_file(base, item, value, path)
            if name not in fields:
                choices = [*fields, *(f"{each}_file" for each in fields if key.endswith("_file"))]
                self.problem(child(path, key), "unknown key", did_you_mean(key, choices))
                continue
            if content is None and not fields[name].required and shape(fields[name].type) in (dict, list):
                continue  # a heading with nothing below it: the default
            given[name] = self.convert(fields[name].type, content, child(path, name))
        for name, entry in fields.items():
            if entry.required and name not in given:
                self.problem(child(path, name), "is missing")
        known = {
            name: None if item is FAILED else item for name, item in given.items() if value.get(name, "") is not None
        }
        for key, message in getattr(target, "faults", _no_faults)(known):
            self.problem(child(path, key) if key else path, message)
        if len(self.problems) > before or FAILED in given.values():
            return FAILED
        try:
            return target(**{fields[name].name: item for name, item in given.items()})
        except ValueError as error:  # from a __post_init__
            return self.problem(path, str(error))

    def what_is_right(self, target: type[Any], value: Any) -> Any:
        """A record from a mapping in which some is wrong: keys with a mistake in them have their defaults, but of a
        list only what is wrong is left out."""
        trial = Converter(self.prefix, self.origin, [], self.read_file)
        fields = [entry for entry in msgspec.structs.fields(target) if entry.encode_name in value]
        items = {entry.name: trial._right(entry.type, value[entry.encode_name], entry.encode_name) for entry in fields}
        return target(**{name: item for name, item in items.items() if item is not FAILED})

    def _right(self, target: Any, value: Any, path: str) -> Any:
        if get_origin(target) is not list or not isinstance(value, list):
            return self.convert(target, value, path)
        inner = get_args(target)[0]
        items = [self.convert(inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
        return [item for item in items if item is not FAILED]

    # containers

    def _list(self, inner: Any, value: Any, path: str) -> Any:
        if value is None:
            return []
        if not isinstance(value, list):
            return self._unfit(list, value, path)
        items = [self.convert(inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
        return FAILED if any(item is FAILED for item in items) else items

    def _dict(self, name: Any, inner: Any, value: Any, path: str) -> Any:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return self._unfit(dict, value, path)
        before = len(self.problems)
        items = {}
        may_be_files = may_be_a_file in get_args(inner)
        for key, item in value.items():
            base = self._file_key(key) if may_be_files else ""
            content = self._from_file(base, item, value, path) if base else item
            self.convert(name, base or key, child(path, key))
            items[base or key] = self.convert(inner, content, child(path, base or key))
        return FAILED if len(self.problems) > before or FAILED in items.values() else items

    def _section(self, value: Any, path: str) -> Any:
        """The mapping as it is (only its record knows what the keys mean), with what is known of it by paths below."""
        if value is not None and not isinstance(value, Mapping):
            return self._unfit(Section, value, path)
        data = value or {}
        below = Origin()
        for mine, full in _pairs(data, path):
            for source, copy in (
                (self.origin.places, below.places),
                (self.origin.written, below.written),
                (self.origin.shown, below.shown),
            ):
                if full in source:
                    copy[mine] = source[full]
        return Section(self._full(path), data, below.places, below.written, below.shown, self.read_file)

    def _file_key(self, key: str) -> str:
        """`password` for `password_file`, when that may be read; else nothing."""
        return key.removesuffix("_file") if key.endswith("_file") and self.read_file is not None else ""

    def _from_file(self, base: str, name: Any, siblings: Mapping[str, Any], path: str) -> Any:
        at = child(path, f"{base}_file")
        if base in siblings:
            return self.problem(at, f"{base} and {base}_file can't both be given")
        file_name = self.convert(str, name, at)
        if file_name is FAILED or self.read_file is None:
            return FAILED
        try:
            text = self.read_file(file_name)
        except ValueError as error:
            return self.problem(at, str(error))
        to = child(path, base)
        self.origin.places[to] = nearest(self.origin.places, at)
        self.origin.shown[to] = HIDDEN
        return text

    # scalars

    def _scalar(self, target: Any, value: Any, path: str) -> Any:
        if value is None:
            return self.problem(path, f"has no value: must be {describe(target)}")
        if isinstance(value, Mapping | list):
            return self._unfit(target, value, path)
        text = value if isinstance(value, str) else self.origin.written.get(path) or as_text(value)
        if target is str:
            return text
        if get_origin(target) is Literal:
            return self._literal(target, value, text, path)
        if target is bool:
            truth = _TRUTH.get(text.lower(), FAILED)
            return self._unfit(target, value, path) if truth is FAILED else truth
        meaning = resolve(text) if isinstance(value, str) else value
        if target is int or target is float:
            return self._number(target, meaning, value, path)
        number = isinstance(meaning, int | float) and not isinstance(meaning, bool)
        try:
            return target.parse(meaning if number else text)
        except ValueError as error:
            if self._open(path) and len(text) <= _LONG:
                return self.problem(path, str(error))
            return self._unfit(target, value, path)

    def _number(self, target: type[int] | type[float], meaning: Any, value: Any, path: str) -> Any:
        if isinstance(meaning, bool) or not isinstance(meaning, target if target is int else int | float):
            return self._unfit(target, value, path)
        try:
            number = target(meaning)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else self.problem(path, "must be a finite number")

    def _literal(self, target: Any, value: Any, text: str, path: str) -> Any:
        choices = {as_text(choice): choice for choice in get_args(target)}
        if text in choices:
            return choices[text]
        hint = did_you_mean(text, choices) if self._open(path) else ""
        return self._unfit(target, value, path, hint if hint.startswith("did") else "")

    def _union(self, members: tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and types.NoneType in members:
            return None
        members = tuple(member for member in members if member is not types.NoneType)
        form = dict if value is None else shape(type(value))  # a key with nothing below it is an empty mapping
        fitting = [member for member in members if shape(member) in (form, Any)]
        if len(members) == 1 or len(fitting) == 1:
            return self.convert((fitting or list(members))[0], value, path)
        for member in sorted(fitting, key=lambda member: member is not type(value)):
            trial = Converter(self.prefix, self.origin, [], self.read_file)
            result = trial.convert(member, value, path)
            if result is not FAILED:
                return result
        return self._unfit(Union[members], value, path)  # noqa: UP007 - the members are known only here

    def _checked(self, target: Any, value: Any, path: str) -> Any:
        inner, *checks = get_args(target)
        result = self.convert(inner, value, path)
        if result is FAILED:
            return FAILED
        for check in checks:
            try:
                check(result)
            except ValueError as error:
                what = "" if isinstance(value, Mapping | list) else f", not {self._quote(value, path)}"
                said = str(error) if self._open(path) or str(value) not in str(error) else "can't be used"
                return self.problem(path, f"{said}{what}")
        return result

    # words

    def _open(self, path: str) -> bool:
        return path not in self.origin.shown and not is_secret(path)

    def _quote(self, value: Any, path: str) -> str:
        if isinstance(value, Mapping):
            return "a mapping"
        if isinstance(value, list):
            return "a list"
        text = show(self.origin.written.get(path, value), path, self.origin.shown)
        if not isinstance(value, str) or (not self._open(path) and str(text).isprintable()):
            return as_text(text)
        return repr(text if len(str(text)) <= _LONG else f"{text[:_LONG]}…")

    def _unfit(self, target: Any, value: Any, path: str, hint: str = "") -> Any:
        if isinstance(value, Mapping) and list(value.values()) == [None] and self._open(path):
            hint = f'a value that begins with {{ needs quotes: "{{{next(iter(value))}}}"'
        return self.problem(path, f"must be {describe(target)}, not {self._quote(value, path)}", hint)


def _pairs(data: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each path in `data`, as seen from within and from the root."""
    stack: list[tuple[str, str, Any]] = [("", path, data)]
    while stack:
        mine, full, value = stack.pop()
        yield mine, full
        if isinstance(value, Mapping):
            stack.extend((child(mine, key), child(full, key), item) for key, item in value.items())
        elif isinstance(value, list):
            stack.extend((f"{mine}[{index}]", f"{full}[{index}]", item) for index, item in enumerate(value))


def _no_faults(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return iter(())
