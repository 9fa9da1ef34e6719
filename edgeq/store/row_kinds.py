"""What the values of a row must be, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import peewee as pw

from .store import Row
from .tables import Table

_JSON = {
    "events": ("data", "tags"),
    "jobs": ("args", "progress", "result", "options"),
    "notifications": ("detail", "failover"),
    "threads": ("detail", "channels"),
    "silences": ("match",),
    "contract_states": ("detail",),
    "dead_letters": ("detail",),
}
_MODELS: dict[str, Any] = {model._meta.table_name: model for model in Table.__subclasses__()}


def checker(table: str, columns: Sequence[str]) -> Callable[[Row], bool]:
    """Says whether a row of these columns can be one of that table: numbers are numbers, texts are texts, JSON is."""
    fields: Mapping[str, pw.Field] = _MODELS[table]._meta.columns
    kinds = [_kinds(fields[name]) for name in columns]
    json = [columns.index(name) for name in _JSON.get(table, ()) if name in columns]

    def fits(row: Row) -> bool:
        for value, kind in zip(row, kinds, strict=True):
            if type(value) not in kind:
                return False
        try:
            for place in json:
                if row[place] is not None:
                    msgspec.json.decode(row[place])
        except (msgspec.DecodeError, RecursionError):
            return False
        return True

    return fits


def _kinds(field: pw.Field) -> tuple[type, ...]:
    kinds: tuple[type, ...] = (str,)
    if isinstance(field, pw.BooleanField):
        kinds = (int, bool)
    elif isinstance(field, pw.IntegerField):
        kinds = (int,)
    elif isinstance(field, pw.BlobField):
        kinds = (bytes,)
    return (*kinds, type(None)) if field.null else kinds
