"""What the interface asks of the tables is found by an index, on either kind of database."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from support.stores import Database

from edgeq.store import dead_letters, jobs, notifications
from edgeq.store.event_search import Wanted, query, search
from edgeq.store.postgres.transaction import DIALECT
from edgeq.store.store import Store, Tx, render

EVERYTHING = Wanted(type="a*", subject="b", text="c", since=1, until=2)

ASKED: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "events": lambda store: store.read(query(EVERYTHING, 900, 100, 50)),
    "notifications": lambda store: notifications.find(store, limit=50, before_id=9),
    "notifications of a channel": lambda store: notifications.find(store, limit=50, channel="box", before_id=9),
    "notifications in a state": lambda store: notifications.find(store, limit=50, state="dead", before_id=9),
    "dead letters": lambda store: dead_letters.find(store, limit=50, before_id=9, brief=True),
    "dead letters of a source": lambda store: dead_letters.find(store, limit=50, source="intake", reason="late"),
    "jobs": lambda store: jobs.find(store, limit=50, before_id=9, brief=True),
    "jobs in a state": lambda store: jobs.find(store, limit=50, state="dead", queue="default", brief=True),
}


@pytest.mark.parametrize("name", ASKED)
async def test_it_goes_by_an_index(database: Database, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[pw.Node] = []

    async def read(query: pw.Node, params: object = ()) -> list[Any]:
        asked.append(query)
        return []

    async with database.opened() as store:
        with monkeypatch.context() as patched:
            patched.setattr(store, "read", read)
            await ASKED[name](store)
        (found,) = asked
        if database.kind == "sqlite":
            text, values = render(pw.SqliteDatabase(None), found)
            lines = [row[3] for row in database.sql(f"EXPLAIN QUERY PLAN {text}", *values)]
            assert not [line for line in lines if re.match(r"SCAN (?!.*USING)", line)], lines
        else:
            lines = await store.write(lambda tx: _postgres_plan(tx, found))
            assert not [line for line in lines if "Seq Scan" in line], lines


def _postgres_plan(tx: Tx, asked: pw.Node) -> list[str]:
    """As on a table that is too large to be read whole."""
    text, values = render(DIALECT, asked)
    tx.run(pw.SQL("SET LOCAL enable_seqscan = off"))
    for value in values:
        text = text.replace("%s", f"'{value}'" if isinstance(value, str) else str(value), 1)
    return [row[0] for row in tx.rows(pw.SQL("EXPLAIN " + text.replace("%", "%%")))]


async def test_a_search_reads_so_many_rows_and_no_more(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgeq.store.event_search.STRETCH_IDS", 100)
    monkeypatch.setattr("edgeq.store.event_search.IDS_MAX", 1000)
    stretches = []

    def noted(wanted: Wanted, top: int, floor: int, count: int) -> Any:
        stretches.append((top, floor))
        return query(wanted, top, floor, count)

    monkeypatch.setattr("edgeq.store.event_search.query", noted)
    fill = "INSERT INTO events (type, subject, data, tags, description, occurred_at, recorded_at) VALUES "
    async with database.opened() as store:
        database.sql(fill + ",".join(["('a', '', '{}', '[]', '', 0, 0)"] * 3000))
        found = await search(store, Wanted(type="b"), limit=50, before_id=2**62)
    assert found == ([], 2001)
    assert {top - floor - 1 for top, floor in stretches} == {100}
    assert len(stretches) == 10
