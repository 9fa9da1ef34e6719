"""What tests of the store go by is true on either kind of database."""

from __future__ import annotations

import asyncio

import pytest
from support.stores import Database, at, emptied

from edgeq.errors import StoreUnavailable
from edgeq.events import NewEvent
from edgeq.store import events

EVENT = NewEvent("a", occurred_at=0, recorded_at=0)


async def test_what_is_written_shows_and_what_is_read_does_not(database: Database) -> None:
    async with database.opened() as store:
        before = database.written()
        assert await events.head(store) == 0
        assert database.written() == before
        await store.write(lambda tx: events.append(tx, [EVENT]))
        assert database.written() != before
    assert at(database.where).look("SELECT count(*) FROM events WHERE type = ?", "a") == [(1,)]


async def test_nobody_commits_while_it_is_locked(database: Database) -> None:
    async with database.opened() as store:
        with database.locked(), pytest.raises(StoreUnavailable):
            await store.write(lambda tx: events.append(tx, [EVENT]), timeout_seconds=0.2)
        await store.write(lambda tx: None)
        assert database.sql("SELECT count(*) FROM events") == [(0,)]


async def test_another_one_is_empty_and_so_is_one_that_was_emptied(database: Database) -> None:
    other = database.fresh()
    async with database.opened() as store, other.opened() as elsewhere:
        await asyncio.gather(*(each.write(lambda tx: events.append(tx, [EVENT])) for each in (store, store)))
        assert await events.after(elsewhere, 0, 10) == []
        await store.write(emptied)
        assert await events.after(store, 0, 10) == []
