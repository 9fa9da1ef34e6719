"""What a worker says to the store, one unit at a time, for all that has gathered; and what it needs before that."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support import isolated_jobs
from support.stores import Database
from support.workbench import DEADLINE_SECONDS, Bench, Gate, bench_on, until

from edgeq.backoff import Backoff
from edgeq.clock import Clock
from edgeq.events import from_json
from edgeq.jobs.context import JobContext
from edgeq.jobs.horizon import Horizon
from edgeq.jobs.isolation.pool import ProcessPool
from edgeq.jobs.job import Job
from edgeq.jobs.worker import Overrides, Worker
from edgeq.store import queues
from edgeq.store.claims import Outlook
from edgeq.store.jobs import NewJob
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


class Together(Job):
    """Ends when the gate is opened, with others."""

    number: int
    poison: bool = False
    max_attempts = 1

    async def handle(self, ctx: JobContext) -> int:
        await Gate.wait(self.number)
        ctx.emit("did", subject=str(self.number))
        if self.poison:
            now = ctx.now
            ctx.decisions.jobs.append(NewJob(queue="q", kind="k", args="\udcff", run_at=now, created_at=now))
        return self.number


class Quick(Job):
    async def handle(self, ctx: JobContext) -> int:
        Gate.entered.append(99)
        return 1


def count_submits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    submitted: list[Any] = []
    submit = bench.store.submit

    def counting(unit: Any, **how: Any) -> Any:
        submitted.append(unit)
        return submit(unit, **how)

    monkeypatch.setattr(bench.store, "submit", counting)
    return submitted


async def test_what_ends_together_is_committed_together(bench: Bench) -> None:
    await bench.work(concurrency=50)
    await bench.dispatch(*(Together(number=number) for number in range(120)))
    await until(lambda: len(Gate.entered) == 50)
    commits = bench.metrics.commits.total()
    Gate.open_all()
    await bench.counted({"completed": 120})
    assert bench.metrics.commits.total() - commits < 12
    assert len(await bench.events()) == 120


async def test_of_those_that_end_together_only_the_guilty_one_fails(bench: Bench) -> None:
    worker = await bench.work(concurrency=10)
    await bench.dispatch(*(Together(number=number, poison=number == 4) for number in range(10)))
    await until(lambda: len(Gate.entered) == 10)
    Gate.open_all()
    await bench.counted({"completed": 9, "dead": 1})
    job = await bench.job(5)
    assert job.state == "dead"
    assert "can't be stored" in (job.error or "") or "surrogates" in (job.error or "")
    assert len(await bench.events()) == 9
    assert (worker.crashes, worker.running) == (0, [])


class PoisonOnCall(Together):
    async def handle(self, ctx: JobContext) -> int:
        await Gate.ticks.get()
        now = ctx.now
        ctx.decisions.jobs.append(NewJob(queue="q", kind="k", args="\udcff", run_at=now, created_at=now))
        return 0


async def test_leases_are_extended_though_what_ends_meanwhile_can_not_be_stored(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    await bench.work()
    await bench.dispatch(Together(number=1), PoisonOnCall(number=2))
    await until(lambda: Gate.entered == [1])
    bench.clock.advance(20)
    Gate.ticks.put_nowait(None)
    await bench.until_state("dead", 2)
    expires = bench.clock.now() + 60_000_000

    async def extended() -> bool:
        return (await bench.job(1)).lease_expires_at == expires

    await until(extended)


def test_what_seems_to_be_there_and_can_not_be_claimed_is_looked_for_less_and_less_often() -> None:
    clock = FakeClock()
    horizon = Horizon(clock, lease_seconds=60, net_seconds=30)
    ready = Outlook(ready=True, next_at=None, lease_expires_at=None, paused=False)
    waits = []
    for _ in range(12):
        horizon.note(ready, 1, fruitless=True)
        waits.append(horizon.until_look(1))
    assert waits[0] == 0.0
    assert 0.8 < waits[-1] < 1.2
    assert horizon.until_look(2) == 0.0, "somebody has dispatched"
    horizon.note(ready, 2, fruitless=False)
    assert horizon.until_look(2) == 0.0


async def test_a_dispatched_job_is_claimed_without_a_look_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await bench.work()
    await until(lambda: worker.idle)
    read = bench.store.read

    async def fail(*args: Any) -> Any:
        raise AssertionError("a read would cost time")

    monkeypatch.setattr(bench.store, "read", fail)
    submitted = count_submits(bench, monkeypatch)
    await bench.dispatch(Together(number=1))
    await until(lambda: Gate.entered == [1])
    assert len(submitted) <= 3, "the dispatch, the claim, and perhaps a round for what another process did"
    monkeypatch.setattr(bench.store, "read", read)


async def test_however_often_it_is_woken_one_unit_is_under_way_at_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [await bench.work(queue) for queue in ("one", "two", "three")]
    await until(lambda: all(worker.idle for worker in workers))
    submitted = count_submits(bench, monkeypatch)
    with bench.database.locked():
        for _ in range(100):
            bench.wake()
            await asyncio.sleep(0.001)
        assert len(submitted) == len(workers)
    await until(lambda: all(worker.idle for worker in workers))
    assert len(submitted) <= 3 * len(workers), "all that was missed is one look"


async def test_a_full_disk_makes_ends_wait_and_nothing_is_lost_or_done_twice(
    live: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await live.work(concurrency=3, lease=1.0)
    await live.dispatch(*(Together(number=number) for number in range(6)))
    await until(lambda: len(Gate.entered) == 3)
    submitted = count_submits(live, monkeypatch)
    engine = live.store._engine
    commit = engine.commit

    def fail() -> None:
        raise live.database.full()

    monkeypatch.setattr(engine, "commit", fail)
    Gate.open_all()
    await until(lambda: not live.store.health.ok)
    under_way = len(submitted)  # 0 if the leases were just being extended: then the ends wait for that
    await asyncio.sleep(1.0)  # more than a lease, and several times when it would have been extended
    assert len(submitted) == under_way <= 1
    assert live.metrics.jobs.values == {}, "nothing counts that isn't on disk"
    assert sorted(Gate.entered) == [0, 1, 2], "nothing more is run meanwhile"
    monkeypatch.setattr(engine, "commit", commit)
    await live.counted({"completed": 6})
    assert sorted(Gate.entered) == [0, 1, 2, 3, 4, 5]
    assert len(await live.events()) == 6
    assert worker.crashes == 0


class Limited(Job):
    timeout = "100ms"
    max_attempts = 1

    async def handle(self, ctx: JobContext) -> None:
        await Gate.wait(7)


async def test_time_limits_hold_while_the_store_does_not_answer(live: Bench) -> None:
    await live.work(concurrency=2)
    await live.dispatch(Limited())
    await until(lambda: Gate.entered == [7])
    with live.database.locked():
        live.wake()
        await until(lambda: Gate.cancelled == [7])
    await live.until_state("dead")


async def test_a_job_that_nobody_told_of_is_found_by_the_poll(live: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await live.work(overrides=Overrides(poll_seconds=0.05))
    await until(lambda: worker.idle)
    monkeypatch.setattr(live.store.signal, "fire", lambda topics: None)
    await live.dispatch(Quick())
    await until(lambda: Gate.entered == [99])


async def test_idle_says_whether_there_is_anything_left_to_do_now(bench: Bench) -> None:
    assert isinstance(bench.clock, FakeClock)
    worker = Worker(
        "default", (await bench.work("other")).settings, bench.store, metrics=bench.metrics, clock=bench.clock,
        owner="bench",
    )  # fmt: skip
    bench.workers.append(worker)
    assert not worker.idle, "it hasn't looked yet"
    await bench.dispatch(Quick(), after=60)
    await worker.start()
    await until(lambda: worker.idle)
    bench.clock.advance(60)
    assert not worker.idle, "a job is due by now"
    bench.wake()
    await bench.counted({"completed": 1})
    await until(lambda: worker.idle)
    await bench.dispatch(Together(number=1))
    assert not worker.idle, "whatever that was, it hasn't been looked at yet"
    await until(lambda: Gate.entered == [99, 1])
    assert not worker.idle, "a job runs"
    Gate.open_all()
    await until(lambda: worker.idle)


async def test_a_queue_that_is_paused_while_workers_run_claims_nothing_until_it_is_resumed(bench: Bench) -> None:
    worker = await bench.work()
    await until(lambda: worker.idle)
    await bench.store.write(lambda tx: queues.pause(tx, "default"))
    await bench.dispatch(Quick())
    await until(lambda: worker.idle)
    assert (await bench.job()).state == "available"
    await bench.store.write(lambda tx: queues.resume(tx, "default"))
    await bench.counted({"completed": 1})


async def test_a_second_stop_with_less_patience_is_heeded(bench: Bench) -> None:
    worker = await bench.work()
    await bench.dispatch(Together(number=1))
    await until(lambda: Gate.entered == [1])
    patient = asyncio.create_task(worker.stop(1000.0))
    await until(worker.stopping.is_set)
    await asyncio.sleep(0.01)
    assert (Gate.cancelled, patient.done()) == ([], False)
    await worker.stop(0.0)
    async with asyncio.timeout(60):
        await patient
    job = await bench.job()
    assert (job.state, job.attempt, Gate.cancelled) == ("available", 0, [1])
    await bench.counted({"released": 1})


async def test_what_a_claim_brings_while_the_worker_is_stopped_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await bench.work()
    await until(lambda: worker.idle)
    submitted = count_submits(bench, monkeypatch)
    hold = threading.Event()
    blocked = bench.store.submit(lambda tx: hold.wait(DEADLINE_SECONDS))
    dispatching = asyncio.create_task(bench.dispatch(Quick()))
    await until(lambda: len(submitted) == 2)
    bench.wake()
    await until(lambda: len(submitted) == 3)
    stopping = asyncio.create_task(worker.stop(5.0))
    await until(worker.stopping.is_set)
    hold.set()
    await asyncio.gather(blocked, dispatching, stopping)
    job = await bench.job()
    assert (job.state, job.attempt, job.lease_token, Gate.entered) == ("available", 0, 1, [])


# What a queue's jobs share


MADE: list[str] = []


def make() -> dict[str, int]:
    MADE.append("made")
    if len(MADE) < 3:
        raise ValueError(f"not yet, {len(MADE)}")
    return {"handle": len(MADE)}


async def make_later() -> dict[str, int]:
    await asyncio.sleep(0)
    return make()


class UsesContext(Job):
    async def handle(self, ctx: JobContext) -> Any:
        return ctx.context


@pytest.mark.parametrize("function", ["make", "make_later"])
async def test_a_context_is_made_before_the_first_job_however_often_that_takes(
    live: Bench, function: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    MADE.clear()
    monkeypatch.setattr("edgeq.jobs.queue_context._AGAIN", Backoff(0.01, 0.01))
    await live.dispatch(*(UsesContext() for _ in range(5)))
    worker = await live.work(settings={"context": f"{__name__}:{function}"})
    await live.counted({"completed": 5})
    assert {(await live.job(number)).result for number in range(1, 6)} == {'{"handle":3}'}
    assert [(await live.job(number)).attempt for number in range(1, 6)] == [1] * 5
    assert len([record for record in caplog.records if "ValueError: not yet" in record.getMessage()]) == 2
    assert worker.crashes == 0


SLOW = threading.Event()


def make_slowly() -> str:
    assert SLOW.wait(DEADLINE_SECONDS)
    return "made"


async def test_a_context_that_takes_its_time_is_told_of_and_waited_for(
    live: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    SLOW.clear()
    monkeypatch.setattr("edgeq.jobs.queue_context.SLOW_SECONDS", 0.01)
    await live.dispatch(UsesContext())
    worker = await live.work(settings={"context": f"{__name__}:make_slowly"})
    await until(lambda: worker.stuck)
    assert "make_slowly has not been made for 10ms" in caplog.text
    SLOW.set()
    assert (await live.until_state("completed")).result == '"made"'
    assert not worker.stuck


async def test_a_worker_whose_context_is_never_made_can_be_stopped(live: Bench) -> None:
    await live.dispatch(UsesContext())
    worker = await live.work(settings={"context": "no.such:thing"})
    await asyncio.sleep(0.05)
    await worker.stop(1.0)
    assert (await live.job()).attempt == 0


# Processes


class Pools:
    """Makes real pools, and knows which."""

    def __init__(self, bench: Bench) -> None:
        self.made: list[ProcessPool] = []
        self._clock = bench.clock

    def __call__(self) -> ProcessPool:
        pool = ProcessPool(
            1,
            modules=["support.isolated_jobs"],
            path=os.path.dirname(__file__),
            context=None,
            recycle_after=None,
            memory_max=None,
            clock=self._clock,
            log=logging.getLogger("edgeq.worker"),
        )
        self.made.append(pool)
        return pool


async def test_isolated_jobs_run_in_a_process_that_is_there_only_if_it_is_needed(live: Bench) -> None:
    pools = Pools(live)

    def row(queue: str, job: Job) -> NewJob:
        return job.new_job(now=live.clock.now(), queue=queue)

    plain = await live.work("plain", processes=pools)
    await live.dispatch(row("plain", isolated_jobs.Add(a=1, b=2)))
    assert (await live.until_state("completed")).result == "3"
    assert pools.made == []
    await live.dispatch(row("plain", isolated_jobs.Alone()))
    alone = await live.until_state("completed", 2)
    isolated = await live.work("isolated", processes=pools, settings={"isolation": "process", "processes": 1})
    assert (plain.size, isolated.size) == (2, 1)
    await live.dispatch(row("isolated", isolated_jobs.Pid()))
    other = await live.until_state("completed", 3)
    pids = [pool.pids for pool in pools.made]
    assert pids == [[from_json(alone.result or "")], [from_json(other.result or "")]]
    for worker in (plain, isolated):
        await worker.stop(5.0)
    assert [pool.pids for pool in pools.made] == [[], []]


async def test_without_processes_isolated_jobs_run_here(live: Bench) -> None:
    worker = await live.work(settings={"isolation": "process"})
    await live.dispatch(isolated_jobs.Alone())
    assert (await live.until_state("completed")).result == str(os.getpid())
    assert worker.size == 2


async def test_an_isolated_job_ends_at_its_time_limit_and_has_its_last_words(live: Bench) -> None:
    pools = Pools(live)
    settings = {"isolation": "process"}
    await live.work("short", processes=pools, settings=settings, overrides=Overrides(timeout_seconds=0.5))
    await live.work(processes=pools, settings=settings)  # on a busy machine even a quick job may take longer than that
    now = live.clock.now()
    await live.dispatch(
        isolated_jobs.Hang(how="loop").new_job(now=now, max_attempts=1, queue="short"),
        isolated_jobs.LastWords().new_job(now=now, max_attempts=1),
        isolated_jobs.Everything().new_job(now=now),
    )
    await live.until_state("dead", 1)
    await live.until_state("dead", 2)
    await live.until_state("completed", 3)
    assert sorted(reason for reason, _ in await live.letters()) == ["failed", "timeout"]
    assert sorted(await live.events()) == ["gave.up", "notification", "thing.done"]
    assert from_json((await live.job(3)).progress or "")["fraction"] == 0.75


async def test_an_isolated_job_is_given_back_when_its_worker_is_stopped(live: Bench) -> None:
    pools = Pools(live)
    worker = await live.work(processes=pools, settings={"isolation": "process"})
    await live.dispatch(isolated_jobs.Hang(how="loop"))
    await until(lambda: bool(pools.made and pools.made[0].pids))
    await worker.stop(0.0)
    job = await live.job()
    assert (job.state, job.attempt, pools.made[0].pids) == ("available", 0, [])
