"""Templates of texts in notifications: `"{subject} is at {observed|round:1} °C since {since|time:'%H:%M'}"`.

`{name}` is replaced by what an event has of that name (see NAMES), `{data.a.b}` by a field of its data, and `{{` and
`}}` are braces. Behind the name may stand functions (see `functions`), each with its arguments: numbers, or texts in
single or double quotes.

- A mistake is found when a template is read: TemplateError says in which line and column of it.
- A template that was read can be filled in with whatever an event holds. What the event lacks is a visible gap, such as
  `[no data.room]`, and so is what a function can't use: `[no number in data.room]`. Gaps are counted.
- Nothing of an event is ever read as a template, a function, an attribute or a format.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..config.suggest import did_you_mean
from ..placeholders import LoneBrace, Placeholder, gap, line_and_column, split
from .functions import FUNCTIONS, VALUE_CHARACTERS_MAX, Function, Now, Unfit, text_of

TEMPLATE_CHARACTERS_MAX = 8 * 1024
TEXT_CHARACTERS_MAX = 4 * VALUE_CHARACTERS_MAX

NAMES = (
    "type", "subject", "severity", "message", "description", "tags", "topic", "occurred_at", "gateway",
    "contract", "episode", "observed", "since", "duration", "reason", "number", "data",
)  # fmt: skip

_CALL = re.compile(r"\s*(\w+)\s*(:)?")
_ARGUMENT = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|(-?\d{1,9})(?![\w.]))\s*(,)?""")

Path = tuple[str, ...]
Get = Callable[[Path], Any]
"""What there is at a path; None when nothing is."""


class TemplateError(ValueError):
    """A template is wrong. `message` says where and what, `hint` what may be meant."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


class Expression(NamedTuple):
    """A placeholder that was read: where its value is, and what is made of it."""

    path: Path
    calls: tuple[tuple[Function, tuple[Any, ...]], ...] = ()

    def text(self, get: Get, now: Now, gaps: list[str]) -> str:
        """The text in its place; what is missing is noted in `gaps`."""
        value, lacking = get(self.path), ".".join(self.path)
        for function, arguments in self.calls:
            if value is None and not function.fills:
                continue
            try:
                value = function.apply(value, now, *arguments)
            except Unfit as unfit:
                value, lacking = None, f"{unfit} in {lacking}"
        if value is None:
            gaps.append(lacking)
            return gap(lacking)
        return text_of(value, now.place)


class Template:
    """A text with placeholders, read. `known` turns a name into the path of its value, or raises TemplateError that
    says what is wrong with it. Raises TemplateError."""

    def __init__(self, text: str, known: Callable[[str], Path] | None = None) -> None:
        if len(text) > TEMPLATE_CHARACTERS_MAX:
            raise TemplateError(f"it has {len(text)} characters; at most {TEMPLATE_CHARACTERS_MAX} can be read")
        try:
            pieces = split(text)
        except LoneBrace as error:
            raise _wrong(text, error.position, str(error)) from None
        self.pieces = tuple(
            piece if isinstance(piece, str) else _Reader(text, piece).expression(known or event_name)
            for piece in pieces
        )

    def fill(self, get: Get, now: Now) -> tuple[str, list[str]]:
        """The text, of some TEXT_CHARACTERS_MAX characters at most, and the gaps in it."""
        gaps: list[str] = []
        texts: list[str] = []
        room = TEXT_CHARACTERS_MAX
        for piece in self.pieces:
            texts.append(piece if isinstance(piece, str) else piece.text(get, now, gaps))
            room -= len(texts[-1])
            if room < 0:
                break
        return "".join(texts), gaps


def event_name(name: str) -> Path:
    """The path of what a template calls `name` of an event. Raises TemplateError."""
    path = tuple(name.split("."))
    if name and path[0] in NAMES and (len(path) == 1 or path[0] == "data") and all(path):
        return path
    what = f"there is no {name!r}; fields of the event's data are written data.name"
    raise TemplateError(what, did_you_mean(name, NAMES))


class _Reader:
    """Reads what stands in one placeholder."""

    def __init__(self, template: str, placeholder: Placeholder) -> None:
        self._template = template
        self._text = placeholder.text
        self._begin = placeholder.position

    def expression(self, known: Callable[[str], Path]) -> Expression:
        name, bar, _ = self._text.partition("|")
        position = len(name) - len(name.lstrip())
        try:
            path = known(name.strip())
        except TemplateError as error:
            raise self._wrong(position, error.message, error.hint) from None
        position = len(name) + 1
        calls = []
        while bar:
            found = _CALL.match(self._text, position)
            if found is None:
                raise self._wrong(position, "a function is missing behind '|'", did_you_mean("", FUNCTIONS))
            function, arguments, end = self._call(found)
            calls.append((function, arguments))
            bar, position = self._text[end : end + 1], end + 1
            if bar not in ("", "|"):
                raise self._wrong(end, f"unexpected {bar!r}: functions are parted by '|', their arguments by ','")
        return Expression(path, tuple(calls))

    def _call(self, found: re.Match[str]) -> tuple[Function, tuple[Any, ...], int]:
        name, at = found[1], found.start(1)
        function = FUNCTIONS.get(name)
        if function is None:
            raise self._wrong(at, f"there is no function {name!r}", did_you_mean(name, FUNCTIONS))
        arguments: list[Any] = []
        end = found.end()
        more = found[2]
        while more:
            argument = _ARGUMENT.match(self._text, end)
            if argument is None:
                raise self._wrong(end, f"{name} wants a number, or a text in quotes", "such as 1 or '?'")
            text = argument[1] if argument[1] is not None else argument[2]
            value = int(argument[3]) if text is None else text
            if len(arguments) < len(function.checks):
                try:
                    function.checks[len(arguments)](value)
                except ValueError as error:
                    raise self._wrong(end, f"{name} {error}") from None
            arguments.append(value)
            more, end = argument[4], argument.end()
        most = len(function.checks)
        if not most - function.optional <= len(arguments) <= most:
            wanted = f"at most {most}" if function.optional else str(most or "no")
            raise self._wrong(at, f"{name} takes {wanted} {'argument' if most == 1 else 'arguments'}")
        return function, tuple(arguments), end

    def _wrong(self, position: int, what: str, hint: str = "") -> TemplateError:
        return _wrong(self._template, self._begin + position, what, hint)


def _wrong(template: str, position: int, what: str, hint: str = "") -> TemplateError:
    return TemplateError(f"{line_and_column(template, position)}: {what}", hint)
