"""How much room the store takes, and handing back what is free in it."""

from __future__ import annotations

import msgspec
import peewee as pw

from .dialect import ByDialect
from .store import Statement, Store, Tx

# What a row takes beside its columns, with its place in indexes: a round figure.
_ROW_BYTES = 120
_SAMPLE_ROWS = 200
_TABLES = ("events", "jobs", "dead_letters", "notifications")

# PostgreSQL gives nothing back of a table from which rows were deleted, and doesn't say how much of it is free: what
# the rows take is reckoned from how many it believes there are, and from the size of the latest.
_LIVE = (
    "SELECT pg_stat_get_live_tuples('{table}'::regclass), (SELECT avg(pg_column_size(s.*))::bigint + {more} FROM "
    "(SELECT * FROM {table} ORDER BY id DESC LIMIT {sample}) AS s)"
)
_ESTIMATE = " UNION ALL ".join(_LIVE.format(table=name, more=_ROW_BYTES, sample=_SAMPLE_ROWS) for name in _TABLES)
MEASURE = Statement(
    lambda p: ByDialect(
        sqlite=pw.SQL(
            "SELECT (page_count - freelist_count) * page_size, freelist_count * page_size, auto_vacuum = 2 "
            "FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size(), pragma_auto_vacuum()"
        ),
        postgresql=pw.SQL(
            "SELECT coalesce(sum(n * size), 0)::bigint, 0, false, coalesce(sum(n), 0)::bigint "  # noqa: S608
            f"FROM ({_ESTIMATE}) AS t (n, size)"
        ),
    )
)


class Space(msgspec.Struct, frozen=True):
    """Bytes that rows and indexes take (`used`), and that are free between them, for rows to come. Free ones can be
    handed back to the disk if it `shrinks`. `exact`: it is measured, not reckoned; `row` is what a row takes then."""

    used: int
    free: int
    shrinks: bool
    exact: bool = True
    row: int = 0


async def measure(store: Store) -> Space:
    """How much room there is taken. Costs as much on a large store as on a small one."""
    found = (await store.read(MEASURE))[0]
    if len(found) == 3:
        return Space(found[0], found[1], bool(found[2]))
    used, free, _, rows = found
    return Space(used, free, shrinks=False, exact=False, row=max(1, used // max(1, rows)))


def hand_back(tx: Tx, pages: int) -> None:
    """Give up to so many free pages of a SQLite file back to the disk. It moves as many, so keep it small."""
    tx.rows(pw.SQL(f"PRAGMA incremental_vacuum({pages:d})"))
