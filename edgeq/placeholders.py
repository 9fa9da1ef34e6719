"""Texts with placeholders: `"{name}: {value}"`. What a placeholder may be, and what becomes of it, is for each of their
users to say; here is how such texts are read, wherever one stands.

`{{` and `}}` are braces; a brace that stands alone is a mistake. Between braces no brace can stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

MISSING: Any = object()

_PIECES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Placeholder(NamedTuple):
    """What stands between two braces, and at which character of the whole text that begins, counted from 0."""

    text: str
    position: int


class LoneBrace(ValueError):
    """A brace that belongs to no other. `position` is that of the brace."""

    def __init__(self, brace: str, position: int) -> None:
        super().__init__(f"has a lone {brace!r}; write it twice to mean itself")
        self.position = position


def split(text: str) -> list[str | Placeholder]:
    """The pieces of `text`, in order: plain text, with single braces, and placeholders. Raises LoneBrace."""
    pieces: list[str | Placeholder] = []
    position = 0
    for match in _PIECES.finditer(text):
        if match.start() > position:
            pieces.append(text[position : match.start()])
        position = match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(match[0][0])
        elif match[1] is None:
            raise LoneBrace(match[0], match.start())
        else:
            pieces.append(Placeholder(match[1], match.start(1)))
    if position < len(text):
        pieces.append(text[position:])
    return pieces


def gap(name: str) -> str:
    """What a notification shows where it has nothing: `[no data.room]`."""
    return f"[no {name}]"


def line_and_column(text: str, position: int) -> str:
    """`line 1, column 5`: where the character at `position` stands, as editors count."""
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def find(value: Any, steps: Sequence[str]) -> Any:
    """What lies at the dotted path `steps` in a JSON value, or MISSING; items of lists go by their number."""
    for step in steps:
        if type(value) is dict and step in value:
            value = value[step]
        elif type(value) is list and step.isdecimal() and len(step) < 10 and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value
