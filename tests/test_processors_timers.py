"""`due_at` and `on_time`: called when due and all is read, never in a hurry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from support.processing import Bench, Recorder, nothing
from support.stores import Database

from edgeq.clock import MICROSECONDS
from edgeq.events import Event
from edgeq.processors import progress
from edgeq.processors.processor import ProcessorContext
from edgeq.testing import FakeClock, events_stored, until
from edgeq.units import Duration


class Timed(Recorder):
    """Wants to be called at `due`; then does what the test says, and has nothing more to wait for."""

    def __init__(self) -> None:
        super().__init__(nothing)
        self.due: int | None = None
        self.calls: list[str] = []
        self.then: Callable[[ProcessorContext], None] = lambda ctx: None

    def due_at(self) -> int | None:
        return self.due

    async def process_item(self, event: Event, ctx: ProcessorContext) -> None:
        self.calls.append(f"event {event.id}")
        await super().process_item(event, ctx)

    async def on_time(self, ctx: ProcessorContext) -> None:
        self.calls.append("on time")
        due, self.due = self.due, None
        try:
            self.then(ctx)
        except ValueError:
            self.due = due
            raise


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database, FakeClock()) as bench:
        yield bench


async def test_called_once_when_due_and_what_it_decides_is_stored(bench: Bench) -> None:
    processor = Timed()
    processor.due = bench.clock.now() + 10 * MICROSECONDS
    processor.then = lambda ctx: ctx.emit("out", data={"now": ctx.now})
    runner = await bench.run("p", processor)
    bench.pass_time(9.9)
    await bench.add("other")
    await bench.settled(runner)
    assert processor.calls == []
    bench.pass_time(0.1)
    (event,) = await events_stored(bench.store, 1, "out")
    assert event.cause_id is None
    assert event.data == {"now": bench.clock.now()}
    bench.pass_time(100)
    await bench.add("other")
    await bench.settled(runner)
    assert processor.calls == ["on time"]


async def test_it_sleeps_no_longer_than_until_it_is_due(database: Database) -> None:
    async with Bench(database) as bench:
        processor = Timed()
        processor.due = bench.clock.now() + MICROSECONDS // 10
        await bench.run("p", processor, poll_interval=Duration(3600))
        await until(lambda: processor.calls == ["on time"], "the call")


async def test_a_backlog_comes_before_what_is_due(bench: Bench) -> None:
    processor = Timed()
    processor.due = bench.clock.now() - 1
    await bench.add(*["in.a"] * 5)
    await bench.run("p", processor, batch_size=2)
    await until(lambda: "on time" in processor.calls, "the call")
    assert processor.calls == ["event 1", "event 2", "event 3", "event 4", "event 5", "on time"]


async def test_events_that_come_in_while_it_is_busy_count_too(bench: Bench) -> None:
    processor = Timed()
    processor.due = bench.clock.now() - 1

    async def late(event: Event, ctx: ProcessorContext) -> None:
        if event.id == 1:
            await bench.add("in.late")

    processor._handle = late
    await bench.add("in.a")
    await bench.run("p", processor)
    await until(lambda: "on time" in processor.calls, "the call")
    assert processor.calls == ["event 1", "event 2", "on time"]


async def test_when_nothing_is_decided_nothing_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 0.02)
    processor = Timed()
    runner = await bench.run("p", processor)
    before = bench.metrics.commits.total()
    for _ in range(5):
        processor.due = bench.clock.now()
        bench.pass_time(1)
        await until(lambda: processor.due is None, "the call")
    await asyncio.sleep(0.1)
    bench.pass_time(1)
    await runner.stop()
    await bench.close()
    assert bench.metrics.commits.total() == before


async def test_lazy_decisions_of_a_timer_are_committed_lazily(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LAZY_SECONDS", 600.0)
    done: list[int] = []
    processor = Timed()
    processor.then = lambda ctx: ctx.decisions.lazily.append(lambda tx: done.append(1))
    runner = await bench.run("p", processor)
    before = bench.metrics.commits.total()
    processor.due = bench.clock.now()
    bench.pass_time(1)
    await until(lambda: processor.due is None, "the call")
    assert bench.metrics.commits.total() == before
    await runner.stop()
    await bench.store.write(lambda tx: None)
    assert done == [1]
    assert bench.metrics.commits.total() - before == 1


async def test_when_it_fails_it_is_called_again_later_and_events_go_on(bench: Bench) -> None:
    processor = Timed()

    def fail(ctx: ProcessorContext) -> None:
        ctx.emit("out")
        raise ValueError("not now")

    processor.then = fail
    processor.due = bench.clock.now()
    runner = await bench.run("p", processor, attempts=3)
    await until(lambda: runner.last_error == "ValueError: not now", "the failure")
    await bench.add("in.a", "in.a")
    await bench.settled(runner)
    assert processor.calls == ["on time", "event 1", "event 2"]
    assert processor.opened_at == [0, 0]
    assert bench.metrics.failures.values == {"p": 1}
    processor.then = lambda ctx: ctx.emit("out")
    bench.pass_time(10)
    await events_stored(bench.store, 1, "out")
    assert processor.calls.count("on time") == 2
    assert bench.database.sql("SELECT count(*) FROM events WHERE type = 'out'") == [(1,)]


@pytest.mark.parametrize("due", ["never moved", "always now"])
async def test_a_timer_that_does_not_end_is_no_hot_loop(database: Database, due: str) -> None:
    class Stubborn(Timed):
        def due_at(self) -> int | None:
            return 1 if due == "never moved" else self.clock()

        async def on_time(self, ctx: ProcessorContext) -> None:
            self.calls.append("on time")

    async with Bench(database) as bench:
        processor = Stubborn()
        processor.clock = bench.clock.now  # type: ignore[attr-defined]
        await bench.run("p", processor)
        await until(lambda: processor.calls, "the first call")
        before = len(processor.calls)
        await asyncio.sleep(0.5)
        assert len(processor.calls) - before <= (1 if due == "never moved" else 51)
