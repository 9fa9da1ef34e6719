"""The worker: what becomes of a job that succeeds, fails, hangs, lies, is taken away, or is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.stores import Database
from support.workbench import DEADLINE_SECONDS, Bench, Gate, bench_on, until

from edgeq.clock import Clock
from edgeq.errors import EdgeqError, StoreError
from edgeq.events import from_json
from edgeq.jobs.attempts import Attempts
from edgeq.jobs.context import JobContext
from edgeq.jobs.ends import Ending
from edgeq.jobs.job import Job, definition, registry
from edgeq.jobs.threads import Threads
from edgeq.store import claims, events, jobs
from edgeq.store.jobs import NewJob, StoredJob
from edgeq.testing import FakeClock


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


# Jobs that succeed


class Answer(Job):
    text: str

    async def handle(self, ctx: JobContext) -> Any:
        ctx.emit("answered", data={"attempt": ctx.job.attempt, "id": ctx.job.id})
        ctx.dispatch(Follow())
        return from_json(self.text)


class AnswerInThread(Answer):
    def handle(self, ctx: JobContext) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        ctx.emit("answered", data={})
        return from_json(self.text)


class AnswerThroughWrapper(Answer):
    def handle(self, ctx: JobContext) -> Any:
        return super().handle(ctx)


class Follow(Job):
    queue = "later"

    def handle(self, ctx: JobContext) -> None: ...


@pytest.mark.parametrize("kind", [Answer, AnswerInThread, AnswerThroughWrapper])
@pytest.mark.parametrize("text", ['{"valve":"closed"}', "0", '""', "[]", "false", "null"])
async def test_what_a_handler_returns_is_stored(bench: Bench, kind: type[Answer], text: str) -> None:
    await bench.work()
    await bench.dispatch(kind(text=text))
    job = await bench.until_state("completed")
    assert (job.result, job.attempt, job.lease_owner) == (text, 1, None)
    await bench.counted({"completed": 1})


async def test_what_a_handler_records_is_committed_with_its_completion(bench: Bench) -> None:
    await bench.work()
    job = Answer(text="1").new_job(now=bench.clock.now(), cause_id=77)
    await bench.dispatch(job)
    await bench.until_state("completed")
    [event] = await events.after(bench.store, 0, 10)
    assert (event.type, event.data, event.cause_id) == ("answered", {"attempt": 1, "id": 1}, 77)
    follow = await bench.job(2)
    assert (follow.kind, follow.cause_id) == (definition(Follow).kind, 77)
    await until(lambda: bench.metrics.events.total() == 1)


async def test_a_worker_runs_its_own_queue(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(Follow(), Answer(text="1"))
    await bench.until_state("completed", 2)
    assert (await bench.job(1)).state == "available"
    await bench.work("later")
    await bench.until_state("completed", 1)


class Hold(Job):
    number: int = 0

    async def handle(self, ctx: JobContext) -> int:
        ctx.emit("held")
        await Gate.wait(self.number)
        return self.number


async def test_no_more_run_at_once_than_there_is_room_for_and_they_are_claimed_in_one_commit(bench: Bench) -> None:
    await bench.dispatch(*(Hold(number=number) for number in range(5)))
    commits = bench.metrics.commits.total()
    worker = await bench.work(concurrency=3)
    await until(lambda: len(Gate.entered) == 3)
    bench.wake()
    assert bench.metrics.commits.total() == commits + 1
    assert ([job.id for job in worker.running], worker.free) == ([1, 2, 3], 0)
    Gate.open_all()
    await bench.until_state("completed", 5)
    assert Gate.entered == [0, 1, 2, 3, 4]


async def test_an_idle_worker_writes_nothing(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(Answer(text="1"), after=3600)
    written = bench.database.written()
    commits = bench.metrics.commits.total()
    for number in range(5):
        bench.wake()
        await until(lambda number=number: bench.metrics.commits.total() > commits + number)
    assert bench.database.written() == written


async def test_a_delayed_job_begins_at_its_time(live: Bench) -> None:
    await live.work()
    await live.dispatch(Answer(text="1"), after=0.2)
    job = await live.until_state("completed")
    assert job.finished_at is not None
    assert job.finished_at >= job.run_at


# Jobs that fail


class Flaky(Job):
    backoff = "10s..60s"
    max_attempts = 3
    until: int

    async def handle(self, ctx: JobContext) -> int:
        ctx.emit("tried")
        if ctx.job.attempt < self.until:
            raise ValueError(f"attempt {ctx.job.attempt}\nof {ctx.job.max_attempts}")
        return ctx.job.attempt


async def test_a_failed_job_is_tried_again_after_its_backoff(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    await bench.work()
    await bench.dispatch(Flaky(until=3))
    for attempt, wait in ((1, 10), (2, 20)):
        job = await bench.until_state("retryable", attempt=attempt)
        assert wait * 0.85 <= (job.run_at - bench.clock.now()) / 1e6 <= wait * 1.15
        assert (job.error or "").startswith(f"ValueError: attempt {attempt}\n")
        assert "in handle" in (job.error or "")
        assert "edgeq/jobs" not in (job.error or "")
        bench.clock.advance(wait / 2)
        bench.wake()
        await asyncio.sleep(0.02)
        assert (await bench.job()).state == "retryable"
        bench.clock.advance(wait)
        bench.wake()
    job = await bench.until_state("completed")
    assert (job.result, job.error) == ("3", None)
    assert await bench.events() == ["tried"], "what a failed attempt recorded is dropped"
    await bench.counted({"retried": 2, "completed": 1})


class Hopeless(Job):
    max_attempts = 2
    backoff = "1ms"

    async def handle(self, ctx: JobContext) -> None:
        ctx.emit("tried")
        raise ValueError("no")

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up", data={"error": repr(error), "attempt": ctx.job.attempt})


class HopelessInThread(Hopeless):
    def failed(self, ctx: JobContext, error: BaseException) -> None:  # type: ignore[override]
        ctx.emit("gave_up", data={"error": repr(error), "attempt": ctx.job.attempt})


@pytest.mark.parametrize("kind", [Hopeless, HopelessInThread])
async def test_after_its_last_attempt_a_job_has_its_last_words_and_is_dead(live: Bench, kind: type[Job]) -> None:
    await live.work()
    await live.dispatch(kind())
    job = await live.until_state("dead")
    assert (job.attempt, (job.error or "").partition("\n")[0]) == (2, "ValueError: no")
    [event] = await events.after(live.store, 0, 10)
    assert (event.type, event.data) == ("gave_up", {"error": "ValueError('no')", "attempt": 2})
    assert await live.letters() == [("failed", job.error)]
    await until(lambda: live.metrics.dead_letters.values == {"job:default": 1})
    await live.counted({"retried": 1, "dead": 1})


class Raising(Job):
    max_attempts = 1
    what: str

    async def handle(self, ctx: JobContext) -> None:
        if self.what == "StopIteration":
            next(iter(()))
        if self.what == "SystemExit":
            sys.exit(3)
        if self.what == "KeyboardInterrupt":
            raise KeyboardInterrupt
        if self.what == "CancelledError":
            raise asyncio.CancelledError
        if self.what == "TimeoutError":
            raise TimeoutError("mine")
        if self.what == "Unprintable":
            raise Unprintable
        if self.what == "UnprintableError":
            raise UnprintableError("no")
        if self.what == "surrogate":
            raise ValueError("\udcff\0")
        if self.what == "long":
            raise ValueError("x" * 1_000_000)
        if self.what == "deep":
            await self.handle(ctx)

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        await self.handle(ctx)


class RaisingInThread(Raising):
    def handle(self, ctx: JobContext) -> None:  # type: ignore[override]
        with contextlib.suppress(StopIteration):
            Raising.handle(self, ctx).send(None)
            return
        next(iter(()))

    def failed(self, ctx: JobContext, error: BaseException) -> None:  # type: ignore[override]
        self.handle(ctx)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class UnprintableError(EdgeqError):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize("kind", [Raising, RaisingInThread])
@pytest.mark.parametrize(
    "what",
    [
        "StopIteration", "SystemExit", "KeyboardInterrupt", "CancelledError", "TimeoutError", "Unprintable",
        "UnprintableError", "surrogate", "long", "deep",
    ],
)  # fmt: skip
async def test_nothing_that_a_handler_raises_ends_the_worker(bench: Bench, kind: type[Raising], what: str) -> None:
    worker = await bench.work()
    await bench.dispatch(kind(what=what), Answer(text="1"))
    await bench.until_state("completed", 2)
    job = await bench.until_state("dead")
    assert worker.crashes == 0
    assert [reason for reason, _ in await bench.letters()] == ["failed"]
    assert 0 < len(job.error or "") < 20_000
    assert what not in ("SystemExit", "CancelledError") or f"the job raised {what}" in (job.error or "")


class Slow(Job):
    timeout = "50ms"
    max_attempts = 1

    async def handle(self, ctx: JobContext) -> None:
        ctx.emit("began")
        await Gate.wait(1)


class SlowLastWords(Slow):
    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up")
        await Gate.wait(2)


async def test_an_async_handler_is_cancelled_at_its_timeout(live: Bench) -> None:
    await live.work()
    await live.dispatch(Slow())
    job = await live.until_state("dead")
    assert Gate.cancelled == [1]
    assert (job.error or "").startswith("took longer than 50ms\n")
    assert "in handle" in (job.error or "")
    assert "edgeq/jobs" not in (job.error or "")
    assert [reason for reason, _ in await live.letters()] == ["timeout"]
    assert await live.events() == []


async def test_last_words_have_a_timeout_too(live: Bench) -> None:
    await live.work()
    await live.dispatch(SlowLastWords())
    await live.until_state("dead")
    assert Gate.cancelled == [1, 2]
    assert await live.events() == []


class SlowThread(Job):
    timeout = "50ms"
    backoff = "1h"

    def handle(self, ctx: JobContext) -> None:
        Gate.wait_in_thread(1)
        ctx.emit("too_late")


async def test_a_thread_that_outlives_its_timeout_takes_up_room_until_it_returns(live: Bench) -> None:
    worker = await live.work(concurrency=1)
    await live.dispatch(SlowThread(), Answer(text="1"))
    await live.until_state("retryable")
    await until(lambda: worker.overdue == 1)
    assert (worker.running, worker.free) == ([], 0)
    live.wake()
    await asyncio.sleep(0.05)
    assert (await live.job(2)).state == "available"
    Gate.open_all()
    await live.until_state("completed", 2)
    assert worker.overdue == 0
    assert await live.events() == ["answered"]


# Jobs that can't be run


@pytest.mark.parametrize(
    ("kind", "args", "reason", "word"),
    [
        ("os:system", '{"command":"rm"}', "unknown_job", "os:system"),
        ("", "{}", "unknown_job", ""),
        (definition(Answer).kind, '{"text": 5}', "undecodable", "text"),
        (definition(Answer).kind, "{", "undecodable", "Answer"),
        (definition(Answer).kind, "", "undecodable", "Answer"),
    ],
)
async def test_what_can_not_be_run_is_kept_as_dead(bench: Bench, kind: str, args: str, reason: str, word: str) -> None:
    await bench.work()
    now = bench.clock.now()
    await bench.dispatch(NewJob(queue="default", kind=kind, args=args, run_at=now, created_at=now))
    job = await bench.until_state("dead")
    assert (job.attempt, job.args) == (1, args)
    [(found, error)] = await bench.letters()
    assert (found, word in error) == (reason, True)


class BadResult(Job):
    what: str

    async def handle(self, ctx: JobContext) -> object:
        ctx.emit("did_it")
        return {"object": object(), "large": "x" * 256 * 1024, "surrogate": "\udcff", "key": {(1, 2): 3}}[self.what]

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        ctx.emit("gave_up")


@pytest.mark.parametrize("what", ["object", "large", "surrogate", "key"])
async def test_a_result_that_can_not_be_stored_makes_the_job_dead_at_once(bench: Bench, what: str) -> None:
    await bench.work()
    await bench.dispatch(BadResult(what=what))
    job = await bench.until_state("dead")
    assert (job.attempt, job.result) == (1, None)
    [(reason, error)] = await bench.letters()
    assert reason == "bad_result"
    assert "handle() returned" in error
    assert await bench.events() == ["gave_up"]


class Poison(Job):
    max_attempts = 2
    backoff = "1ms"

    async def handle(self, ctx: JobContext) -> None:
        ctx.emit("first")
        now = ctx.now
        ctx.decisions.jobs.append(NewJob(queue="q", kind="k", args="\udcff", run_at=now, created_at=now))

    async def failed(self, ctx: JobContext, error: BaseException) -> None:
        await self.handle(ctx)


async def test_a_handler_whose_records_can_not_be_stored_has_failed(live: Bench) -> None:
    worker = await live.work()
    await live.dispatch(Poison(), Answer(text="1"))
    job = await live.until_state("dead")
    assert job.attempt == 2
    assert "surrogates" in (job.error or "")
    await live.until_state("completed", 2)
    assert await live.events() == ["answered"]
    assert worker.crashes == 0


# Leases


async def take_over(bench: Bench, job_id: int) -> None:
    """What another worker does with a job whose lease it believes to be over."""

    def unit(tx: Any) -> None:
        now = bench.clock.now() + 100_000_000
        claims.rescue(tx, queue="default", lease_seconds=60, limit=10, now=now)
        [job] = claims.claim(tx, queue="default", owner="other", lease_seconds=60, limit=1, now=now)
        assert job.id == job_id

    await bench.store.write(unit)


async def test_a_worker_that_lost_its_lease_can_not_complete_the_job(bench: Bench) -> None:
    worker = await bench.work(concurrency=1)
    await bench.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    await take_over(bench, 1)
    Gate.open_all()
    await until(lambda: not worker.running)
    job = await bench.job()
    assert (job.state, job.lease_owner, job.result, job.attempt) == ("executing", "other", None, 2)
    assert await bench.events() == []
    await bench.counted({"lease_lost": 1})


async def test_a_heartbeat_extends_the_lease_and_notices_that_it_is_lost(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    worker = await bench.work(concurrency=1)
    await bench.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    bench.clock.advance(20)
    bench.wake()
    expires = bench.clock.now() + 60_000_000

    async def extended() -> bool:
        return (await bench.job()).lease_expires_at == expires

    await until(extended)
    await take_over(bench, 1)
    bench.clock.advance(20)
    bench.wake()
    await until(lambda: not worker.running)
    assert Gate.cancelled == [0]
    assert (await bench.job()).lease_owner == "other"
    await bench.counted({"lease_lost": 1})


async def test_a_running_job_that_is_cancelled_is_stopped_at_once(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(Hold(), Hold(number=1))
    await until(lambda: Gate.entered == [0, 1])
    await bench.store.write(lambda tx: jobs.cancel(tx, [1], bench.clock.now()))
    await bench.counted({"cancelled": 1})
    assert ([job.id for job in worker.running], Gate.cancelled) == ([2], [0])
    assert (await bench.job()).state == "cancelled"
    Gate.open_all()
    await bench.until_state("completed", 2)


async def test_a_claim_that_is_found_lost_twice_counts_once(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    [attempt] = worker._attempts.running
    await take_over(bench, 1)
    for _ in range(2):
        worker._losses.note([attempt])
    await bench.counted({"lease_lost": 1})
    await until(lambda: not worker.running)
    assert bench.metrics.jobs.values == {"lease_lost": 1}


async def test_a_running_job_that_another_process_cancels_is_stopped(bench: Bench) -> None:
    await bench.work()
    await bench.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    async with bench.database.opened(clock=bench.clock, beside=True) as other:
        await other.write(lambda tx: jobs.cancel(tx, [1], bench.clock.now()))
    await bench.counted({"cancelled": 1})
    assert Gate.cancelled == [0]


async def test_what_a_cancelled_job_makes_of_it_in_a_thread_is_void(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(HoldThread())
    await until(lambda: Gate.entered == [2])
    await bench.store.write(lambda tx: jobs.cancel(tx, [1], bench.clock.now()))
    await until(lambda: not worker.running)
    assert worker.overdue == 1
    Gate.open_all()
    await until(lambda: not worker.overdue)
    assert (await bench.job()).state == "cancelled"
    await bench.counted({"cancelled": 1})


async def test_a_step_of_the_clock_takes_no_job_from_its_worker(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    await bench.work(concurrency=2)
    await bench.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    for step in (10 * 365 * 86400, -20 * 365 * 86400):
        bench.clock.step(step)
        bench.wake()
        expires = bench.clock.now() + 60_000_000

        async def extended(expires: int = expires) -> bool:
            return (await bench.job()).lease_expires_at == expires

        await until(extended)
    Gate.open_all()
    await bench.until_state("completed")
    assert Gate.entered == [0]
    await bench.counted({"completed": 1})


async def test_a_clock_that_is_set_forward_leaves_other_workers_the_time_to_extend_their_leases(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    await bench.dispatch(Answer(text="1"))
    now = bench.clock.now()
    await bench.store.write(
        lambda tx: claims.claim(tx, queue="default", owner="other", lease_seconds=60, limit=1, now=now)
    )
    worker = await bench.work()
    await until(lambda: worker.idle)
    bench.clock.step(3600)
    await bench.dispatch(Answer(text="2"))
    await bench.until_state("completed", 2)
    assert (await bench.job()).state == "executing"
    bench.clock.advance(60)
    bench.wake()
    await bench.until_state("completed", 1)


async def test_a_job_that_a_crashed_worker_left_runs_again_after_its_lease(live: Bench) -> None:
    await live.dispatch(Answer(text="1"))
    await live.store.write(
        lambda tx: claims.claim(tx, queue="default", owner="crashed", lease_seconds=0.4, limit=1, now=live.clock.now())
    )
    await live.work(lease=0.4)
    job = await live.until_state("completed")
    assert job.attempt == 2
    await live.counted({"rescued": 1, "completed": 1})


async def test_a_job_that_kills_its_worker_every_time_is_dead_in_the_end(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    await bench.dispatch(Hopeless())

    def attempted(tx: Any) -> list[StoredJob]:
        now = bench.clock.now()
        claims.rescue(tx, queue="default", lease_seconds=60, limit=9, now=now)
        return claims.claim(tx, queue="default", owner="crashed", lease_seconds=60, limit=1, now=now)

    for attempt in (1, 2):
        [job] = await bench.store.write(attempted)
        assert job.attempt == attempt
        bench.clock.advance(61)
    await bench.work()
    job = await bench.until_state("dead")
    assert (job.attempt, [reason for reason, _ in await bench.letters()]) == (2, ["lease_expired"])
    await until(lambda: bench.metrics.dead_letters.values == {"job:default": 1})
    await bench.counted({"rescued": 1})


# The end of the worker


class Stubborn(Job):
    async def handle(self, ctx: JobContext) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await Gate.wait(1)
        await asyncio.shield(Gate._async.wait())


class HoldThread(Job):
    def handle(self, ctx: JobContext) -> None:
        Gate.wait_in_thread(2)


async def test_stopping_lets_what_runs_finish_and_claims_nothing_more(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    stopping = asyncio.create_task(worker.stop(DEADLINE_SECONDS))
    await until(worker.stopping.is_set)
    await bench.dispatch(Hold(number=1))
    await bench.dispatch(Hold(number=2))
    Gate.open_all()
    await stopping
    assert [(await bench.job(id_)).state for id_ in (1, 2, 3)] == ["completed", "available", "available"]
    assert (await bench.job(2)).lease_token is None
    await worker.stop()


async def test_what_does_not_finish_in_time_is_given_back_without_costing_an_attempt(
    live: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.jobs.attempts.CANCEL_SECONDS", 0.1)
    monkeypatch.setattr("edgeq.jobs.worker.RELEASE_SECONDS", DEADLINE_SECONDS)  # the disk may be slow
    worker = await live.work(concurrency=3)
    await live.dispatch(Hold(), Stubborn(), HoldThread())
    await until(lambda: sorted(Gate.entered) == [0, 1, 2])
    await worker.stop(0.05)
    for job_id in (1, 2, 3):
        job = await live.job(job_id)
        assert (job.state, job.attempt, job.lease_owner) == ("available", 0, None)
    await live.counted({"released": 3})
    assert worker.overdue == 2
    Gate.open_all()
    await until(lambda: not worker.running and not worker.overdue)
    assert [(await live.job(id_)).state for id_ in (1, 2, 3)] == ["available"] * 3


async def test_a_job_that_is_given_back_before_it_has_begun_is_never_run() -> None:
    Gate.reset()
    ended: list[Ending] = []
    threads, log = Threads(1), logging.getLogger("edgeq.worker")
    attempts = Attempts(
        threads, registry, Clock(), log, isolated=False, processes=None, timeout_seconds=None, ended=ended.append,
        changed=lambda: None,
    )  # fmt: skip
    fields: dict[str, Any] = {"id": 1, "kind": definition(Hold).kind, "args": "{}", "attempt": 1, "max_attempts": 5}
    attempts.begin(StoredJob(**{**dict.fromkeys(StoredJob.__struct_fields__), **fields}))
    attempts.abandon(list(attempts.running), "released")
    assert [type(ending.end) for ending in ended] == [claims.Released]
    assert not attempts.running
    await asyncio.sleep(0.01)
    assert (Gate.entered, len(ended), attempts.overdue) == ([], 1, set())
    threads.close()


async def test_leases_are_kept_while_the_last_jobs_finish(live: Bench) -> None:
    worker = await live.work(lease=0.6)
    await live.dispatch(Hold())
    await until(lambda: Gate.entered == [0])
    first = (await live.job()).lease_expires_at or 0
    stopping = asyncio.create_task(worker.stop(DEADLINE_SECONDS))

    async def extended() -> bool:
        return ((await live.job()).lease_expires_at or 0) > first + 600_000

    await until(extended)
    Gate.open_all()
    await stopping
    job = await live.job()
    assert (job.state, job.attempt) == ("completed", 1)


async def test_a_store_that_fails_for_a_moment_stops_nothing(live: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claims.claim
    failures = [StoreError("the disk answers with an error")]

    def sometimes(*args: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return claim(*args, **named)

    monkeypatch.setattr(claims, "claim", sometimes)
    worker = await live.work()
    await until(lambda: worker.crashes == 1)
    await live.dispatch(Answer(text="1"))
    await live.until_state("completed")
