"""The copy of a store: every row as it is, compared afterwards, and complete in one last commit.

What can be relied on:

- Until that commit the target says in `meta` that it is a copy, of which store, and that it isn't complete: nothing
  else opens it. A copy that was interrupted, however that came about, goes on after the last row that is there.
- Rows keep their numbers, and no number that was ever used is used again. The store's own id is copied, too: cursors,
  and what was forwarded, go by it.
- Every row is read again on both sides, and compared.
- Neither side changes meanwhile, except by the copy itself: see Side.open.
- A few thousand rows, or a few MiB, are in memory at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Literal, NamedTuple

import msgspec

from ...config.checks import is_postgres, sqlite_path
from ...errors import StoreError
from ...failpoints import failpoint
from .. import opening
from ..meta import COPY_OF
from ..store import Row
from .side import Side
from .sqlite import SqliteSide
from .tables import TABLES, Copied

ROWS_MAX = 2000
BYTES_MAX = 4 * 2**20
_OF_DATABASE = ("schema_version", COPY_OF)
_AGAIN = "empty the target, and copy again"


class Step(NamedTuple):
    """How far a copy is with a table: `done` of `total` rows. `checksum` is that of a table that is the same on both
    sides."""

    table: str
    phase: Literal["copied", "compared"]
    done: int
    total: int
    checksum: str = ""


def make_side(url: str) -> Side:
    """The database that a `store.url` names, not open yet. Raises MissingExtra, StoreError."""
    if not is_postgres(url):
        return SqliteSide(sqlite_path(url))
    opening.place(url)  # says what to install
    from .postgres import PostgresSide

    return PostgresSide(url)


def copy(source: Side, target: Side) -> Iterator[Step]:
    """Copy a store step by step. Both sides are open. Raises StoreError; another call goes on from there."""
    _begin(source, target)
    for table in TABLES:
        yield from _fill(table, source, target)
    for table in TABLES:
        yield from _compare(table, source, target)
    failpoint("copy.compared")
    _complete(source, target)


def _begin(source: Side, target: Side) -> None:
    """See whether the target may be copied to, and mark it."""
    known, there = source.meta(), target.meta()
    store_id = known["store_id"]
    if COPY_OF in there:
        if there[COPY_OF] != store_id:
            raise StoreError(f"{target.place} is an incomplete copy of another store", hint=_AGAIN)
        return
    if there["store_id"] == store_id:
        raise StoreError(f"{target.place} is a complete copy of {source.place} already, or its origin")
    filled = [table.name for table in TABLES if target.last_key(table) is not None]
    if filled or any(target.numbers().values()):
        held = f" has rows in {', '.join(filled)}" if filled else " was used before"
        raise StoreError(f"{target.place}{held}", hint="copy to an empty database")
    with target.transaction():
        target.set_meta({**there, COPY_OF: store_id})


def _fill(table: Copied, source: Side, target: Side) -> Iterator[Step]:
    total, done = source.count(table), target.count(table)
    yield Step(table.name, "copied", done, total)
    for chunk in _chunks(source.rows(table, target.last_key(table))):
        with target.transaction():
            target.add(table, chunk)
        failpoint("copy.committed")
        done += len(chunk)
        yield Step(table.name, "copied", done, total)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(chunk) >= ROWS_MAX or size >= BYTES_MAX:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _compare(table: Copied, source: Side, target: Side) -> Iterator[Step]:
    """Read both sides in the order of the keys. The checksum is that of all rows, the same for every database."""
    total, done, checksum = source.count(table), 0, hashlib.sha256()
    yield Step(table.name, "compared", done, total)
    for ours, theirs in zip_longest(source.rows(table), target.rows(table)):
        if ours != theirs:
            raise StoreError(
                f"{table.what(ours or theirs)} is not the same in {target.place} as in {source.place}",
                hint=f"one of them was changed since the copy began, or is damaged: {_AGAIN}",
            )
        checksum.update(msgspec.msgpack.encode(ours))
        done += 1
        if done % ROWS_MAX == 0:
            yield Step(table.name, "compared", done, total)
    yield Step(table.name, "compared", done, total, checksum.hexdigest())


def _complete(source: Side, target: Side) -> None:
    """The last commit: from it on, the target is the store."""
    known, there = source.meta(), target.meta()
    values = {key: value for key, value in known.items() if key not in _OF_DATABASE}
    values["schema_version"] = there["schema_version"]
    numbers = source.numbers()
    with target.transaction():
        target.set_meta(values)
        target.set_numbers(numbers)
        if target.meta() != values or target.numbers() != numbers:
            raise StoreError(f"{target.place} doesn't keep what is written to it")
