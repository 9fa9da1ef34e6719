"""Printing, for a person at a terminal and for a pipe. Nothing that a stranger had a part in reaches either raw."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..clock import rfc3339
from ..events import to_json
from ..telemetry.log import printable

_CELL_CHARACTERS_MAX = 300


def say(text: str = "") -> None:
    """Print text for a person or a pipe. What a terminal could take as a command is escaped."""
    print(printable(text))


def say_error(text: str) -> None:
    """Print a line to standard error."""
    print(f"edgeq: {printable(text)}", file=sys.stderr)


def say_json(value: Any) -> None:
    """Print one JSON object on a line of its own."""
    print(json_line(value))


def json_line(value: Any) -> str:
    """A JSON object as it is printed on a line. A character that the stream doesn't have is escaped."""
    text = to_json(value)
    text = text if text.isprintable() else "".join(sign if sign.isprintable() else _json_escape(sign) for sign in text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = "".join(sign if sign.isascii() else _json_escape(sign) for sign in text)
    return text


def cell(value: Any) -> str:
    """A value as it stands in a table: on one line, and cut if it is very long."""
    text = "" if value is None else str(value)
    if len(text) > _CELL_CHARACTERS_MAX:
        text = f"{text[:_CELL_CHARACTERS_MAX]}…"
    return printable(text, keep="\xa0")


def last_line(text: str | None) -> str:
    """The last line of an error: what it comes to, below a traceback."""
    return (text or "").strip().rpartition("\n")[2]


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table, or the sentence `empty` when it has no rows. A terminal's width is kept, a pipe has none."""
    table = [[cell(value) for value in row] for row in rows]
    if not table:
        say(empty)
    elif sys.stdout is not None and sys.stdout.isatty():
        _draw_table(columns, table)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *table, strict=True)]
        for row in (columns, *table):
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def say_fields(fields: Mapping[str, Any]) -> None:
    """Print what is known of one thing, a line for each that isn't empty: times as RFC 3339, structures as JSON."""
    width = max(map(len, fields)) + 2
    for name, value in fields.items():
        if value in (None, "", {}, []):
            continue
        if name.endswith("_at"):
            value = rfc3339(value)
        elif isinstance(value, dict | list):
            value = to_json(value)
        say(f"{name:<{width}}" + str(value).rstrip().replace("\n", "\n" + " " * width))


def _draw_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    import shutil

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    columns_max, lines_max = shutil.get_terminal_size()  # of a dumb one rich would take it to be 80
    Console(highlight=False, width=columns_max, height=lines_max).print(table)


def _json_escape(sign: str) -> str:
    """JSON's own escape for a character that can only stand in a text."""
    code = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[at : at + 4]}" for at in range(0, len(code), 4))
