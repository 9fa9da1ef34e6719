"""Schedules: read from the configuration, and dispatched once for each run, whatever restarts and whatever the clock
is set to."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeq import Job
from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.errors import Problem
from edgeq.jobs.rule import Cron, Every, Rule, zone
from edgeq.jobs.schedule import RUNS_MAX, Schedule, load_schedules
from edgeq.jobs.scheduler import LOOK_SECONDS, Scheduler
from edgeq.store import schedules as table
from edgeq.store.sqlite import SqliteStore
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until
from edgeq.units import Duration

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = FakeClock().now()


class Report(Job):
    kind: str = "daily"

    def handle(self, ctx: object) -> None: ...


class Alone(Job):
    unique = True

    def handle(self, ctx: object) -> None: ...


def hourly(catch_up: str = "once", name: str = "s") -> Schedule:
    return Schedule(name, cron("0 * * * *"), Report(), catch_up)


def cron(line: str) -> Cron:
    return Cron(line, zone("UTC"), "UTC")


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(path), metrics=Metrics(), clock=clock or FakeClock(), durability="normal")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path / "edgeq.db") as store:
        yield store


async def started(store: SqliteStore, clock: Clock, *schedules: Schedule) -> Scheduler:
    """A scheduler that has just been started, and has looked."""
    scheduler = Scheduler(schedules, store, clock, Metrics())
    await scheduler.adopt()
    await scheduler.look()
    return scheduler


async def runs(store: SqliteStore) -> list[str]:
    """The schedules and run times that were dispatched, in the order of dispatching."""
    found = await store.read(Jobs.select(Jobs.unique_key).order_by(Jobs.id))
    return [key.partition(":")[2] for (key,) in found]


async def times(store: SqliteStore) -> list[str]:
    """The run times that were dispatched since the last call, as month, day, hour and minute."""
    found = [each.partition(":")[2] for each in await runs(store)]
    await store.write(lambda tx: tx.run(Jobs.delete()))
    return [each[5:16] for each in found]


# What is configured


def loaded(tmp_path: Path, text: str, problems: list[Problem]) -> list[Schedule]:
    file = tmp_path / "edgeq.yaml"
    file.write_text("schedules:\n" + text)
    return load_schedules(load(str(file), environ={}), problems)


def test_schedules_are_read(tmp_path: Path) -> None:
    problems: list[Problem] = []
    report, tick = loaded(
        tmp_path,
        f"  - {{name: report, cron: '0 2 * * *', timezone: Europe/Berlin, job: '{__name__}:Report',"
        " args: {kind: weekly}, catch_up: all}\n"
        f"  - {{name: tick, every: 15m, job: '{__name__}:Report'}}\n",
        problems,
    )
    assert problems == []
    assert (report.name, report.catch_up, report.rule.spec) == ("report", "all", "0 2 * * * Europe/Berlin")
    assert (tick.name, tick.catch_up, tick.rule.spec) == ("tick", "once", "every 15m")
    new = report.new_job(NOON - HOUR, NOON)
    assert (new.kind, new.args, new.run_at) == (f"{__name__}:Report", '{"kind":"weekly"}', NOON)
    assert new.unique_key == "schedule:report:2026-01-01T11:00:00.000Z"


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("cron: '0 0 30 2 *'", "cron", "never comes"),
        ("cron: '0 2 * *'", "cron", "five fields"),
        ("cron: '0 2 * * *', timezone: Europe/Berln", "timezone", "did you mean 'Europe/Berlin'"),
        ("every: 1m, job: 'edgeq:Report'", "job", "edgeq has no 'Report'"),
        (f"every: 1m, job: '{__name__}:Job'", "job", "isn't a job"),
        ("every: 1m, args: {kind: 3}", "args", "kind: Expected `str`, got `int`"),
        ("every: 1m, args: {knd: daily}", "args", "did you mean 'kind'"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, line: str, key: str, message: str) -> None:
    problems: list[Problem] = []
    job = "" if "job:" in line else f"job: '{__name__}:Report', "
    assert loaded(tmp_path, f"  - {{name: s, {job}{line}}}\n", problems) == []
    assert [problem.path for problem in problems] == [f"schedules[0].{key}"]
    assert message in problems[0].message
    assert problems[0].where.endswith("edgeq.yaml:2")


def test_names_are_unique_and_not_endless(tmp_path: Path) -> None:
    problems: list[Problem] = []
    line = f"every: 1m, job: '{__name__}:Report'}}\n"
    found = loaded(tmp_path, f"  - {{name: s, {line}  - {{name: s, {line}  - {{name: {'x' * 201}, {line}", problems)
    assert [schedule.name for schedule in found] == ["s"]
    assert [(problem.path, problem.message, problem.hint.rpartition("/")[2]) for problem in problems] == [
        ("schedules[1].name", "there is another schedule 's'", "edgeq.yaml:2"),
        ("schedules[2].name", "must be at most 200 characters", ""),
    ]


def test_the_zone_of_the_machine_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    problems: list[Problem] = []
    line = f"  - {{name: s, cron: '0 2 * * *', job: '{__name__}:Report'}}\n"
    assert loaded(tmp_path, line, problems)[0].rule.spec == "0 2 * * * Asia/Tokyo"
    monkeypatch.setenv("TZ", "XYZ-3:14")
    assert loaded(tmp_path, line, problems) == []
    assert problems[0].path == "schedules[0].timezone"
    assert "TZ" not in problems[0].message or "machine" in problems[0].message


def test_the_key_of_a_class_stays() -> None:
    new = Schedule("s", cron("0 * * * *"), Alone()).new_job(NOON, NOON)
    assert new.unique_key is not None
    assert "schedule" not in new.unique_key


# The ordinary course


async def test_a_schedule_runs_at_its_times(store: SqliteStore) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly(), Schedule("e", Every(Duration(5400)), Report()))
    assert await runs(store) == []
    assert await scheduler.look() == LOOK_SECONDS
    clock.advance(3599)
    assert await scheduler.look() == 1.0
    clock.advance(1)
    await scheduler.look()
    assert await runs(store) == ["s:2026-01-01T13:00:00.000Z"]
    await scheduler.look()
    clock.advance(1800)
    await scheduler.look()
    assert (await runs(store))[1:] == ["e:2026-01-01T13:30:00.000Z"]
    clock.advance(3600)
    await scheduler.look()
    assert (await runs(store))[2:] == ["s:2026-01-01T14:00:00.000Z"]
    [e, s] = await table.every(store)
    assert (e.last_run_at, e.next_run_at) == (NOON + 90 * MINUTE, NOON + 180 * MINUTE)
    assert (s.last_run_at, s.next_run_at) == (NOON + 2 * HOUR, NOON + 3 * HOUR)
    rows = await store.read(Jobs.select(Jobs.state, Jobs.run_at, Jobs.args).order_by(Jobs.id.desc()).limit(1))
    assert rows == [("available", clock.now(), '{"kind":"daily"}')]
    assert scheduler._metrics.schedule_runs.values == {"dispatched": 3}


async def test_what_is_not_due_writes_nothing(store: SqliteStore) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly())
    before = Path(f"{store.path}-wal").stat().st_mtime_ns  # noqa: ASYNC240
    for _ in range(20):
        clock.advance(LOOK_SECONDS)
        await scheduler.look()
    await started(store, clock, hourly())  # nor does a restart
    assert Path(f"{store.path}-wal").stat().st_mtime_ns == before  # noqa: ASYNC240


async def test_a_rule_that_changed_begins_anew_and_one_that_is_gone_is_forgotten(store: SqliteStore) -> None:
    clock = FakeClock()
    first = await started(store, clock, hourly(), hourly(name="gone"))
    clock.advance(3600)
    await first.look()
    await started(store, clock, Schedule("s", cron("30 * * * *"), Report()))
    [row] = await table.every(store)
    assert (row.name, row.last_run_at, row.next_run_at) == ("s", NOON + HOUR, NOON + 90 * MINUTE)
    await started(store, clock)
    assert await table.every(store) == []
    clock.advance(3600)
    await started(store, clock, hourly())
    assert len(await runs(store)) == 2  # of 13:00, once each


async def test_one_that_goes_by_an_older_rule_stands_back(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    old = await started(store, clock, hourly(), hourly(name="removed"))
    new = await started(store, clock, Schedule("s", cron("30 * * * *"), Report()))
    clock.advance(3600)
    await old.look()
    await new.look()
    await old.look()
    assert await runs(store) == ["s:2026-01-01T12:30:00.000Z"]
    assert caplog.text.count("this one stands back") == 2


async def test_a_schedule_that_fails_stops_no_other(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Report):
        def new_job(self, **how: object) -> object:  # type: ignore[override]
            if broken:
                raise RuntimeError("not today")
            return super().new_job(**how)  # type: ignore[arg-type]

    broken = [True]
    clock = FakeClock()
    bad = Schedule("bad", cron("0 * * * *"), Broken())
    scheduler = await started(store, clock, bad, hourly(name="good"))
    clock.advance(3600)
    assert 0 < await scheduler.look() < 2.0
    assert await runs(store) == ["good:2026-01-01T13:00:00.000Z"]
    await scheduler.look()
    assert caplog.text.count("bad can't be dispatched") == 1
    broken.clear()
    clock.advance(5)
    await scheduler.look()
    assert (await runs(store))[1:] == ["bad:2026-01-01T13:00:00.000Z"]


async def test_it_runs_by_itself_and_stops_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "edgeq.db", Clock()) as store:
        scheduler = Scheduler([Schedule("s", Every(Duration(1)), Report())], store, Clock(), Metrics())
        none = Scheduler([], store, Clock(), Metrics())
        await scheduler.start()
        await until(lambda: scheduler._metrics.schedule_runs.total() == 2, "two runs", store=store)
        await scheduler.stop(1.0)
        await none.start()
        await none.stop(1.0)
        assert len(set(await runs(store))) == 2
        assert scheduler.last_error is None


# What was missed


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("skip", []), ("once", ["01-01T15:00"]), ("all", ["01-01T13:00", "01-01T14:00", "01-01T15:00"])],
)
async def test_catching_up_after_a_restart(
    store: SqliteStore, catch_up: str, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    await started(store, clock, hourly(catch_up))
    clock.advance(3 * 3600 + 1800)
    scheduler = await started(store, clock, hourly(catch_up))
    assert await times(store) == expected
    assert (await table.every(store))[0].next_run_at == NOON + 4 * HOUR
    assert ("s: runs from 2026-01-01T13:00:00.000Z on were missed" in caplog.text) is (catch_up != "all")
    clock.advance(1800)
    await scheduler.look()
    assert await times(store) == ["01-01T16:00"]


@pytest.mark.parametrize("catch_up", ["skip", "once", "all"])
async def test_a_run_that_is_a_little_late_is_not_missed(store: SqliteStore, catch_up: str) -> None:
    clock = FakeClock()
    await started(store, clock, hourly(catch_up))
    clock.advance(3600 + 59)
    await started(store, clock, hourly(catch_up))
    assert await times(store) == ["01-01T13:00"]


async def test_catching_up_has_an_end(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    schedules = [
        Schedule("c", cron("* 0-22 * * *"), Report(), "all"),
        Schedule("e", Every(Duration(60)), Report(), "all"),
    ]
    await started(store, clock, *schedules)
    clock.advance(40 * 86400)
    await started(store, clock, *schedules)
    found = await runs(store)
    assert len(found) == len(set(found)) == 2 * RUNS_MAX
    assert sorted(found)[0] == "c:2026-02-09T18:21:00.000Z"
    assert sorted(found)[RUNS_MAX - 1 : RUNS_MAX + 1] == ["c:2026-02-10T12:00:00.000Z", "e:2026-02-09T19:21:00.000Z"]
    assert "c: runs from 2026-01-01T12:01:00.000Z on were missed; 1000 dispatched" in caplog.text


async def test_a_period_counts_from_a_run_that_was_made_up_for(store: SqliteStore) -> None:
    clock = FakeClock()
    schedule = Schedule("e", Every(Duration(3600)), Report())
    await started(store, clock, schedule)
    clock.advance(2.9 * 3600)
    await started(store, clock, schedule)
    assert await times(store) == ["01-01T14:00"]
    assert (await table.every(store))[0].next_run_at == clock.now() + HOUR


# The clock


@pytest.mark.parametrize("catch_up", ["skip", "once", "all"])
async def test_a_clock_that_is_set_forward_passes_over_times(store: SqliteStore, catch_up: str) -> None:
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
async def test_a_small_correction_loses_no_run(store: SqliteStore, catch_up: str) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly(catch_up))
    clock.advance(3590)
    clock.step(15)
    await scheduler.look()
    assert await times(store) == ["01-01T13:00"]


async def test_a_boot_with_a_clock_from_1970(store: SqliteStore) -> None:
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


async def test_a_clock_that_is_set_back_a_little_repeats_nothing(store: SqliteStore) -> None:
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
async def test_a_clock_that_is_set_back_by_days_leaves_no_gap(store: SqliteStore, restart: bool) -> None:
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


async def test_two_processes_that_both_see_the_clock_set(store: SqliteStore) -> None:
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

    def __init__(self, store: SqliteStore, clock: FakeClock, schedule: Schedule) -> None:
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


def processes(schedule: Schedule, course: Callable[[Processes], Awaitable[None]]) -> None:
    """Run `course` with two fresh processes."""

    async def main(folder: str) -> None:
        clock = FakeClock()
        async with opened(Path(folder) / "edgeq.db", clock) as store:
            both = Processes(store, clock, schedule)
            await both.restart(0)
            await both.restart(1)
            await course(both)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))


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
@settings(max_examples=50, deadline=None)
def test_while_the_clock_is_right_no_run_is_lost_or_done_twice(line: str, catch_up: str, course: Course) -> None:
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

    processes(Schedule("s", rule, Report(), catch_up), follow)


@given(st.lists(st.one_of(PASSING, PASSING, LOOKING, RESTART), max_size=30))
@settings(max_examples=20, deadline=None)
def test_while_the_clock_is_right_no_period_is_lost(course: Course) -> None:
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

    processes(Schedule("s", rule, Report(), "all"), follow)


@given(
    st.sampled_from(LINES),
    CATCH_UPS,
    st.lists(st.one_of(PASSING, PASSING, LOOKING, LOOKING, STEPPING, RESTART), max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_clock_is_set_to_there_is_no_burst_and_no_gap(line: str, catch_up: str, course: Course) -> None:
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

    processes(Schedule("s", rule, Report(), catch_up), follow)


@given(CATCH_UPS, st.lists(st.tuples(st.integers(0, 400), st.sampled_from([-1e6, -500.0, -30.0, 30.0, 500.0, 1e6]))))
@settings(max_examples=30, deadline=None)
def test_whatever_the_clock_is_set_to_a_period_is_one(catch_up: str, steps: list[tuple[int, float]]) -> None:
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

    processes(Schedule("s", Every(Duration(300)), Report(), catch_up), follow)


# Killed

PROGRAM = """
import asyncio, sys
from edgeq import Job
from edgeq.clock import Clock
from edgeq.jobs.rule import Every
from edgeq.jobs.schedule import Schedule
from edgeq.jobs.scheduler import Scheduler
from edgeq.store.sqlite import SqliteStore
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

class Tick(Job):
    def handle(self, ctx): ...

async def main():
    store = SqliteStore(sys.argv[1], metrics=Metrics(), clock=Clock(), exclusive=False)
    await store.open()
    scheduler = Scheduler([Schedule("s", Every(Duration(1)), Tick(), "all")], store, Clock(), Metrics())
    await scheduler.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed_at_any_moment_two_processes_do_each_run_once(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    running: list[subprocess.Popen[str]] = []

    def start() -> None:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        running.append(process)

    async with opened(path, Clock()):
        pass
    try:
        start()
        for _ in range(8):
            start()
            await asyncio.sleep(random.uniform(0.0, 1.1))
            running[0].send_signal(signal.SIGKILL)
            running.pop(0).communicate()
        async with opened(path, Clock()) as store:

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


# The command


def listed(folder: Path, *args: str) -> str:
    command = [sys.executable, "-m", "edgeq.cli.main", "schedules", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


async def test_schedules_are_listed_with_their_times(tmp_path: Path) -> None:
    (tmp_path / "edgeq.yaml").write_text(
        "schedules:\n"
        "  - {name: report, cron: '0 2 * * *', timezone: Europe/Berlin, job: 'app:Report', args: {kind: a}}\n"
        "  - {name: tick, every: 15m, job: 'app:Tick'}\n"
    )
    before = [json.loads(line) for line in listed(tmp_path, "list", "--json").splitlines()]
    assert [(each["name"], each["last_run_at"]) for each in before] == [("report", None), ("tick", None)]
    assert all(each["next_run_at"] > Clock().now() for each in before)
    assert not (tmp_path / "edgeq.db").exists()
    rows = {
        "report": table.StoredSchedule("report", None, NOON + DAY, "0 2 * * * Europe/Berlin"),
        "tick": table.StoredSchedule("tick", None, NOON + DAY, "every 1m"),
    }
    async with opened(tmp_path / "edgeq.db") as store:
        await store.write(lambda tx: table.adopt(tx, rows))
        await store.write(lambda tx: table.move(tx, rows["report"], replace(rows["report"], last_run_at=NOON)))
    header, report, tick = listed(tmp_path).splitlines()
    assert header.split() == ["name", "next", "last", "rule", "job"]
    assert report.split("  ") == [
        "report", "2026-01-02 13:00:00+01:00", "2026-01-01 13:00:00+01:00", "0 2 * * * Europe/Berlin", "app:Report",
    ]  # fmt: skip
    assert "every 15m" in tick
    assert "2026-01-02" not in tick  # it begins anew
    (tmp_path / "edgeq.yaml").write_text("schedules: [{name: s, cron: '0 0 30 2 *', job: 'app:Report'}]\n")
    assert "edgeq.yaml:1: schedules[0].cron: '0 0 30 2 *'" in listed(tmp_path)
    (tmp_path / "edgeq.yaml").write_text("schedules: []\n")
    assert listed(tmp_path) == "no schedules\n"
