"""Schedules whatever the clock is set to, whatever is restarted or killed: no run is lost or done twice, and there is
neither a burst nor a gap."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.programs import of_tests
from support.schedules import DAY, HOUR, MINUTE, NOON, SECOND, Report, cron, hourly, opened, runs, started, times
from support.stores import Database, emptied

from edgeq.clock import Clock
from edgeq.jobs.schedules.rule import Every, Rule
from edgeq.jobs.schedules.schedule import Schedule
from edgeq.jobs.schedules.scheduler import LOOK_SECONDS, Scheduler
from edgeq.store import schedules as table
from edgeq.store.store import Store
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until
from edgeq.units import Duration


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


# The clock


@pytest.mark.parametrize("catch_up", ["skip", "once", "all"])
async def test_a_clock_that_is_set_forward_passes_over_times(store: Store, catch_up: str) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly(catch_up))
    clock.advance(3600)
    await scheduler.look()
    assert await times(store) == ["01-01T13:00"]
    clock.step(86400 * 100 + 1800)
    await scheduler.look()
    assert await times(store) == ([] if catch_up == "skip" else ["04-11T13:00"])
    clock.advance(1800)
    await scheduler.look()
    assert await times(store) == ["04-11T14:00"]


@pytest.mark.parametrize("catch_up", ["skip", "once", "all"])
async def test_a_small_correction_loses_no_run(store: Store, catch_up: str) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly(catch_up))
    clock.advance(3590)
    clock.step(15)
    await scheduler.look()
    assert await times(store) == ["01-01T13:00"]


async def test_a_boot_with_a_clock_from_1970(store: Store) -> None:
    clock = FakeClock()
    daily = Schedule("s", cron("0 2 * * *"), Report(), "all")
    scheduler = await started(store, clock, daily, Schedule("e", Every(Duration(3600)), Report(), "all"))
    clock.advance(86400)  # 2 January, noon
    await scheduler.look()
    await times(store)
    clock.step(-clock.now() / SECOND)
    new = Schedule("new", cron("0 3 * * *"), Report(), "all")
    scheduler = await started(store, clock, daily, Schedule("e", Every(Duration(3600)), Report(), "all"), new)
    rows = {row.name: row.next_run_at for row in await table.every(store)}
    assert rows == {"s": 2 * HOUR, "e": HOUR, "new": 3 * HOUR}
    clock.advance(600)
    clock.step((NOON + DAY + 3 * HOUR) / SECOND - 600)  # and NTP sets it right: 2 January, 15:00
    await scheduler.look()
    assert await times(store) == []  # the run of 2:00 was done before the boot
    rows = {row.name: row.next_run_at for row in await table.every(store)}
    assert rows == {
        "s": NOON + DAY + 14 * HOUR,
        "e": NOON + DAY + 3 * HOUR + 50 * MINUTE,
        "new": NOON + DAY + 15 * HOUR,
    }


async def test_a_clock_that_is_set_back_a_little_repeats_nothing(store: Store) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly())
    clock.advance(3600 + 600)
    await scheduler.look()
    assert await times(store) == ["01-01T13:00"]
    clock.step(-1800)
    await scheduler.look()
    await started(store, clock, hourly())
    clock.advance(3600)
    await scheduler.look()
    assert await times(store) == []
    clock.advance(1200)
    await scheduler.look()
    assert await times(store) == ["01-01T14:00"]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_clock_that_is_set_back_by_days_leaves_no_gap(store: Store, restart: bool) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly(), Schedule("e", Every(Duration(3600)), Report()))
    clock.advance(3600)
    await scheduler.look()
    assert len(await times(store)) == 2
    clock.step(-3 * 86400)
    if restart:
        scheduler = await started(store, clock, hourly(), Schedule("e", Every(Duration(3600)), Report()))
    clock.advance(3600)
    await scheduler.look()
    assert await times(store) == ["12-29T14:00", "12-29T14:00"]


async def test_two_processes_that_both_see_the_clock_set(store: Store) -> None:
    clock = FakeClock()
    schedule = Schedule("e", Every(Duration(3600)), Report())
    one, two = await started(store, clock, schedule), await started(store, clock, schedule)
    clock.advance(600)
    clock.step(1800)
    await one.look()
    await two.look()
    await two.look()
    assert (await table.every(store))[0].next_run_at == clock.now() + 50 * MINUTE


# Any course


class Processes:
    """Two schedulers on one store that go by one wall clock, and the run times that they have dispatched."""

    def __init__(self, store: Store, clock: FakeClock, schedule: Schedule) -> None:
        self.clock = clock
        self.dispatched: list[int] = []
        self._store, self._schedule = store, schedule
        self._schedulers: list[Scheduler] = []

    async def restart(self, number: int) -> None:
        scheduler = Scheduler([self._schedule], self._store, self.clock, Metrics())
        await scheduler.adopt()
        self._schedulers[number : number + 1] = [scheduler]

    async def look(self, *numbers: int) -> list[int]:
        """Have processes look, at the same time; what they have dispatched."""

        async def look(number: int) -> None:
            while await self._schedulers[number].look() == 0:
                pass

        await asyncio.gather(*map(look, set(numbers)))
        keys = [key.removeprefix("s:") for key in await runs(self._store)][len(self.dispatched) :]
        new = [round(datetime.fromisoformat(key).timestamp() * 1000) * 1000 for key in keys]
        self.dispatched += new
        return new

    async def row(self) -> table.StoredSchedule:
        [row] = await table.every(self._store)
        return row


def processes(database: Database, schedule: Schedule, course: Callable[[Processes], Awaitable[None]]) -> None:
    """Run `course` with two fresh processes."""

    async def main() -> None:
        clock = FakeClock()
        async with opened(database, clock) as store:
            await store.write(emptied)
            both = Processes(store, clock, schedule)
            await both.restart(0)
            await both.restart(1)
            await course(both)

    asyncio.run(main())


def rule_times(rule: Rule, begin: int, end: int) -> list[int]:
    found, at = [], rule.first(begin)
    while at <= end:
        found.append(at)
        at = rule.after(at, at)
    return found


LINES = ["*/5 * * * *", "7,11 * * * *"]
PASSING = st.tuples(st.just("pass"), st.sampled_from([1.0, 10.0, 61.0, 299.0, 300.0, 1000.0, 5000.0]))
LOOKING = st.sampled_from([("look", 0), ("look", 1), ("look", 0, 1)])
RESTART = st.sampled_from([("restart", 0), ("restart", 1)])
STEPPING = st.tuples(st.just("step"), st.sampled_from([-90_000.0, -301.0, -200.0, -1.5, 30.0, 299.0, 4000.0, 90_000.0]))
CATCH_UPS = st.sampled_from(["skip", "once", "all"])
Course = list[tuple[Any, ...]]


@given(st.sampled_from(LINES), CATCH_UPS, st.lists(st.one_of(PASSING, PASSING, LOOKING, RESTART), max_size=30))
@settings(max_examples=50)
def test_while_the_clock_is_right_no_run_is_lost_or_done_twice(
    database: Database, line: str, catch_up: str, course: Course
) -> None:
    rule = cron(line)

    async def follow(both: Processes) -> None:
        for what, *which in [*course, ("look", 0)]:
            if what == "pass":
                both.clock.advance(*which)
            elif what == "restart":
                await both.restart(*which)
            else:
                new = await both.look(*which)
                now = both.clock.now()
                due = rule_times(rule, NOON, now)
                in_time = [at for at in due[-1:] if now - at <= MINUTE]
                assert both.dispatched == sorted(set(both.dispatched))
                assert set(both.dispatched) <= set(due)
                assert catch_up == "all" or len(new) <= 1
                if catch_up == "skip":
                    assert set(in_time) <= set(both.dispatched)
                    assert set(new) <= set(in_time)
                else:
                    assert both.dispatched[-1:] == due[-1:]
                if catch_up == "all":
                    assert both.dispatched == due

    processes(database, Schedule("s", rule, Report(), catch_up), follow)


@given(st.lists(st.one_of(PASSING, PASSING, LOOKING, RESTART), max_size=30))
@settings(max_examples=20)
def test_while_the_clock_is_right_no_period_is_lost(database: Database, course: Course) -> None:
    rule = Every(Duration(300))

    async def follow(both: Processes) -> None:
        for what, *which in [*course, ("look", 1)]:
            if what == "pass":
                both.clock.advance(*which)
            elif what == "restart":
                await both.restart(*which)
            else:
                await both.look(*which)
                assert both.dispatched == rule_times(rule, NOON, both.clock.now())

    processes(database, Schedule("s", rule, Report(), "all"), follow)


@given(
    st.sampled_from(LINES),
    CATCH_UPS,
    st.lists(st.one_of(PASSING, PASSING, LOOKING, LOOKING, STEPPING, RESTART), max_size=30),
)
@settings(max_examples=100)
def test_whatever_the_clock_is_set_to_there_is_no_burst_and_no_gap(
    database: Database, line: str, catch_up: str, course: Course
) -> None:
    rule = cron(line)

    async def follow(both: Processes) -> None:
        done: set[int] = set()
        step, looked = [0.0, 0.0], [True, True]  # for each process: by how much the clock was set since it looked
        for what, *which in [*course, ("look", 0)]:
            if what == "pass":
                both.clock.advance(*which)
            elif what == "restart":
                await both.restart(*which)
                step[which[0]] = 0.0
            elif what == "step":
                both.clock.step(*which)
                step, looked = [each + which[0] for each in step], [False, False]
                now, last = both.clock.now(), (await both.row()).last_run_at
                if last is not None and rule.after(now, now) < last:  # set back by more than one run: all begins anew
                    done = {at for at in done if at <= now}
            else:
                new, now, row = await both.look(*which), both.clock.now(), await both.row()
                assert not done & set(new)
                assert len(set(new)) == len(new)
                assert len(new) <= 1 or (catch_up == "all" and not all(step[number] for number in which))
                done |= set(new)
                for number in which:
                    step[number], looked[number] = 0.0, True
                if all(looked):
                    coming = rule.after(now, now)
                    later = rule.after(coming, coming)
                    assert row.next_run_at == (later if coming == row.last_run_at else coming)

    processes(database, Schedule("s", rule, Report(), catch_up), follow)


@given(CATCH_UPS, st.lists(st.tuples(st.integers(0, 400), st.sampled_from([-1e6, -500.0, -30.0, 30.0, 500.0, 1e6]))))
@settings(max_examples=30)
def test_whatever_the_clock_is_set_to_a_period_is_one(
    database: Database, catch_up: str, steps: list[tuple[int, float]]
) -> None:
    async def follow(both: Processes) -> None:
        await both.look(0, 1)
        elapsed: list[float] = [both.clock.monotonic()]
        for number in range(400):
            both.clock.advance(LOOK_SECONDS)
            for at, seconds in steps:
                if at == number:
                    both.clock.step(seconds)
            if await both.look(0, 1):
                elapsed.append(both.clock.monotonic())
        apart = [later - earlier for earlier, later in pairwise(elapsed)]
        assert len(apart) >= 12
        assert all(300 - LOOK_SECONDS <= seconds <= 300 + LOOK_SECONDS for seconds in apart), apart

    processes(database, Schedule("s", Every(Duration(300)), Report(), catch_up), follow)


# Killed

PROGRAM = """
import asyncio, sys
from edgeq import Job
from edgeq.clock import Clock
from edgeq.jobs.schedules.rule import Every
from edgeq.jobs.schedules.schedule import Schedule
from edgeq.jobs.schedules.scheduler import Scheduler
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration
from support.stores import at

class Tick(Job):
    def handle(self, ctx): ...

async def main():
    store = at(sys.argv[1]).store(beside=True)
    await store.open()
    scheduler = Scheduler([Schedule("s", Every(Duration(1)), Tick(), "all")], store, Clock(), Metrics())
    await scheduler.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed_at_any_moment_two_processes_do_each_run_once(database: Database) -> None:
    running: list[subprocess.Popen[str]] = []

    def start() -> None:
        process = subprocess.Popen(**of_tests("-c", PROGRAM, database.where), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        running.append(process)

    async with opened(database, Clock()):
        pass
    try:
        start()
        for _ in range(8):
            start()
            await asyncio.sleep(random.uniform(0.0, 1.1))
            running[0].send_signal(signal.SIGKILL)
            running.pop(0).communicate()
        async with opened(database, Clock()) as store:

            async def enough() -> bool:
                return len(await runs(store)) >= 6

            await until(enough, "six runs", store=store)
            found = await runs(store)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    at = [round(datetime.fromisoformat(key.partition(":")[2]).timestamp() * 1000) for key in found]
    assert at == list(range(at[0], at[0] + 1000 * len(at), 1000))
