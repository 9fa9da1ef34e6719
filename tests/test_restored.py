"""A store that was put back to an earlier state, as from a backup, while a cursor was not: the processor halts, and
says so, rather than pass over the events to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.commands import Edgeq, commands, make_commands_store
from support.processing import Bench, Recorder, nothing
from support.stores import Database

from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.store import cursors, events
from edgeq.store.store import Tx
from edgeq.testing import cursor_at, until


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database) as bench:
        yield bench


def put_back(database: Database, last_id: int) -> None:
    database.sql("DELETE FROM events WHERE id > ?", last_id)
    if database.kind == "sqlite":
        database.sql("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", last_id)
    else:
        database.sql("SELECT setval('events_id_seq', ?)", last_id)


async def test_it_is_noticed_at_the_start_and_stays_noticed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    runner = await bench.run("p", Recorder(nothing))
    await bench.add(*["in.a"] * 5)
    await bench.settled(runner)
    await bench.close()
    put_back(bench.database, 3)
    await bench.reopen()
    processor = Recorder(nothing)
    runner = await bench.run("p", processor)
    assert runner.state == "halted"
    assert "stands at event 5, and the newest that ever was is 3" in caplog.text
    cursor = await cursors.one(bench.store, "p")
    assert cursor is not None
    assert cursor.halted
    assert "`edgeq processors seek p --to …`" in (cursor.error or "")
    await bench.add(*["in.a"] * 4)
    await bench.reopen()
    runner = await bench.run("p", processor)
    assert runner.state == "halted", "events 4 and 5 would be passed over"
    assert await bench.store.write(lambda tx: cursors.seek(tx, "p", 3, 0)) == 3
    await until(lambda: processor.seen == [4, 5, 6, 7], "what came after the backup")


async def test_it_is_noticed_while_running(bench: Bench) -> None:
    processor = Recorder(nothing)
    runner = await bench.run("p", processor)
    await bench.add(*["in.a"] * 5)
    await bench.settled(runner)
    await cursor_at(bench.store, "p", 5)
    put_back(bench.database, 2)
    await bench.add("in.a")
    await until(lambda: runner.state == "halted", "the alarm")
    assert processor.seen == [1, 2, 3, 4, 5]


async def test_resumed_where_it_is_it_halts_again_until_events_have_caught_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    runner = await bench.run("p", Recorder(nothing))
    await bench.add(*["in.a"] * 5)
    await bench.settled(runner)
    await cursor_at(bench.store, "p", 5)
    put_back(bench.database, 2)
    await bench.add("in.a")
    await until(lambda: runner.state == "halted", "the alarm")
    await bench.store.write(lambda tx: cursors.pause(tx, "p", False))
    await until(lambda: caplog.text.count("halted: the cursor stands at event 5") == 2, "the alarm again")
    assert runner.state == "halted"
    await bench.add(*["in.a"] * 3)
    await bench.store.write(lambda tx: cursors.pause(tx, "p", False))
    await until(lambda: runner.state == "running", "somebody who knows what they do")


async def test_without_events_that_were_deleted_nothing_is_wrong(bench: Bench) -> None:
    processor = Recorder(nothing)
    runner = await bench.run("p", processor)
    await bench.add(*["in.a"] * 5)
    await bench.settled(runner)
    bench.database.sql("DELETE FROM events")
    await bench.reopen()
    runner = await bench.run("p", processor)
    assert runner.state == "running"
    assert await bench.add("in.a") == [6]
    await until(lambda: processor.seen[-1] == 6, "the next event")


@pytest.fixture
def edgeq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Edgeq]:
    text = "gateway: g\nprocessors: {p: {kind: 'app:P'}}\n"
    yield from commands(text, tmp_path, monkeypatch, capsys)


async def halted() -> None:
    """A store whose processor `p` stands ahead of its events."""
    store = make_commands_store()
    await store.open()

    def unit(tx: Tx) -> None:
        events.append(tx, [NewEvent("in.a", subject="", occurred_at=1, recorded_at=1)])
        cursors.move(tx, cursors.take(tx, "p", "beginning", 1), 9, Clock().now())
        cursors.take(tx, "p", "beginning", 1)

    await store.write(unit)
    await store.close()


def test_operators_see_it_and_say_where_to_go_on(edgeq: Edgeq) -> None:
    asyncio.run(halted())
    assert "halted" in edgeq("processors", "list").out
    assert "as after a restored backup" in edgeq("processors", "list").out
    assert "p: halted, at event 9" in edgeq("status").out
    assert edgeq("processors", "seek", "p", "--to", "latest").out == (
        "p stands at 1, no longer ahead of the events, and goes on\n"
    )
    assert "halted" not in edgeq("processors", "list").out
