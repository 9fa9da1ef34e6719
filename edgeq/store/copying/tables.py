"""What is copied: every table that holds something of the store's own, with all of its columns.

What isn't: `schema_migration`, as each database has migrations of its own; SQLite's `removed_jobs`, which stands for
the number of the last job (see Side.numbers); PostgreSQL's `writers`, with which it tells what became of a commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import peewee as pw

from ..store import Row
from ..tables import Meta, Table

Key = tuple[Any, ...]

NOT_COPIED = {"sqlite": ("schema_migration", "removed_jobs"), "postgresql": ("schema_migration", "writers")}


@dataclass(frozen=True, slots=True)
class Copied:
    """A table; `key` and `booleans` are places in `columns`. `numbered`: its rows have numbers that are used once."""

    name: str
    columns: tuple[str, ...]
    key: tuple[int, ...]
    booleans: tuple[int, ...]
    numbered: bool

    def key_of(self, row: Row) -> Key:
        """The key of a row, by which rows are in order."""
        return tuple(row[place] for place in self.key)

    def what(self, row: Row) -> str:
        """Which row it is, for people."""
        return f"{self.name} {' '.join(str(part) for part in self.key_of(row))}"

    # SQL that all databases understand, in which `mark` stands for a value

    def count(self) -> str:
        """How many rows there are."""
        return f"SELECT count(*) FROM {self.name}"  # noqa: S608

    def rows(self, mark: str, *, beyond: bool) -> str:
        """All rows in the order of the key, or those `beyond` the one of which the key is given."""
        keys = _names([self.columns[place] for place in self.key])
        where = f"WHERE ({keys}) > ({', '.join(mark for _ in self.key)}) " if beyond else ""
        return f"SELECT {_names(self.columns)} FROM {self.name} {where}ORDER BY {keys}"  # noqa: S608

    def last_key(self) -> str:
        """The greatest key."""
        keys = [self.columns[place] for place in self.key]
        order = ", ".join(f'"{key}" DESC' for key in keys)
        return f"SELECT {_names(keys)} FROM {self.name} ORDER BY {order} LIMIT 1"  # noqa: S608

    def greatest(self) -> str:
        """The greatest number, 0 when there are no rows."""
        return f"SELECT coalesce(max(id), 0) FROM {self.name}"  # noqa: S608

    def into(self) -> str:
        """Where rows go: the table and its columns."""
        return f"{self.name} ({_names(self.columns)})"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)  # some are words of SQL


def _copied(model: type[pw.Model]) -> Copied:
    meta = model._meta
    fields = meta.sorted_fields
    names = [field.name for field in fields]
    primary: Any = meta.primary_key
    key = primary.field_names if isinstance(primary, pw.CompositeKey) else (primary.name,)
    return Copied(
        meta.table_name,
        tuple(field.column_name for field in fields),
        tuple(names.index(name) for name in key),
        tuple(place for place, field in enumerate(fields) if isinstance(field, pw.BooleanField)),
        isinstance(primary, pw.AutoField),
    )


TABLES = tuple(_copied(model) for model in Table.__subclasses__() if model is not Meta)
"""All but `meta`, which is copied last, as it says that the copy is complete."""
