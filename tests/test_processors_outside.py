"""Seek, pause and resume of a running processor by another process, which is here a second store on the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.processing import Bench, Recorder, emit_out, nothing
from support.stores import Database

from edgeq.events import Event
from edgeq.processors import progress
from edgeq.processors.processor import ProcessorContext
from edgeq.store import cursors
from edgeq.store.store import Store
from edgeq.testing import cursor_at, events_stored, until


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database) as bench:
        yield bench


@pytest.fixture
async def other(bench: Bench) -> AsyncIterator[Store]:
    """What a command uses beside the running appliance."""
    async with bench.database.opened(beside=True) as store:
        yield store


async def seek(store: Store, to: int | str) -> int | None:
    return await store.write(lambda tx: cursors.seek(tx, "p", to, 0))


async def test_seek_back_processes_again_and_forward_passes_over(bench: Bench, other: Store) -> None:
    processor = Recorder(nothing)
    runner = await bench.run("p", processor)
    await bench.add(*["in.a"] * 5)
    await bench.settled(runner)
    assert await seek(other, 3) == 3
    await until(lambda: processor.seen == [1, 2, 3, 4, 5, 4, 5], "two events again")
    assert processor.opened_at == [0, 3]
    assert await seek(other, "start") == 0
    await until(lambda: processor.seen[7:] == [1, 2, 3, 4, 5], "all events again")
    assert await seek(other, 10**9) == 5, "beyond the head it would skip events that are yet to come"
    assert await seek(other, -3) == 0
    await until(lambda: processor.seen[12:] == [1, 2, 3, 4, 5], "all events once more")
    assert runner.crashes == 0


async def test_seek_drops_what_was_decided_from_the_old_place(bench: Bench, other: Store) -> None:
    gate = asyncio.Event()

    async def slow(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if event.id == 2 and not gate.is_set():
            await gate.wait()

    processor = Recorder(slow)
    runner = bench.runner("p", processor)
    await bench.add("in.a", "in.a", "in.a")
    await runner.start()
    await until(lambda: processor.seen == [1, 2], "the slow event")
    await events_stored(bench.store, 1, "out")
    await seek(other, 2)
    gate.set()
    await until(lambda: processor.opened_at == [0, 2], "the new place")
    await cursor_at(bench.store, "p", 3)
    outputs = await events_stored(bench.store, 2, "out")
    assert [event.data["of"] for event in outputs] == [1, 3]


async def test_seek_voids_a_lazy_move_that_is_under_way(
    bench: Bench, other: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 600.0)
    processor = Recorder(nothing)
    runner = await bench.run("p", processor)
    await bench.add(*["in.a"] * 5)
    await bench.settled(runner)
    runner._progress._flush()
    bench.store.signal.fire = lambda topics: None  # type: ignore[method-assign]
    await seek(other, 2)
    await bench.store.write(lambda tx: None)
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(2,)]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_pause_and_resume(bench: Bench, other: Store) -> None:
    processor = Recorder()
    runner = await bench.run("p", processor)
    first = await bench.add("in.a")
    await cursor_at(bench.store, "p", first[0])
    assert await other.write(lambda tx: cursors.pause(tx, "p", True))
    await until(lambda: runner.state == "paused", "the pause")
    more = await bench.add(*["in.a"] * 3)
    await bench.store.write(lambda tx: None)
    assert processor.seen == first
    assert await other.write(lambda tx: cursors.pause(tx, "p", False))
    await until(lambda: processor.seen == first + more, "what came while it was paused")
    assert runner.state == "running"
    assert processor.opened_at == [0]


async def test_pause_takes_effect_between_two_events_of_a_batch(bench: Bench) -> None:
    """In this process: a page of the status server, say."""
    gate = asyncio.Event()

    async def slow(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        await gate.wait()

    processor = Recorder(slow)
    runner = bench.runner("p", processor)
    await bench.add("in.a", "in.a", "in.a")
    await runner.start()
    await until(lambda: processor.seen == [1], "the first event")
    await bench.store.write(lambda tx: cursors.pause(tx, "p", True))
    gate.set()
    await until(lambda: runner.state == "paused", "the pause")
    assert processor.seen == [1]
    assert (await cursor_at(bench.store, "p", 1)).last_consumed_id == 1


async def test_a_pause_outlives_a_restart(bench: Bench) -> None:
    await bench.run("p", Recorder())
    await bench.store.write(lambda tx: cursors.pause(tx, "p", True))
    await bench.reopen()
    processor = Recorder()
    runner = await bench.run("p", processor)
    await bench.add("in.a")
    await bench.store.write(lambda tx: None)
    assert (runner.state, processor.seen) == ("paused", [])


async def test_seek_of_a_paused_processor_waits_for_the_resume(bench: Bench, other: Store) -> None:
    processor = Recorder(nothing)
    runner = await bench.run("p", processor)
    await bench.add(*["in.a"] * 3)
    await bench.settled(runner)
    await other.write(lambda tx: cursors.pause(tx, "p", True))
    await until(lambda: runner.state == "paused", "the pause")
    await seek(other, 1)
    await until(lambda: runner.position == 1, "the new place")
    assert (runner.state, processor.seen) == ("paused", [1, 2, 3])
    await other.write(lambda tx: cursors.pause(tx, "p", False))
    await until(lambda: processor.seen == [1, 2, 3, 2, 3], "the events from there")


async def test_seek_and_pause_of_a_processor_that_there_is_not(bench: Bench, other: Store) -> None:
    assert await seek(other, "latest") is None
    assert not await other.write(lambda tx: cursors.pause(tx, "p", True))


async def test_a_cursor_deleted_under_it_is_made_anew(bench: Bench, other: Store) -> None:
    processor = Recorder(nothing)
    runner = await bench.run("p", processor, start="latest")
    await bench.add("in.a")
    await bench.settled(runner)
    await other.write(lambda tx: cursors.forget(tx, "p"))
    await other.write(lambda tx: tx.touch("cursors"))
    await until(lambda: len(processor.opened_at) == 2, "a new beginning")
    ids = await bench.add("in.a")
    await until(lambda: processor.seen[-1] == ids[0], "the event after it")
    assert runner.crashes == 0


async def test_of_two_owners_only_one_can_commit(bench: Bench) -> None:
    """The fence: whoever took the cursor last. The other drops what it decided, and takes it back."""
    gate = asyncio.Event()

    async def slow(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        await gate.wait()

    one, two = Recorder(slow), Recorder()
    runner = bench.runner("p", one)
    await bench.add("in.a", "in.a")
    await runner.start()
    await until(lambda: one.seen == [1], "the first event")
    await bench.run("p", two)
    await until(lambda: two.seen == [1, 2], "the second owner")
    gate.set()
    await until(lambda: len(one.opened_at) == 2, "the first owner's new beginning")
    await bench.add("in.a")
    await events_stored(bench.store, 3, "out")
    await asyncio.gather(*(runner.stop() for runner in bench.runners))
    rows = bench.database.sql("SELECT data, count(*) FROM events WHERE type = 'out' GROUP BY data ORDER BY data")
    assert rows == [('{"of":1}', 1), ('{"of":2}', 1), ('{"of":5}', 1)]


async def test_what_has_halted_stays_halted_when_more_attempts_are_allowed(bench: Bench) -> None:
    async def refuse(event: Event, ctx: ProcessorContext) -> None:
        raise ValueError("no")

    await bench.add("in.bad")
    runner = await bench.run("p", Recorder(refuse), attempts=1, then="halt")
    assert runner.state == "halted"
    await bench.reopen()
    runner = await bench.run("p", Recorder(refuse), attempts=5, then="halt")
    assert runner.state == "halted"
