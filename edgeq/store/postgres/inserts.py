"""Texts of INSERT statements, the same few again and again, so that each is prepared once.

Many rows go as one parameter, a JSON array (see `batches`). Of 500 events, a row took 5 us that way, 9 us by
`json_to_recordset`, 47 us by `unnest` of arrays, 65 us as parameters of their own; by COPY, which gives no ids and
knows no ON CONFLICT, 3 to 6 us.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import peewee as pw
import psycopg

from ..batches import batches
from ..store import Row

_STORED = {str, int, bool, bytes, type(None)}
_TYPES = {"INT": "integer", "BIGINT": "bigint", "BOOL": "boolean"}


@functools.cache
def for_one(table: type[pw.Model], columns: tuple[str, ...], end: str) -> bytes:
    """For a row, whose values are the parameters."""
    return _insert(table, columns, f"VALUES ({','.join(['%s'] * len(columns))})", end)


@functools.cache
def for_many(table: type[pw.Model], columns: tuple[str, ...], end: str) -> bytes:
    """For rows in their order, which together are the one parameter. Bytes are in base 64 there."""
    values = ",".join(_value(table._meta.fields[name].field_type, number) for number, name in enumerate(columns))
    return _insert(table, columns, f"SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS v", end)  # noqa: S608


def parameters(rows: Sequence[Row]) -> Iterator[str]:
    """What to hand to statements for many rows. Raises psycopg.Error for a value that is nothing for a column, which
    JSON might have room for."""
    strange = {type(value) for row in rows for value in row} - _STORED
    if strange:
        raise psycopg.ProgrammingError(f"cannot store {', '.join(sorted(kind.__name__ for kind in strange))}")
    return batches(rows)


def typed(table: type[pw.Model], columns: tuple[str, ...]) -> str:
    """A parameter for each column, where nothing else says which type it has."""
    return ",".join(f"%s::{_TYPES.get(table._meta.fields[name].field_type, 'text')}" for name in columns)


def _value(field_type: str, number: int) -> str:
    text = f"(v.value ->> {number})"
    return f"decode({text}, 'base64')" if field_type == "BLOB" else f"{text}::{_TYPES.get(field_type, 'text')}"


def _insert(table: type[pw.Model], columns: tuple[str, ...], rows: str, end: str) -> bytes:
    """All names are those of our own models."""
    return f'INSERT INTO "{table._meta.table_name}" ({",".join(columns)}) {rows} {end}'.encode()
