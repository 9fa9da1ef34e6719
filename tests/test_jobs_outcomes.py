"""What a job says about its own future, and what its worker makes of it: retries, ends, snoozes, expiry, progress."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.stores import Database
from support.workbench import Bench, Gate, bench_on, until

from edgeq.clock import Clock
from edgeq.config.schema import Breaker
from edgeq.events import from_json
from edgeq.jobs.context import JobContext
from edgeq.jobs.job import Job
from edgeq.jobs.outcome import Dead, RetryAfter
from edgeq.jobs.worker import Overrides
from edgeq.store import breakers
from edgeq.testing import FakeClock
from edgeq.units import Duration


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """On a clock that stands still."""
    async with bench_on(database, FakeClock()) as bench:
        yield bench


@pytest.fixture
async def live(database: Database) -> AsyncIterator[Bench]:
    """On the machine's clock."""
    async with bench_on(database, Clock()) as bench:
        yield bench


def advance(bench: Bench, seconds: float) -> None:
    assert isinstance(bench.clock, FakeClock)
    bench.clock.advance(seconds)
    bench.wake()


# Retries


class Says(Job):
    """Returns or raises an outcome."""

    max_attempts = 3
    backoff = "10s"
    what: str
    how: str = "raise"

    async def handle(self, ctx: JobContext) -> Any:
        return self.say(ctx)

    def say(self, ctx: JobContext) -> Any:
        ctx.emit("tried")
        outcome = RetryAfter("2m", "busy") if self.what == "retry" else Dead("no such customer")
        if self.how == "raise":
            raise outcome
        return outcome

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up", data={"error": str(error), "attempt": ctx.job.attempt})


class SaysInThread(Says):
    def handle(self, ctx: JobContext) -> Any:
        return self.say(ctx)


@pytest.mark.parametrize("kind", [Says, SaysInThread])
@pytest.mark.parametrize("how", ["raise", "return"])
async def test_retry_after_takes_the_place_of_the_backoff_and_costs_an_attempt(
    bench: Bench, kind: type[Says], how: str
) -> None:
    await bench.work()
    await bench.dispatch(kind(what="retry", how=how))
    for attempt in (1, 2):
        job = await bench.until_state("retryable", attempt=attempt)
        assert (job.run_at - bench.clock.now(), job.error) == (120_000_000, "busy")
        advance(bench, 120)
    job = await bench.until_state("dead")
    assert (job.attempt, await bench.letters()) == (3, [("failed", "busy")])
    assert await bench.events() == ["gave_up"]
    await bench.counted({"retried": 2, "dead": 1})


@pytest.mark.parametrize("kind", [Says, SaysInThread])
@pytest.mark.parametrize("how", ["raise", "return"])
async def test_a_job_that_says_it_is_dead_is_dead_at_once_and_has_its_last_words(
    bench: Bench, kind: type[Says], how: str
) -> None:
    await bench.work()
    await bench.dispatch(kind(what="dead", how=how))
    job = await bench.until_state("dead")
    assert (job.attempt, await bench.letters()) == (1, [("dead", "no such customer")])
    assert await bench.events() == ["gave_up"]
    await bench.counted({"dead": 1})


class MeasuresNothing(Job):
    async def handle(self, ctx: JobContext) -> dict[str, list[float]]:
        return {"degrees": [20.5, float("nan")]}


async def test_a_result_that_would_not_come_back_as_it_is_makes_it_dead(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(MeasuresNothing())
    await bench.until_state("dead")
    reason = "what handle() returned can't be written as JSON: it has no NaN and no infinity"
    assert await bench.letters() == [("bad_result", reason)]


class SaysTooMuch(Job):
    async def handle(self, ctx: JobContext) -> None:
        raise Dead("no " * 1_000_000)


async def test_what_a_job_says_of_its_death_is_stored_as_far_as_anybody_reads_it(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(SaysTooMuch())
    job = await bench.until_state("dead")
    assert job.error is not None
    assert job.error.startswith("no no no ")
    assert len(job.error) < 20_000


async def test_the_command_line_has_the_last_word_on_attempts(bench: Bench) -> None:
    await bench.work(overrides=Overrides(max_attempts=2))
    await bench.dispatch(Says(what="retry"))
    await bench.until_state("retryable", attempt=1)
    advance(bench, 120)
    job = await bench.until_state("dead")
    assert job.attempt == 2


# Snoozing


class Snoozes(Job):
    max_attempts = 1
    fail: bool = False

    async def handle(self, ctx: JobContext) -> Any:
        ctx.emit("looked", data={"attempt": ctx.job.attempt})
        if self.fail:
            ctx.snooze("5m")
            raise ValueError("all the same")
        return ctx.snooze("5m")


async def test_a_snoozed_job_runs_again_and_it_costs_no_attempt(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(Snoozes())
    for count in (1, 2, 3):
        await bench.counted({"snoozed": count})
        job = await bench.job()
        assert (job.state, job.attempt, job.run_at) == ("scheduled", 0, bench.clock.now() + 300_000_000)
        assert await bench.events() == ["looked"] * count, "what it recorded is committed with the snooze"
        advance(bench, 300)


async def test_a_job_that_snoozes_and_then_fails_has_failed(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(Snoozes(fail=True))
    await bench.until_state("dead")
    assert await bench.events() == []


# The time in which a job is of use


class Perishable(Job):
    expires = "60s"
    backoff = "40s"
    max_attempts = 9

    async def handle(self, ctx: JobContext) -> None:
        ctx.emit("tried")
        raise ValueError("not yet")

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up", data={"error": str(error)})


async def test_a_retry_that_would_come_too_late_is_not_waited_for(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(Perishable())
    await bench.until_state("retryable", attempt=1)
    advance(bench, 45)
    job = await bench.until_state("dead", attempt=2)
    [(reason, error)] = await bench.letters()
    assert reason == "expired"
    assert "before the next attempt" in error
    assert "ValueError: not yet" in error
    assert job.error == error
    assert await bench.events() == ["gave_up"]
    await bench.counted({"retried": 1, "expired": 1})


async def test_a_job_whose_time_is_over_is_not_begun(bench: Bench) -> None:
    await bench.dispatch(Perishable())
    advance(bench, 61)
    await bench.work()
    await bench.until_state("dead")
    [(reason, error)] = await bench.letters()
    assert (reason, error) == ("expired", "its time was over 1.0s before attempt 1")
    assert await bench.events() == ["gave_up"], "it had its last words, and nothing else"
    await bench.counted({"expired": 1})


# Time limits


class Deaf(Job):
    """Goes on though it is cancelled."""

    timeout = "50ms"
    max_attempts = 1

    async def handle(self, ctx: JobContext) -> None:
        Gate.entered.append(1)
        ctx.emit("too_late")
        while not Gate.is_open():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up", data={"error": str(error)})


class Follow(Job):
    async def handle(self, ctx: JobContext) -> int:
        return 1


async def test_a_job_that_will_not_be_cancelled_is_given_up_and_takes_up_room_until_it_returns(
    live: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.jobs.attempts.CANCEL_SECONDS", 0.1)
    worker = await live.work(concurrency=1)
    await live.dispatch(Deaf(), Follow())
    await live.until_state("dead")
    assert [reason for reason, _ in await live.letters()] == ["timeout"]
    assert await live.events() == ["gave_up"]
    await until(lambda: not worker.running)
    assert (worker.overdue, worker.free) == (1, 0)
    live.wake()
    await asyncio.sleep(0.05)
    assert (await live.job(2)).state == "available", "there is no room for it"
    Gate.open_all()
    await live.until_state("completed", 2)
    assert worker.overdue == 0
    assert await live.events() == ["gave_up"], "what it did after its time is void"
    await live.counted({"dead": 1, "completed": 1})


class Tidy(Job):
    """Cleans up when it is cancelled, and has something to show for it."""

    timeout = "50ms"

    async def handle(self, ctx: JobContext) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "half of it"
        return "all"


async def test_a_job_that_ends_well_when_it_is_cancelled_is_completed(live: Bench) -> None:
    await live.work()
    await live.dispatch(Tidy())
    assert (await live.until_state("completed")).result == '"half of it"'


class Patient(Job):
    timeout = "1h"
    max_attempts = 1

    async def handle(self, ctx: JobContext) -> None:
        await Gate.wait(0)


async def test_the_command_line_has_the_last_word_on_the_time_limit(live: Bench) -> None:
    await live.work(overrides=Overrides(timeout_seconds=0.05))
    await live.dispatch(Patient())
    await live.until_state("dead")
    assert [letter for letter in await live.letters() if letter[1].startswith("took longer than 50ms")]


class CancelsItself(Job):
    max_attempts = 1

    async def handle(self, ctx: JobContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)


async def test_a_job_that_cancels_itself_has_failed(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(CancelsItself(), Follow())
    assert (await bench.until_state("dead")).error == "RuntimeError: the job cancelled itself"
    await bench.until_state("completed", 2)
    assert (worker.crashes, worker.overdue) == (0, 0)


# Progress


class Reports(Job):
    steps: int

    async def handle(self, ctx: JobContext) -> None:
        await asyncio.to_thread(self.report, ctx)
        await Gate.wait(0)
        ctx.progress(1.0, "done")

    def report(self, ctx: JobContext) -> None:
        for step in range(self.steps):
            ctx.progress(step / self.steps, f"step {step}")


class ReportsInThread(Reports):
    def handle(self, ctx: JobContext) -> None:  # type: ignore[override]
        self.report(ctx)
        Gate.wait_in_thread(0)
        ctx.progress(1.0, "done")


@pytest.mark.parametrize("kind", [Reports, ReportsInThread])
async def test_progress_is_stored_now_and_then_and_the_latest_counts(bench: Bench, kind: type[Reports]) -> None:
    await bench.work()
    commits = bench.metrics.commits.total()
    await bench.dispatch(kind(steps=1000))

    async def reached(text: str) -> bool:
        return text in ((await bench.job()).progress or "")

    await until(lambda: Gate.entered == [0])
    advance(bench, 1)
    await until(lambda: reached("step 999"))
    assert bench.metrics.commits.total() - commits < 12
    Gate.open_all()
    job = await bench.until_state("completed")
    assert from_json(job.progress or "") == {"fraction": 1.0, "text": "done"}


class Ticks(Job):
    """Reports when it is told to."""

    async def handle(self, ctx: JobContext) -> None:
        for step in range(100):
            await Gate.ticks.get()
            ctx.progress(step / 100)
            Gate.entered.append(step)


async def test_a_job_stores_one_progress_a_second(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(Ticks())
    await until(lambda: bool(worker.running))

    async def step(number: int) -> None:
        Gate.ticks.put_nowait(None)
        await until(lambda: len(Gate.entered) == number + 1)
        for _ in range(3):
            bench.wake()
            await asyncio.sleep(0.01)

    async def stored(fraction: float) -> bool:
        return (await bench.job()).progress == f'{{"fraction":{fraction},"text":""}}'

    await step(0)
    await until(lambda: stored(0.0))  # the first is stored at once
    for number in (1, 2, 3):
        await step(number)
        assert await stored(0.0), "no time has passed"
    advance(bench, 1)
    await until(lambda: stored(0.03))


# Dependencies that don't work


class Calls(Job):
    needs = "crm"
    max_attempts = 1
    backoff = "10s"

    async def handle(self, ctx: JobContext) -> None:
        if not Gate.is_open():
            raise ConnectionError("refused")

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up")


async def test_while_what_they_need_is_broken_jobs_wait_and_none_dies_of_it(bench: Bench) -> None:
    breaker = Breaker(failures=2, within=Duration(60), wait=Duration(30))
    await bench.work(breakers={"crm": breaker}, concurrency=1)
    await bench.dispatch(*(Calls() for _ in range(5)))
    await bench.until_state("dead", 1)

    async def is_open() -> bool:
        return [(each.name, each.state) for each in await breakers.all(bench.store)] == [("crm", "open")]

    await until(is_open)
    for _ in range(3):  # tried again, in vain
        advance(bench, 31)
        await asyncio.sleep(0.05)
    states = [(await bench.job(number)).state for number in range(1, 6)]
    assert states[0] == "dead"
    assert "dead" not in states[2:]
    assert await bench.events() == ["gave_up"] * states.count("dead")
    Gate.open_all()
    for number in range(3, 6):

        async def completed(number: int = number) -> bool:
            advance(bench, 31)
            return (await bench.job(number)).state == "completed"

        await until(completed)
