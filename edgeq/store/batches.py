"""Many rows for one statement, handed over as one parameter: a JSON array, which the database takes apart.

One statement for a hundred rows rather than a hundred statements: Python lets go of its lock once for each, and while
the event loop is busy the writer's thread gets it back only after the switch interval. To a server, it is one way there
and back rather than a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import peewee as pw

from .dialect import ByDialect

BYTES_MAX = 2**20
VALUE = ByDialect(sqlite=pw.SQL("v.value"), postgresql=pw.SQL("(v.value #>> '{}')"))
"""An element of `each` that is a text."""


def each(p: pw.SQL) -> pw.Node:
    """For FROM: the parameter's elements, one row for each."""
    return ByDialect(
        sqlite=pw.SQL(f"json_each({p.sql}) AS v"),
        postgresql=pw.SQL(f"jsonb_array_elements({p.sql}::jsonb) AS v"),
    )


def item(number: int, kind: type[int] | type[str] = str) -> pw.Node:
    """Of an element that is itself an array: what is in it at `number`, from 0; `kind` says which type it has."""
    text = f"v.value ->> {number}"
    return ByDialect(
        sqlite=pw.SQL(f"json_extract(v.value, '$[{number}]')"),
        postgresql=pw.SQL(f"({text})::bigint" if kind is int else f"({text})"),
    )


def elements(p: pw.SQL, kind: type[int] | type[str] = str) -> pw.Node:
    """For IN: the parameter's elements."""
    return ByDialect(
        sqlite=pw.SQL(f"(SELECT value FROM json_each({p.sql}))"),  # noqa: S608 - a placeholder
        postgresql=pw.SQL(
            f"(SELECT value{'::bigint' if kind is int else ''} FROM jsonb_array_elements_text({p.sql}::jsonb))"  # noqa: S608
        ),
    )


def batches(rows: Sequence[object]) -> Iterator[str]:
    """Several parameters instead of one that is larger than BYTES_MAX, for rows with texts of any length."""
    text = msgspec.json.encode(rows)
    if len(text) <= BYTES_MAX or len(rows) == 1:
        yield text.decode()
    else:
        yield from batches(rows[: len(rows) // 2])
        yield from batches(rows[len(rows) // 2 :])


def batch(rows: Sequence[object]) -> str:
    """The parameter. Text in it must be storable: no null character, no lone surrogate."""
    return msgspec.json.encode(rows).decode()
