"""Rows of every kind for every table, and all that a store holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee as pw
from hypothesis import strategies as st

from edgeq.store.copying.copy import make_side
from edgeq.store.copying.side import Side
from edgeq.store.copying.tables import TABLES
from edgeq.store.job_records import MOMENT_MAX
from edgeq.store.store import Row
from edgeq.store.tables import Table

ODD = ["", " ", "\t\n\r\\", "\\N", "\\.", "'\"", "%s ?", "\x01\x1b\x7f\x85", "ÄäÉ", "e\u0301", "Z", "a", "\u2028",
       "\ufffe", "\uffff", "😀", "\U0010ffff", '{"a": "\\u0000"}', "x" * 10_000]  # fmt: skip
_STATES = {
    "jobs": ("scheduled", "available", "executing", "retryable", "completed", "cancelled", "dead"),
    "breakers": ("closed", "open", "half_open"),
    "notifications": ("queued", "sent", "dead", "silenced", "grouped"),
    "contract_states": ("ok", "pending", "violated", "unknown", "suppressed"),
}
_MODELS: dict[str, Any] = {model._meta.table_name: model for model in Table.__subclasses__()}

texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def _integers(bits: int) -> st.SearchStrategy[int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.sampled_from([low, -1, 0, 1, high]) | st.integers(low, high)


def _column(table: str, field: pw.Field) -> st.SearchStrategy[Any]:
    if isinstance(field, pw.AutoField):
        return st.integers(1, 9) | st.integers(1, 2**62)  # so that there are more after it
    if field.column_name == "state" and table in _STATES:
        return st.sampled_from(_STATES[table])
    if isinstance(field, pw.BooleanField):
        made: st.SearchStrategy[Any] = st.booleans()
    elif isinstance(field, pw.BlobField):
        made = st.binary(max_size=100) | st.just(bytes(range(256)))
    elif field.column_name == "run_at":  # jobs are in order of a time and a priority together, which is a number, too
        made = st.integers(-MOMENT_MAX, MOMENT_MAX)
    elif isinstance(field, pw.IntegerField):
        made = _integers(64 if isinstance(field, pw.BigIntegerField) else 32)
    else:
        made = texts
    return st.none() | made if field.null else made


def _rows(table: str, least: int) -> st.SearchStrategy[list[Row]]:
    model = _MODELS[table]
    fields = model._meta.sorted_fields
    places = {name: place for place, name in enumerate(model._meta.sorted_field_names)}
    keys = [next(each.key for each in TABLES if each.name == table)]
    rows = st.tuples(*(_column(table, field) for field in fields))
    if table == "events":
        key = places["idempotency_key"]
        unique: Any = (lambda row: row[0], lambda row: row[0] if row[key] is None else row[key])
    else:
        unique = lambda row: tuple(row[place] for place in keys[0])  # noqa: E731
    return st.lists(rows, min_size=least, max_size=5, unique_by=unique)


def stores(least: int = 0) -> st.SearchStrategy[dict[str, list[Row]]]:
    """Rows for every table, at least so many."""
    return st.fixed_dictionaries({table.name: _rows(table.name, least) for table in TABLES})


@contextmanager
def opened(url: str, *, target: bool = True) -> Iterator[Side]:
    """A database as one side of a copy."""
    side = make_side(url)
    try:
        side.open(target=target)
        yield side
    finally:
        side.close()


def fill(url: str, rows: dict[str, list[Row]], numbers: int = 0, **meta: str) -> None:
    """Have a store there with these rows, in tables whose rows have had `numbers` more numbers."""
    with opened(url) as side, side.transaction():
        for table in TABLES:
            side.add(table, rows.get(table.name, []))
        side.set_numbers({name: number + numbers for name, number in side.numbers().items()})
        side.set_meta({**side.meta(), **meta})


def held(side: Side) -> dict[str, Any]:
    """All that a store holds, whatever database it is in."""
    meta = {key: value for key, value in side.meta().items() if key != "schema_version"}
    return {**{table.name: list(side.rows(table)) for table in TABLES}, "numbers": side.numbers(), "meta": meta}
