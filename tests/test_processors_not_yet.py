"""A processor says that what it needs is away: nothing counts as failed, and what is done stays done."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.processing import Bench, Recorder, Together
from support.stores import Database

from edgeq import Event, NotYet, ProcessorContext
from edgeq.store import cursors, dead_letters, events
from edgeq.testing import FakeClock, until
from edgeq.testing.harness import Harness


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database, FakeClock()) as made:
        yield made


async def test_it_is_tried_again_and_no_attempt_is_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    away = 20
    attempts: list[int] = []

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        nonlocal away
        attempts.append(ctx.attempt)
        away -= 1
        if away >= 0:
            raise NotYet("the line is down", after_seconds=1.0)
        ctx.emit("out")

    await bench.add("in.a")
    runner = bench.runner("p", Recorder(handle), attempts=3)
    with caplog.at_level(logging.INFO, "edgeq.processors.p"):
        await runner.start()
        await until(lambda: attempts, "the first attempt")
        while away >= 0:
            before = len(attempts)
            bench.pass_time(1.0)
            await until(lambda count=before: len(attempts) > count, "another attempt")
        await bench.settled(runner)
        await until(lambda: runner.settled, "what was decided to be on disk", store=bench.store)
    assert set(attempts) == {1}
    assert [record.message for record in caplog.records] == ["waits: the line is down", "goes on"]
    assert await dead_letters.counts(bench.store) == []
    assert [event.type for event in await events.after(bench.store, 0, 10)] == ["in.a", "out"]


async def test_what_is_done_stays_done_and_what_was_decided_is_kept(bench: Bench) -> None:
    async def handle(event: Event, ctx: ProcessorContext) -> None: ...

    class Half(Together):
        async def process_batch(self, batch, ctx):  # type: ignore[no-untyped-def]
            self.batches.append([event.id for event in batch])
            ctx.emit("out", data={"first": batch[0].id})
            if len(batch) > 1:
                raise NotYet(done_to=batch[0].id)

    half = Half(handle)
    await bench.add(*["in.a"] * 4)
    runner = await bench.run("p", half)

    async def committed() -> bool:
        cursor = await cursors.one(bench.store, "p")
        return cursor is not None and cursor.last_consumed_id >= 4 and runner.processed == 4

    await until(committed, "the last of it to be on disk", store=bench.store)
    assert half.batches == [[1, 2, 3, 4], [2, 3, 4], [3, 4], [4]]
    assert [event.data["first"] for event in (await events.after(bench.store, 4, 10))] == [1, 2, 3, 4]


async def test_waiting_writes_nothing(bench: Bench) -> None:
    asked = 0

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        nonlocal asked
        asked += 1
        raise NotYet("the line is down", after_seconds=1.0)

    await bench.add("in.a")
    runner = bench.runner("p", Recorder(handle))
    await runner.start()
    await until(lambda: runner.state == "waiting", "it to wait")
    before = bench.database.written()
    for _ in range(5):
        count = asked
        bench.pass_time(1.0)
        await until(lambda seen=count: asked > seen, "another attempt")
    assert bench.database.written() == before


async def test_pausing_and_stopping_need_not_wait_for_it(bench: Bench) -> None:
    async def handle(event: Event, ctx: ProcessorContext) -> None:
        raise NotYet("the line is down", after_seconds=3600.0)

    await bench.add("in.a")
    runner = bench.runner("p", Recorder(handle))
    await runner.start()
    await until(lambda: runner.state == "waiting", "it to wait")
    assert runner.idle(1, 0.0)
    await bench.store.write(lambda tx: cursors.pause(tx, "p", True))
    await until(lambda: runner.state == "paused", "it to pause")
    await runner.stop(5.0)
    assert runner.state == "stopped"


async def test_started_anew_it_does_not_wait_for_what_was_away_before(bench: Bench) -> None:
    away, done = True, []

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        if away:
            raise NotYet("the line is down", after_seconds=3600.0)
        done.append(event.id)

    await bench.add("in.a")
    runner = bench.runner("p", Recorder(handle))
    await runner.start()
    await until(lambda: runner.state == "waiting", "it to wait")
    await runner.stop(5.0)
    away = False
    await runner.start()
    await until(lambda: done == [1], "it to go on")
    await runner.stop(5.0)


async def test_it_is_closed_when_it_stops(bench: Bench) -> None:
    closed: list[str] = []

    class Holding(Recorder):
        async def closed(self) -> None:
            closed.append("closed")
            raise OSError("it was closed already")

    await bench.add("in.a")
    runner = await bench.run("p", Holding())
    await runner.stop()
    assert closed == ["closed"]
    assert runner.crashes == 0


async def test_nothing_leaves_for_a_site_from_the_tests_of_an_app(tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text(
        "routes: [{topic: a, emit: a}]\nprocessors: {cloud: {kind: forward, to: 'http://127.0.0.1:9/'}}\n"
    )
    async with Harness(tmp_path / "edgeq.yaml") as app:
        await app.publish("a", {"n": 1})
        assert app._runners == []
