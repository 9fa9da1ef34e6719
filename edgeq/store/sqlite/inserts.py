"""Texts of INSERT statements for many rows, the same few again and again, so that SQLite can keep them prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import peewee as pw

from ..store import Row

_ROWS_PER_STATEMENT = (500, 100, 25, 5, 1)


class Inserts:
    """Statements for any table. `first_ids` (table -> SQL) says which id the first row of an insert gets; without, and
    when that is NULL, it is the next one, as for all others."""

    def __init__(self, first_ids: dict[type[pw.Model], str]) -> None:
        self._first_ids = first_ids
        self._texts: dict[tuple[type[pw.Model], tuple[str, ...], int, str], str] = {}

    def of(
        self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row], end: str
    ) -> Iterator[tuple[str, list[Any]]]:
        """Statements with their parameters that insert `rows` in their order, each with `end` behind it."""
        position = 0
        for size in _ROWS_PER_STATEMENT:
            while len(rows) - position >= size:
                chunk = rows[position : position + size]
                yield self.text(table, columns, size, end), [value for row in chunk for value in row]
                position += size

    def text(self, table: type[pw.Model], columns: Sequence[str], size: int, end: str) -> str:
        """A statement for `size` rows."""
        key = (table, tuple(columns), size, end)
        text = self._texts.get(key)
        if text is None:
            names, marks = ",".join(columns), ",".join("?" * len(columns))
            rows = [f"({marks})"] * size
            first_id = self._first_ids.get(table)
            if first_id:
                names, rows = f"id,{names}", [f"({first_id},{marks})", *[f"(NULL,{marks})"] * (size - 1)]
            # The names are those of our own models.
            text = f'INSERT INTO "{table._meta.table_name}" ({names}) VALUES {",".join(rows)} {end}'  # noqa: S608
            self._texts[key] = text
        return text
