"""Many rows for one statement, handed over as one parameter: a JSON array, which the database takes apart.

One statement for a hundred rows rather than a hundred statements: Python lets go of its lock once for each, and while
the event loop is busy the writer's thread gets it back only after the switch interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import peewee as pw

BYTES_MAX = 2**20
VALUE = pw.SQL("v.value")


def each(p: pw.SQL) -> pw.SQL:
    """For FROM: the parameter's elements, one row for each."""
    return pw.SQL(f"json_each({p.sql}) AS v")


def item(number: int) -> pw.SQL:
    """Of an element that is itself an array: what is in it at `number`, from 0."""
    return pw.SQL(f"json_extract(v.value, '$[{number}]')")


def elements(p: pw.SQL) -> pw.SQL:
    """For IN: the parameter's elements."""
    return pw.SQL(f"(SELECT value FROM json_each({p.sql}))")  # noqa: S608 - a placeholder


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
