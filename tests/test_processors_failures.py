"""Events that fail: their attempts, their end, and what becomes of the events around them (G5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from support.processing import Bench, Handle, Recorder, Together, emit_out, nothing
from support.stores import Database

from edgeq.backoff import Backoff
from edgeq.errors import StoreUnavailable
from edgeq.events import Event
from edgeq.processors.processor import ProcessorContext
from edgeq.store import cursors, dead_letters
from edgeq.store.cursors import Cursor
from edgeq.store.dead_letters import NewDeadLetter
from edgeq.store.events import one
from edgeq.store.store import Tx
from edgeq.testing import FakeClock, cursor_at, events_stored, until


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Bench(database, FakeClock()) as bench:
        yield bench


def failing(*bad: int, error: type[BaseException] = ValueError, until_attempt: int = 10**9) -> Handle:
    """Decides, and then fails at the events of `bad`, before attempt `until_attempt`."""

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if event.id in bad and ctx.attempt < until_attempt:
            raise error(f"no {event.id}")

    return handle


async def cursor(bench: Bench) -> Cursor:
    found = await cursors.one(bench.store, "p")
    assert found is not None
    return found


async def outputs(bench: Bench, count: int) -> list[int]:
    return [event.data["of"] for event in await events_stored(bench.store, count, "out")]


async def letters(bench: Bench) -> list[tuple[str, str, int | None]]:
    found = await dead_letters.find(bench.store, limit=100)
    return [(letter.source, letter.reason, letter.event_id) for letter in reversed(found)]


async def exhaust(bench: Bench, processor: Recorder, calls: int) -> None:
    """Let time pass until the processor was called `calls` times."""
    while len(processor.seen) < calls:
        now = len(processor.seen)
        bench.pass_time(100)
        await until(lambda now=now: len(processor.seen) > now, "the next attempt")


async def test_a_failing_event_is_tried_again_after_its_time_and_the_rest_waits(bench: Bench) -> None:
    ids = await bench.add("in.a", "in.a", "in.a")
    processor = Recorder(failing(2, until_attempt=3))
    runner = await bench.run("p", processor, attempts=5)
    assert await outputs(bench, 1) == [1]
    row = await cursor(bench)
    assert (row.last_consumed_id, row.failed_id, row.attempt) == (1, 2, 1)
    assert row.error == "ValueError: no 2"
    assert row.retry_at == bench.clock.now() + 10_000_000
    assert (runner.state, runner.last_error) == ("retrying", "ValueError: no 2")

    bench.pass_time(9.9)
    more = await bench.add("in.a")
    assert processor.seen == [1, 2]
    bench.pass_time(0.2)
    await until(lambda: len(processor.seen) == 3, "the second attempt")
    await until(
        lambda: runner._attempts.failure is not None and runner._attempts.failure.attempt == 2, "the second failure"
    )
    assert (await cursor(bench)).attempt == 2
    bench.pass_time(20)
    await cursor_at(bench.store, "p", more[0])
    assert processor.seen == [1, 2, 2, 2, 3, *more]
    assert [ctx.attempt for ctx in processor.contexts] == [1, 1, 2, 3, 1, 1]
    assert len({ctx.idempotency_key for ctx in processor.contexts[1:4]}) == 1
    assert await outputs(bench, 4) == [*ids, *more]
    row = await cursor(bench)
    assert (row.failed_id, row.attempt, row.error) == (None, 0, None)
    assert (runner.state, runner.last_error) == ("running", None)


async def test_after_its_attempts_it_is_a_dead_letter_and_only_then_the_cursor_passes(bench: Bench) -> None:
    await bench.add("in.a", "in.bad", "in.a")
    processor = Recorder(failing(2))
    runner = await bench.run("p", processor, attempts=3)
    assert (await cursor(bench)).last_consumed_id == 1
    assert await letters(bench) == []
    await exhaust(bench, processor, 4)
    assert await outputs(bench, 2) == [1, 3]
    assert processor.seen == [1, 2, 2, 2, 3]
    assert await letters(bench) == [("processor:p", "failed", 2)]
    letter = (await dead_letters.find(bench.store, limit=1))[0]
    assert "ValueError: no 2" in letter.error
    assert "Traceback" in letter.error
    assert letter.created_at == bench.clock.now()
    assert bench.metrics.dead_letters.values == {"processor:p": 1}
    assert bench.metrics.failures.values == {"p": 3}
    assert runner.state == "running"


async def test_skip_passes_and_counts(bench: Bench) -> None:
    ids = await bench.add("in.bad", "in.a")
    await bench.run("p", Recorder(failing(1)), attempts=1, then="skip")
    await cursor_at(bench.store, "p", ids[-1])
    assert await outputs(bench, 1) == [2]
    assert await letters(bench) == []
    assert bench.metrics.skipped.values == {"failed": 1}


async def test_halt_waits_for_somebody_to_resume_it(bench: Bench) -> None:
    await bench.add("in.a", "in.bad", "in.a")
    processor = Recorder(failing(2, until_attempt=2))
    runner = await bench.run("p", processor, attempts=1, then="halt")
    assert runner.state == "halted"
    row = await cursor(bench)
    assert (row.paused, row.failed_id, row.error) == (True, 2, "ValueError: no 2")
    bench.pass_time(10_000)
    await bench.add("in.a")
    await bench.reopen()
    runner = await bench.run("p", processor, attempts=1, then="halt")
    assert (runner.state, processor.seen) == ("halted", [1, 2])
    processor._handle = failing()
    await bench.store.write(lambda tx: cursors.pause(tx, "p", False))
    await until(lambda: processor.seen[2:] == [2, 3, 5], "what it had before it", store=bench.store)
    assert runner.state == "running"


async def test_resumed_after_a_halt_it_has_all_its_attempts_again(bench: Bench) -> None:
    await bench.add("in.bad")
    processor = Recorder(failing(1))
    runner = await bench.run("p", processor, attempts=2, then="halt")
    await exhaust(bench, processor, 2)
    await until(lambda: runner.state == "halted", "halt")
    await bench.store.write(lambda tx: cursors.pause(tx, "p", False))
    await until(lambda: len(processor.seen) == 3, "an attempt at once")
    await until(lambda: runner.state == "retrying", "another attempt to come")
    assert processor.contexts[-1].attempt == 1
    await exhaust(bench, processor, 4)
    await until(lambda: runner.state == "halted", "halt")


async def test_a_restart_keeps_the_attempts_and_the_time(bench: Bench) -> None:
    await bench.add("in.bad", "in.a")
    processor = Recorder(failing(1))
    await bench.run("p", processor, attempts=3)
    await exhaust(bench, processor, 2)
    await until(lambda: bench.runners[0]._attempts.failure.attempt == 2, "the failure")  # type: ignore[union-attr]
    await bench.reopen()
    runner = await bench.run("p", processor, attempts=3)
    assert runner.state == "retrying"
    assert len(processor.seen) == 2
    bench.pass_time(100)
    await until(lambda: len(processor.seen) == 4, "the last attempt and the next event")
    assert processor.contexts[2].attempt == 3
    assert await letters(bench) == [("processor:p", "failed", 1)]


async def test_a_clock_set_back_over_a_restart_does_not_prolong_the_wait(bench: Bench) -> None:
    await bench.add("in.bad")
    processor = Recorder(failing(1, until_attempt=2))
    await bench.run("p", processor, attempts=3)
    assert isinstance(bench.clock, FakeClock)
    bench.clock.step(-30 * 86400)
    await bench.reopen()
    await bench.run("p", processor, attempts=3)
    bench.pass_time(41)  # the longest backoff is 40 s
    await cursor_at(bench.store, "p", 1)


class Unusual(BaseException):
    pass


@pytest.mark.parametrize("where", ["filter_item", "filter_exit", "leak", "attribute", "exit", "unusual", "closed"])
async def test_whatever_it_raises_is_a_failure(bench: Bench, where: str) -> None:
    class Odd(Recorder):
        def filter_item(self, event: Event) -> bool:
            if where == "filter_item" and event.id == 1:
                raise KeyError("filter")
            if where == "filter_exit" and event.id == 1:
                raise SystemExit(3)
            return True

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if event.id == 1 and where == "leak":
            raise asyncio.CancelledError
        if event.id == 1 and where == "attribute":
            raise RecursionError("very deep \ud800\0")
        if event.id == 1 and where == "exit":
            raise SystemExit(3)
        if event.id == 1 and where == "unusual":
            raise Unusual
        if event.id == 1 and where == "closed":
            raise GeneratorExit

    ids = await bench.add("in.bad", "in.a")
    await bench.run("p", Odd(handle), attempts=1)
    await cursor_at(bench.store, "p", ids[-1])
    assert await outputs(bench, 1) == [2]
    assert await letters(bench) == [("processor:p", "failed", 1)]


async def test_an_error_text_that_no_database_takes_is_kept_in_escaped_form(bench: Bench) -> None:
    async def handle(event: Event, ctx: ProcessorContext) -> None:
        raise ValueError("lone \udc80 and \0")

    await bench.add("in.bad")
    await bench.run("p", Recorder(handle), attempts=2)
    assert (await cursor(bench)).error == r"ValueError: lone \udc80 and \x00"


async def test_its_memory_is_made_anew_after_a_failure(bench: Bench) -> None:
    await bench.add("in.a", "in.bad", "in.a", "in.bad")
    processor = Recorder(failing(2, 4))
    await bench.run("p", processor, attempts=1)
    await cursor_at(bench.store, "p", 4)
    await until(lambda: processor.opened_at == [0, 2, 4], "three times opened")


async def test_one_bad_event_in_a_batch_costs_only_itself(bench: Bench) -> None:
    ids = await bench.add("in.a", "in.a", "in.bad", "other", "in.a")
    processor = Together(failing(3))
    runner = await bench.run("p", processor, attempts=2)
    assert processor.batches == [[1, 2, 3, 5], [1], [2], [3]]
    assert runner.state == "retrying"
    await exhaust(bench, processor, len(processor.seen) + 1)
    await cursor_at(bench.store, "p", ids[-1])
    assert processor.batches[4:] == [[3], [5]]
    assert [ctx.attempt for ctx in processor.contexts if ctx.cause_id == 3] == [1, 2]
    assert await outputs(bench, 3) == [1, 2, 5]
    assert await letters(bench) == [("processor:p", "failed", 3)]
    more = await bench.add("in.a", "in.a")
    await until(lambda: processor.batches[-1] == more, "batches again")


async def test_a_batch_of_one_has_its_attempts_like_any_event(bench: Bench) -> None:
    ids = await bench.add("other", "in.bad")
    processor = Together(failing(2))
    await bench.run("p", processor, attempts=1)
    await cursor_at(bench.store, "p", ids[-1])
    assert processor.batches == [[2]]


async def test_a_filter_that_fails_in_a_batch_is_its_events_failure(bench: Bench) -> None:
    class Picky(Together):
        def filter_item(self, event: Event) -> bool:
            if event.id == 2:
                raise KeyError("filter")
            return True

    ids = await bench.add("in.a", "in.bad", "in.a")
    await bench.run("p", Picky(), attempts=1)
    await cursor_at(bench.store, "p", ids[-1])
    assert await letters(bench) == [("processor:p", "failed", 2)]
    assert await outputs(bench, 2) == [1, 3]


async def test_a_seek_ends_the_one_by_one(bench: Bench) -> None:
    await bench.add(*["in.a"] * 4)
    processor = Together(failing(4))
    runner = await bench.run("p", processor, attempts=2)
    assert processor.batches[-1] == [4]
    processor._handle = nothing
    await bench.store.write(lambda tx: cursors.seek(tx, "p", "start", 0))
    await until(lambda: processor.batches[-1] == [1, 2, 3, 4], "all of it together")
    assert runner.state == "running"


async def test_a_restart_tries_a_failed_event_of_a_batch_alone(bench: Bench) -> None:
    await bench.add("in.a", "in.bad", "in.a")
    processor = Together(failing(2))
    await bench.run("p", processor, attempts=2)
    await bench.reopen()
    processor.batches.clear()
    await bench.run("p", processor, attempts=2)
    bench.pass_time(100)
    await cursor_at(bench.store, "p", 3)
    assert processor.batches == [[2], [3]]
    assert await letters(bench) == [("processor:p", "failed", 2)]


@pytest.mark.parametrize("kind", ["also", "lazily", "events"])
async def test_decisions_that_the_store_refuses_are_their_events_failure(bench: Bench, kind: str) -> None:
    def bad(tx: Tx) -> None:
        raise OverflowError("far too large")

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if event.type == "in.bad":
            if kind == "events":
                ctx.emit("out", occurred_at=2**70)
            else:
                getattr(ctx.decisions, kind).append(bad)

    await bench.add("in.a", "in.a", "in.bad", "in.a")
    processor = Recorder(handle)
    runner = await bench.run("p", processor, attempts=2)
    await until(lambda: runner.state == "retrying", "the failure", store=bench.store)
    assert (await cursor(bench)).last_consumed_id == 2
    await exhaust(bench, processor, len(processor.seen) + 1)
    assert await outputs(bench, 3) == [1, 2, 4]
    assert await letters(bench) == [("processor:p", "failed", 3)]
    assert runner.crashes == 0
    # What was refused, and what was dropped with it, is not done. It is counted a moment after the commit.
    await until(lambda: bench.metrics.processed.values.get("p", 0) >= 3, "the count", store=bench.store)
    assert bench.metrics.processed.values == {"p": 3}


async def test_a_lazy_decision_that_is_refused_is_found_out(bench: Bench) -> None:
    """It is committed with nobody waiting for it; the next commit must not pass it in silence."""

    def bad(tx: Tx) -> None:
        raise OverflowError("far too large")

    async def handle(event: Event, ctx: ProcessorContext) -> None:
        if event.type == "in.bad":
            ctx.decisions.lazily.append(bad)
        else:
            await emit_out(event, ctx)

    processor = Recorder(handle)
    runner = await bench.run("p", processor, attempts=1)
    await bench.add("in.bad")
    await bench.settled(runner)
    runner._progress._flush()
    await bench.store.write(lambda tx: None)
    assert bench.database.sql("SELECT last_consumed_id FROM cursors") == [(0,)]
    await bench.add("in.a")
    assert await outputs(bench, 1) == [2]
    assert await letters(bench) == [("processor:p", "failed", 1)]


async def test_a_store_that_refuses_even_the_dead_letter_is_no_hot_loop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(tx: Tx, new: Sequence[NewDeadLetter]) -> None:
        if new:
            raise RuntimeError("no dead letters today")

    monkeypatch.setattr(dead_letters, "add", broken)
    await bench.add("in.bad")
    runner = bench.runner("p", Recorder(failing(1)), attempts=1)
    runner.restart_backoff = Backoff(3600.0, 3600.0)
    await runner.start()
    await until(lambda: runner.crashes == 1, "the crash that ends in a pause", store=bench.store)
    assert runner.state == "retrying"
    assert (await cursor(bench)).last_consumed_id == 0
    caplog.clear()


async def test_a_crash_is_followed_by_a_fresh_start(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Shy(Recorder):
        async def opened(self, store: Any, last_consumed_id: int) -> None:
            await super().opened(store, last_consumed_id)
            if len(self.opened_at) < 3:
                raise OSError("not yet")

    ids = await bench.add("in.a")
    processor = Shy()
    runner = bench.runner("p", processor)
    runner.restart_backoff = Backoff(0.0, 0.0)
    await runner.start()
    await cursor_at(bench.store, "p", ids[0])
    assert runner.crashes == 2
    caplog.clear()


# Redrive


async def redrive_letter(bench: Bench) -> None:
    """Redrive the one dead letter, as the appliance does."""
    (letter,) = await dead_letters.find(bench.store, limit=10)
    event = await one(bench.store, letter.event_id or 0)
    assert event is not None
    await bench.runners[0].redrive(event, lambda tx: dead_letters.mark_redriven(tx, letter.id, 7))


async def dead(bench: Bench, processor: Recorder, **keys: Any) -> None:
    """A processor that has put its first event to the dead letters and gone on."""
    ids = await bench.add("in.bad", "in.a")
    processor._handle = failing(1)
    await bench.run("p", processor, attempts=1, **keys)
    await cursor_at(bench.store, "p", ids[-1])


@pytest.mark.parametrize("kind", [Recorder, Together])
async def test_redrive_commits_decisions_with_the_mark_and_leaves_the_cursor(
    bench: Bench, kind: type[Recorder]
) -> None:
    processor = kind()
    await dead(bench, processor)
    before = await cursor(bench)
    processor._handle = emit_out
    await redrive_letter(bench)
    assert await outputs(bench, 2) == [2, 1]
    assert bench.metrics.events.total() == 2
    assert bench.database.sql("SELECT redriven_at FROM dead_letters") == [(7,)]
    assert (await cursor(bench)).last_consumed_id >= before.last_consumed_id


async def test_redrive_that_fails_again_raises_and_leaves_nothing(bench: Bench) -> None:
    processor = Recorder()
    await dead(bench, processor)
    with pytest.raises(ValueError, match="no 1"):
        await redrive_letter(bench)
    assert bench.database.sql("SELECT redriven_at FROM dead_letters") == [(None,)]
    assert await outputs(bench, 1) == [2]
    more = await bench.add("in.a")
    assert await outputs(bench, 2) == [2, *more]
    assert bench.runners[0].state == "running"


async def test_a_letter_that_was_redriven_meanwhile_is_not_done_twice(bench: Bench) -> None:
    processor = Recorder()
    await dead(bench, processor)
    processor._handle = emit_out
    (letter,) = await dead_letters.find(bench.store, limit=10)
    event = await one(bench.store, 1)
    assert event is not None
    await redrive_letter(bench)
    await bench.runners[0].redrive(event, lambda tx: dead_letters.mark_redriven(tx, letter.id, 8))
    assert await outputs(bench, 2) == [2, 1]
    assert (bench.metrics.events.total(), bench.metrics.duplicates.total()) == (2, 0)
    assert bench.database.sql("SELECT count(*) FROM events WHERE type = 'out'") == [(2,)]


async def test_redrive_works_while_paused_and_while_stuck(bench: Bench) -> None:
    processor = Recorder()
    await dead(bench, processor)
    runner = bench.runners[0]
    await bench.store.write(lambda tx: cursors.pause(tx, "p", True))
    await until(lambda: runner.state == "paused", "pause")
    processor._handle = emit_out
    await redrive_letter(bench)
    assert bench.database.sql("SELECT redriven_at FROM dead_letters") == [(7,)]


async def test_redrive_keeps_the_attempts_of_the_event_it_is_stuck_at(bench: Bench) -> None:
    await bench.add("in.a", "in.bad")
    processor = Recorder(failing(2))
    runner = await bench.run("p", processor, attempts=3)
    first = await one(bench.store, 1)
    assert first is not None
    await runner.redrive(first, lambda tx: True)
    assert runner.state == "retrying"
    row = await cursor(bench)
    assert (row.failed_id, row.attempt) == (2, 1)


async def test_redrive_survives_a_seek_at_the_same_moment(bench: Bench) -> None:
    processor = Recorder()
    await dead(bench, processor)
    gate = asyncio.Event()

    async def slow(event: Event, ctx: ProcessorContext) -> None:
        await emit_out(event, ctx)
        if len(processor.seen) == 3:
            await bench.store.write(lambda tx: cursors.seek(tx, "p", "latest", 0))
            gate.set()

    processor._handle = slow
    await redrive_letter(bench)
    assert gate.is_set()
    assert processor.seen.count(1) == 3, "what was decided from the old place was dropped, and decided anew"
    assert bench.database.sql("SELECT count(*) FROM events WHERE type = 'out'") == [(2,)]
    assert bench.database.sql("SELECT redriven_at FROM dead_letters") == [(7,)]


async def test_redrive_of_a_stopped_processor_is_refused(bench: Bench) -> None:
    await dead(bench, Recorder())
    await bench.runners[0].stop()
    with pytest.raises(StoreUnavailable, match="stopped"):
        await redrive_letter(bench)


async def test_a_storm_of_failures_is_a_few_log_lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ids = await bench.add(*["in.bad"] * 50)
    await bench.run("p", Recorder(failing(*ids)), attempts=1)
    await cursor_at(bench.store, "p", ids[-1])
    assert len(await letters(bench)) == 50
    assert len([line for line in caplog.records if line.name == "edgeq.processors.p"]) == 1


async def test_an_unhandled_future_is_not_left_behind(bench: Bench) -> None:
    """A runner that is cancelled in the middle of everything leaves the store in order."""
    await bench.add(*["in.a"] * 10)
    runner = bench.runner("p", Recorder(nothing))
    await runner.start()
    await runner.stop(grace_seconds=0.0)
    await bench.store.write(lambda tx: None)
