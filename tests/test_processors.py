"""The processor's loop: what it reads, in which order, and what it commits with its cursor (G4, G9)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import peewee as pw
import pytest
from support.processing import Bench, Recorder, Together, emit_out, nothing
from support.stores import Database

from edgeq.events import Event
from edgeq.processors import progress
from edgeq.processors.processor import ProcessorContext, QueueProcessor
from edgeq.store import cursors, events
from edgeq.store.store import Tx
from edgeq.testing import cursor_at, events_stored, until
from edgeq.units import Duration


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database) as bench:
        yield bench


async def outputs(bench: Bench, count: int) -> list[int]:
    return [event.data["of"] for event in await events_stored(bench.store, count, "out")]


# What it reads


async def test_events_are_processed_in_order_and_decisions_stored(bench: Bench) -> None:
    ids = await bench.add("in.a", "in.b", "in.a")
    processor = Recorder()
    runner = await bench.run("p", processor)
    assert await outputs(bench, 3) == ids
    assert processor.seen == ids
    assert [ctx.cause_id for ctx in processor.contexts] == ids
    await until(lambda: runner.processed == bench.metrics.processed.total() == 3, "the count")
    assert runner.state == "running"
    stored = await events_stored(bench.store, 3, "out")
    assert [event.cause_id for event in stored] == ids


async def test_a_commit_wakes_it_without_any_poll(bench: Bench) -> None:
    processor = Recorder()
    await bench.run("p", processor, poll_interval=Duration(3600))
    for _ in range(20):
        ids = await bench.add("in.a")
        await cursor_at(bench.store, "p", ids[0])
    assert len(processor.seen) == 20


async def test_the_poll_is_the_net_under_the_signal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = Recorder()
    await bench.run("p", processor, poll_interval=Duration(0.05))
    monkeypatch.setattr(bench.store.signal, "fire", lambda topics: None)
    ids = await bench.add("in.a")
    await cursor_at(bench.store, "p", ids[0])
    assert processor.seen == ids
    bench.database.sql("UPDATE cursors SET paused = true")
    await until(lambda: bench.runners[0].state == "paused", "pause without a signal")


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, {"in.a", "in.b"}),
        ({"types": ["in.b", "other"]}, {"in.b", "other"}),
        ({"types": ["*"], "tags": ["hot"]}, {"in.b"}),
        ({"types": ["*"], "tags": ["hot", "wet"]}, set()),
        ({"types": ["*"], "subject": "room-*"}, {"other"}),
    ],
)
async def test_what_is_wanted(bench: Bench, keys: dict[str, Any], wanted: set[str]) -> None:
    await bench.add("in.a")
    await bench.add("in.b", tags=("hot", "dry"))
    await bench.add("other", subject="room-1")
    types: list[str] = []

    async def note(event: Event, ctx: ProcessorContext) -> None:
        types.append(event.type)

    runner = await bench.run("p", Recorder(note), **keys)
    assert set(types) == wanted
    assert runner.position == 3


async def test_filter_item_is_asked_last_and_the_cursor_passes_what_it_refuses(bench: Bench) -> None:
    class Odd(Recorder):
        asked: list[str]

        def filter_item(self, event: Event) -> bool:
            self.asked.append(event.type)
            return event.id % 2 == 1

    processor = Odd()
    processor.asked = []
    ids = await bench.add("in.a", "in.a", "other", "in.a")
    runner = await bench.run("p", processor)
    assert processor.seen == [ids[0]]
    assert processor.asked == ["in.a"] * 3
    assert runner.position >= ids[-1]
    await until(lambda: runner.processed == 1, "the count")


@pytest.mark.parametrize(("start", "first"), [("beginning", 1), ("latest", 6), (3, 4), (1000, 6)])
async def test_where_a_new_cursor_begins(bench: Bench, start: Any, first: int) -> None:
    await bench.add(*["in.a"] * 5)
    processor = Recorder(nothing)
    await bench.run("p", processor, start=start)
    ids = await bench.add("in.a")
    await until(lambda: processor.seen[-1:] == ids, "the new event")
    assert processor.seen == list(range(first, 7))
    assert processor.opened_at == [first - 1]


async def test_a_restart_goes_on_where_it_was(bench: Bench) -> None:
    first = await bench.add(*["in.a"] * 5)
    await bench.run("p", Recorder(), start="latest")
    second = await bench.add(*["in.a"] * 3)
    await cursor_at(bench.store, "p", second[-1])
    await bench.reopen()
    third = await bench.add(*["in.a"] * 2)
    processor = Recorder()
    await bench.run("p", processor, start="latest")
    assert processor.seen == third
    assert await outputs(bench, 5) == second + third
    assert not set(first) & set(processor.seen)


# What it commits


async def test_a_batch_is_one_commit(bench: Bench) -> None:
    processor = Recorder()
    await bench.run("p", processor)
    before = bench.metrics.commits.total()
    await bench.add(*["in.a"] * 50)
    await events_stored(bench.store, 50, "out")
    await bench.store.write(lambda tx: None)  # a commit is counted after it can be seen, and before the next one
    assert bench.metrics.commits.total() - before == 3
    await bench.add(*["in.a"] * 250)
    await cursor_at(bench.store, "p", 350)
    assert bench.metrics.commits.total() - before <= 3 + 1 + 4


async def test_what_is_decided_does_not_wait_for_a_slow_event(bench: Bench) -> None:
    gate = asyncio.Event()

    async def slow(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if event.type == "in.slow":
            await gate.wait()

    processor = Recorder(slow)
    await bench.run("p", processor)
    first, second = await bench.add("in.a", "in.slow")
    assert await outputs(bench, 1) == [first]
    assert (await cursor_at(bench.store, "p", first)).last_consumed_id == first
    assert processor.seen == [first, second]
    gate.set()
    assert await outputs(bench, 2) == [first, second]


async def test_events_that_lead_to_nothing_cost_no_commit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 600.0)
    await bench.run("p", Recorder(nothing))
    before = bench.metrics.commits.total()
    ids = await bench.add("in.a", "other")
    await until(lambda: bench.runners[0].position == ids[-1], "the position")
    await bench.store.write(lambda tx: tx.touch("jobs"))
    assert bench.metrics.commits.total() - before == 2
    # and yet a cursor is moved, by a commit of its own when there is no other:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 0.02)
    await bench.run("q", Recorder(nothing))
    await cursor_at(bench.store, "q", ids[-1])
    assert bench.metrics.commits.total() - before <= 2 + 1 + 1  # the second takes it


async def test_a_lazy_move_rides_with_the_next_commit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 600.0)
    runner = await bench.run("p", Recorder(nothing))
    await bench.add("in.a")
    await bench.settled(runner)
    await runner.stop()
    before = bench.metrics.commits.total()
    await bench.store.write(lambda tx: None)
    cursor = await cursors.one(bench.store, "p")
    assert cursor is not None
    assert cursor.last_consumed_id == 1
    assert bench.metrics.commits.total() - before == 1


async def test_the_close_of_the_store_flushes_a_lazy_move(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 600.0)
    runner = await bench.run("p", Recorder(nothing))
    await bench.add("in.a")
    await bench.settled(runner)
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(0,)]
    await bench.close()
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(1,)]


async def test_lazy_decisions_are_committed_with_their_cursor_or_before(bench: Bench) -> None:
    bench.database.sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, cursor INTEGER)")

    async def note(event: Event, ctx: ProcessorContext) -> None:
        def unit(tx: Tx) -> None:
            tx.run(pw.SQL(f"INSERT INTO notes SELECT {event.id}, last_consumed_id FROM cursors"))

        ctx.decisions.lazily.append(unit)
        if event.type == "in.now":
            await emit_out(event, ctx)

    await bench.run("p", Recorder(note))
    before = bench.metrics.commits.total()
    ids = await bench.add("in.a", "in.a")
    await cursor_at(bench.store, "p", ids[-1])
    await bench.store.write(lambda tx: None)  # see test_a_batch_is_one_commit
    assert bench.metrics.commits.total() - before == 3
    ids += await bench.add("in.a", "in.now", "in.a")
    await cursor_at(bench.store, "p", ids[-1])
    notes = bench.database.sql("SELECT id, cursor FROM notes ORDER BY id")
    assert [number for number, _ in notes] == ids
    assert all(cursor >= number for number, cursor in notes)


async def test_very_many_lazy_decisions_do_not_pile_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 600.0)

    async def note(event: Event, ctx: ProcessorContext) -> None:
        ctx.decisions.lazily += [lambda tx: None] * 20

    await bench.run("p", Recorder(note))
    ids = await bench.add(*["in.a"] * 100)
    await cursor_at(bench.store, "p", ids[-1])


# A trigger, as every database has its own words for it.
FORWARD = {
    "sqlite": """
        CREATE TRIGGER forward BEFORE UPDATE ON cursors WHEN new.last_consumed_id < old.last_consumed_id
        BEGIN SELECT RAISE(ABORT, 'backwards'); END
    """,
    "postgresql": """
        CREATE FUNCTION backwards() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'backwards'; END $$;
        CREATE TRIGGER forward BEFORE UPDATE ON cursors FOR EACH ROW
        WHEN (new.last_consumed_id < old.last_consumed_id) EXECUTE FUNCTION backwards()
    """,
}


async def test_the_cursor_never_goes_back_and_nothing_is_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mix of events that decide at once, lazily, nothing, and slowly, with all timers short."""
    monkeypatch.setattr(progress, "DECIDED_SECONDS", 0.002)
    monkeypatch.setattr(progress, "LAZY_SECONDS", 0.004)
    bench.database.sql(FORWARD[bench.database.kind])
    dice = random.Random(7)
    lazily: list[int] = []

    async def mixed(event: Event, ctx: ProcessorContext) -> None:
        chance = dice.random()
        if chance < 0.4:
            await emit_out(event, ctx)
        elif chance < 0.6:
            ctx.decisions.lazily.append(lambda tx: lazily.append(event.id))
        if dice.random() < 0.2:
            await asyncio.sleep(0.003)
        if chance < 0.4:
            decided.append(event.id)

    decided: list[int] = []
    processor = Recorder(mixed)
    await bench.run("p", processor, batch_size=7)
    for _ in range(60):
        await bench.add(*["in.a"] * dice.randint(1, 6))
        await asyncio.sleep(0)
    head = await events.head(bench.store)
    wanted = [row[0] for row in bench.database.sql("SELECT id FROM events WHERE type = 'in.a' ORDER BY id")]
    await cursor_at(bench.store, "p", max(head, wanted[-1]))
    assert processor.seen == wanted
    assert await outputs(bench, len(decided)) == decided
    assert bench.runners[0].last_error is None
    assert lazily == sorted(lazily)


async def test_while_idle_nothing_is_read_or_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await bench.run("p", Recorder(nothing))
    ids = await bench.add("in.a")
    await cursor_at(bench.store, "p", ids[0])
    reads = 0
    read = bench.store.read

    async def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*args)

    def done() -> tuple[object, ...]:
        return reads, bench.metrics.commits.total(), bench.database.written()

    async def quiet() -> bool:
        before = done()
        await asyncio.sleep(0.6)
        return done() == before

    monkeypatch.setattr(bench.store, "read", counted)
    await until(quiet, "a while in which nothing is read or written")
    assert runner.state == "running"


async def test_stop_finishes_the_event_in_hand_and_commits(bench: Bench) -> None:
    gate = asyncio.Event()
    began = asyncio.Event()

    async def slow(event: Event, ctx: ProcessorContext) -> None:
        began.set()
        await gate.wait()
        await emit_out(event, ctx)

    processor = Recorder(slow)
    runner = bench.runner("p", processor)
    ids = await bench.add("in.a", "in.a", "in.a")
    await runner.start()
    await began.wait()
    stopped = asyncio.create_task(runner.stop())
    await asyncio.sleep(0)
    gate.set()
    await stopped
    assert processor.seen == ids[:1]
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(ids[0],)]
    assert await outputs(bench, 1) == ids[:1]
    assert runner.state == "stopped"


async def test_what_is_done_is_kept_when_a_stop_has_to_cancel(bench: Bench) -> None:
    async def forever(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if event.type == "in.forever":
            await asyncio.Event().wait()

    processor = Recorder(forever)
    runner = bench.runner("p", processor)
    ids = await bench.add("in.a", "in.forever")
    await runner.start()
    await until(lambda: processor.seen == ids, "the second event")
    await runner.stop(grace_seconds=0.0)
    assert await outputs(bench, 1) == ids[:1]
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(ids[0],)]


# Many at once


async def test_process_batch_gets_all_that_is_wanted(bench: Bench) -> None:
    processor = Together()
    await bench.add("in.a", "other", "in.a", "in.a", "other")
    runner = await bench.run("p", processor, batch_size=4)
    assert processor.batches == [[1, 3, 4]]
    assert processor.contexts[0].cause_id == 4
    assert processor.contexts[0].idempotency_key == f"{bench.store.id}:p:1-4"
    assert await outputs(bench, 3) == [1, 3, 4]
    await until(lambda: runner.processed == 3, "the count")


async def test_the_idempotency_key_names_store_processor_and_event(bench: Bench) -> None:
    processor = Recorder()
    await bench.add("in.a", "in.a")
    await bench.run("p", processor)
    assert [ctx.idempotency_key for ctx in processor.contexts] == [f"{bench.store.id}:p:1", f"{bench.store.id}:p:2"]


async def test_two_processors_have_cursors_of_their_own(bench: Bench) -> None:
    ids = await bench.add("in.a", "in.a")
    one, two = Recorder(nothing), Recorder(nothing)
    await bench.run("one", one)
    await bench.run("two", two, start="latest")
    more = await bench.add("in.a")
    await until(lambda: one.seen == ids + more and two.seen == more, "both")


def test_base_class_wants_everything() -> None:
    assert tuple(QueueProcessor.types) == ("*",)


async def test_damaged_rows_of_other_programs_do_not_stop_it(bench: Bench) -> None:
    """Tags that aren't JSON, written with SQL by somebody else."""
    bench.database.sql(
        "INSERT INTO events (type, subject, data, tags, description, occurred_at, recorded_at) "
        "VALUES ('in.a', '', '{', 'no json', '', 0, 0)"
    )
    ids = await bench.add("in.a", tags=("hot",))
    processor = Recorder()
    await bench.run("p", processor, tags=["hot"], attempts=1)
    await cursor_at(bench.store, "p", ids[0])
    assert processor.seen == ids
    assert bench.database.sql("SELECT source, reason, event_id FROM dead_letters") == [("processor:p", "failed", 1)]
