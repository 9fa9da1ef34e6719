"""Several queues in one process: who may claim when not all can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.stores import Database
from support.workbench import Bench, Gate, bench_on, until

from edgeq.clock import Clock
from edgeq.jobs.context import JobContext
from edgeq.jobs.job import Job
from edgeq.jobs.slots import Slots
from edgeq.jobs.worker import Worker


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    """On the machine's clock."""
    async with bench_on(database, Clock()) as bench:
        yield bench


class Hold(Job):
    """Waits for its own gate, so that a test can end jobs one by one."""

    number: int

    async def handle(self, ctx: JobContext) -> None:
        Gate.entered.append(self.number)
        await Gate.ticks.get()


class HoldThread(Job):
    timeout = "50ms"
    max_attempts = 1

    def handle(self, ctx: JobContext) -> None:
        Gate.wait_in_thread(0)


async def workers(bench: Bench, slots: Slots, *, concurrency: int = 4, **priorities: Any) -> dict[str, Worker]:
    return {
        queue: await bench.work(queue, concurrency=concurrency, slots=slots, settings={"priority": priority})
        for queue, priority in priorities.items()
    }


def go_on(jobs: int = 1) -> None:
    for _ in range(jobs):
        Gate.ticks.put_nowait(None)


async def dispatch(bench: Bench, queue: str, *numbers: int) -> None:
    now = bench.clock.now()
    await bench.dispatch(*(Hold(number=number).new_job(now=now, queue=queue) for number in numbers))


async def waits(worker: Worker) -> None:
    """Until the worker has found that it has something to run and no slot."""
    await until(lambda: worker._seat.waiting > 0)


async def test_all_queues_together_run_no_more_than_there_are_slots(bench: Bench) -> None:
    running = await workers(bench, Slots(3), one="normal", two="normal")
    await dispatch(bench, "one", 1, 2, 3, 4)
    await dispatch(bench, "two", 11, 12, 13, 14)
    for ended in range(6):
        await until(lambda ended=ended: len(Gate.entered) >= min(8, 3 + ended))
        assert sum(len(worker.running) for worker in running.values()) <= 3
        go_on()
    go_on(2)
    await until(lambda: not any(worker.running for worker in running.values()))
    assert sorted(Gate.entered) == [1, 2, 3, 4, 11, 12, 13, 14]


async def test_a_free_slot_goes_to_the_queue_of_the_highest_priority_that_has_something_to_run(bench: Bench) -> None:
    running = await workers(bench, Slots(1), low="low", normal="normal", high="high")
    await dispatch(bench, "low", 1, 2)
    await until(lambda: Gate.entered == [1])
    await dispatch(bench, "normal", 11, 12)
    await dispatch(bench, "high", 21, 22)
    await waits(running["normal"])
    await waits(running["high"])
    for count in range(2, 7):
        go_on()
        await until(lambda count=count: len(Gate.entered) == count)
    assert Gate.entered == [1, 21, 22, 11, 12, 2]
    go_on()


class Chain(Job):
    """Has one of a higher queue follow it."""

    async def handle(self, ctx: JobContext) -> None:
        Gate.entered.append(1)
        ctx.dispatch(Hold(number=21), queue="high")


async def test_a_job_of_a_higher_queue_is_not_overtaken_by_who_does_not_know_of_it_yet(bench: Bench) -> None:
    await workers(bench, Slots(1), low="low", high="high")
    now = bench.clock.now()
    await bench.dispatch(Chain().new_job(now=now, queue="low"), Hold(number=2).new_job(now=now, queue="low"))
    for count in (2, 3):
        await until(lambda count=count: len(Gate.entered) == count)
        go_on()
    assert Gate.entered == [1, 21, 2]


async def test_equal_queues_take_turns_however_much_one_of_them_has_to_do(bench: Bench) -> None:
    running = await workers(bench, Slots(1), one=5, two=5)
    await dispatch(bench, "one", *range(1, 7))
    await until(lambda: Gate.entered == [1])
    await dispatch(bench, "two", 11, 12, 13)
    await waits(running["two"])
    for count in range(2, 10):
        go_on()
        await until(lambda count=count: len(Gate.entered) == count)
    assert Gate.entered == [1, 11, 2, 12, 3, 13, 4, 5, 6]
    go_on()


async def test_a_queue_without_jobs_keeps_nobody_waiting(bench: Bench) -> None:
    await workers(bench, Slots(2), low="low", high="high")
    await dispatch(bench, "low", 1, 2, 3)
    await until(lambda: len(Gate.entered) == 2)
    go_on(2)
    await until(lambda: len(Gate.entered) == 3)
    go_on()


async def test_a_worker_that_was_stopped_is_not_waited_for(bench: Bench) -> None:
    running = await workers(bench, Slots(1), low="low", high="high")
    await dispatch(bench, "low", 1, 2)
    await until(lambda: Gate.entered == [1])
    await dispatch(bench, "high", 21)
    await waits(running["high"])
    await running["high"].stop(5.0)
    go_on()
    await until(lambda: Gate.entered == [1, 2])
    go_on()


async def test_code_that_goes_on_after_its_time_keeps_its_slot(bench: Bench) -> None:
    running = await workers(bench, Slots(1), one="normal", two="normal")
    await bench.dispatch(HoldThread().new_job(now=bench.clock.now(), queue="one"))
    await bench.until_state("dead")
    await until(lambda: running["one"].overdue == 1 and Gate.entered == [0])
    await dispatch(bench, "two", 1)
    await asyncio.sleep(0.05)
    assert Gate.entered == [0]
    Gate.open_all()
    await until(lambda: Gate.entered == [0, 1])
    go_on()


async def test_so_many_jobs_are_run_in_all_and_then_it_is_said(bench: Bench) -> None:
    slots = Slots(jobs_max=5)
    running = await workers(bench, slots, one="normal", two="normal")
    await dispatch(bench, "one", 1, 2)
    await until(lambda: len(Gate.entered) == 2)
    await dispatch(bench, "two", *range(11, 19))
    await until(lambda: len(Gate.entered) == 5)
    go_on(4)
    await until(lambda: sum(len(worker.running) for worker in running.values()) == 1)
    assert not slots.spent.is_set()
    go_on(4)
    await asyncio.wait_for(slots.spent.wait(), 60)
    assert bench.metrics.jobs.values == {"completed": 5}
    assert sorted(Gate.entered) == [1, 2, 11, 12, 13]


async def test_who_waits_for_a_slot_costs_nothing(bench: Bench) -> None:
    """Not when something becomes due meanwhile, either."""
    running = await workers(bench, Slots(1), one="normal", two="normal")
    await dispatch(bench, "one", 1)
    await until(lambda: Gate.entered == [1])
    now = bench.clock.now()
    await bench.dispatch(Hold(number=11).new_job(now=now, run_at=now + 50_000, queue="two"))
    await waits(running["two"])
    await until(lambda: all(worker._round is None for worker in running.values()))  # the dispatch has woken both
    commits = bench.metrics.commits.total()
    await asyncio.sleep(0.2)
    assert bench.metrics.commits.total() == commits
    go_on()
    await until(lambda: Gate.entered == [1, 11])
    go_on()
