"""Whether a store makes sense: what its rows say, beyond what its database sees to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import peewee as pw

from ..errors import StoreError
from . import cursors, events
from .copying.tables import TABLES, Copied
from .row_kinds import checker
from .store import Statement, Store, literal
from .tables import Jobs

ROWS_AT_ONCE = 250
_SHOWN = 20
_FINISHED = (literal("completed"), literal("cancelled"), literal("dead"))
_JOBS = (
    (
        "is executing, but under no lease",
        (Jobs.state == literal("executing")) & (Jobs.lease_token.is_null() | Jobs.lease_expires_at.is_null()),
    ),
    ("has ended, but it isn't known when", Jobs.state.in_(_FINISHED) & Jobs.finished_at.is_null()),
    ("hasn't ended, but it is known when it has", Jobs.state.not_in(_FINISHED) & Jobs.finished_at.is_null(False)),
)


async def senseless(store: Store) -> AsyncIterator[str]:
    """What can't be so, each in a sentence: cursors and jobs. Raises StoreError when the store can't be read."""
    given = await events.greatest_given(store)
    for cursor in await cursors.every(store):
        if cursor.last_consumed_id > given:
            yield (
                f"processor {cursor.processor} stands at event {cursor.last_consumed_id}, and the newest that ever was "
                f"is {given}: `edgeq processors seek {cursor.processor} --to …` says where it goes on"
            )
    for what, wrong in _JOBS:
        for (job_id,) in await store.read(Jobs.select(Jobs.id).where(wrong).order_by(Jobs.id).limit(_SHOWN)):
            yield f"job {job_id} {what}"


async def rows(store: Store, watch: Callable[[str, int, int], None]) -> AsyncIterator[str]:
    """Read every row; those that can't be read, or aren't such rows, each in a sentence, up to some of each table."""
    for table in TABLES:
        fits, told, done = checker(table.name, table.columns), 0, 0
        try:
            total = (await store.read(Statement(lambda p, table=table: pw.SQL(table.count()))))[0][0]  # type: ignore[misc]
            watch(table.name, 0, total)
            last: Any = None
            while found := await store.read(_page(table, last is not None), last or ()):
                for row in found:
                    if not fits(row) and told < _SHOWN:
                        told += 1
                        yield f"{table.what(row)} is no such row: a value is of another kind, or not JSON"
                done += len(found)
                watch(table.name, done, max(done, total))
                last = table.key_of(found[-1])
        except StoreError as error:
            yield f"{table.name}, after {done} rows: {error}"


def _page(table: Copied, beyond: bool) -> Statement:
    return Statement(lambda p: pw.SQL(f"{table.rows(p.sql, beyond=beyond)} LIMIT {ROWS_AT_ONCE}"))
