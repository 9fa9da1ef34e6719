"""Schedules: read from the configuration, dispatched at their times, made up for when those were missed, and listed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.schedules import DAY, HOUR, MINUTE, NOON, Report, cron, hourly, opened, runs, started, times
from support.stores import Database, SqliteDatabase

from edgeq import Job
from edgeq.clock import Clock
from edgeq.config.load import load
from edgeq.errors import Problem
from edgeq.jobs.schedules.rule import Every
from edgeq.jobs.schedules.schedule import RUNS_MAX, Schedule, load_schedules
from edgeq.jobs.schedules.scheduler import LOOK_SECONDS, Scheduler
from edgeq.store import schedules as table
from edgeq.store.store import Store
from edgeq.store.tables import Jobs
from edgeq.telemetry.metrics import Metrics
from edgeq.testing import FakeClock, until
from edgeq.units import Duration

JOB = "support.schedules:Report"


class Alone(Job):
    unique = True

    def handle(self, ctx: object) -> None: ...


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    async with opened(database) as store:
        yield store


# What is configured


def loaded(tmp_path: Path, text: str, problems: list[Problem]) -> list[Schedule]:
    file = tmp_path / "edgeq.yaml"
    file.write_text("schedules:\n" + text)
    return load_schedules(load(str(file), environ={}), problems)


def test_schedules_are_read(tmp_path: Path) -> None:
    problems: list[Problem] = []
    report, tick = loaded(
        tmp_path,
        f"  - {{name: report, cron: '0 2 * * *', timezone: Europe/Berlin, job: '{JOB}',"
        " args: {kind: weekly}, catch_up: all}\n"
        f"  - {{name: tick, every: 15m, job: '{JOB}'}}\n",
        problems,
    )
    assert problems == []
    assert (report.name, report.catch_up, report.rule.spec) == ("report", "all", "0 2 * * * Europe/Berlin")
    assert (tick.name, tick.catch_up, tick.rule.spec) == ("tick", "once", "every 15m")
    new = report.new_job(NOON - HOUR, NOON)
    assert (new.kind, new.args, new.run_at) == (JOB, '{"kind":"weekly"}', NOON)
    assert new.unique_key == "schedule:report:2026-01-01T11:00:00.000Z"


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("cron: '0 0 30 2 *'", "cron", "never comes"),
        ("cron: '0 2 * *'", "cron", "five fields"),
        ("cron: '0 2 * * *', timezone: Europe/Berln", "timezone", "did you mean 'Europe/Berlin'"),
        ("every: 1m, job: 'edgeq:Report'", "job", "edgeq has no 'Report'"),
        ("every: 1m, job: 'edgeq:Job'", "job", "isn't a job"),
        ("every: 1m, args: {kind: 3}", "args", "kind: Expected `str`, got `int`"),
        ("every: 1m, args: {knd: daily}", "args", "did you mean 'kind'"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, line: str, key: str, message: str) -> None:
    problems: list[Problem] = []
    job = "" if "job:" in line else f"job: '{JOB}', "
    assert loaded(tmp_path, f"  - {{name: s, {job}{line}}}\n", problems) == []
    assert [problem.path for problem in problems] == [f"schedules[0].{key}"]
    assert message in problems[0].message
    assert problems[0].where.endswith("edgeq.yaml:2")


def test_names_are_unique_and_not_endless(tmp_path: Path) -> None:
    problems: list[Problem] = []
    line = f"every: 1m, job: '{JOB}'}}\n"
    found = loaded(tmp_path, f"  - {{name: s, {line}  - {{name: s, {line}  - {{name: {'x' * 201}, {line}", problems)
    assert [schedule.name for schedule in found] == ["s"]
    assert [(problem.path, problem.message, problem.hint.rpartition("/")[2]) for problem in problems] == [
        ("schedules[1].name", "there is another schedule 's'", "edgeq.yaml:2"),
        ("schedules[2].name", "must be at most 200 characters", ""),
    ]


def test_the_zone_of_the_machine_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    problems: list[Problem] = []
    line = f"  - {{name: s, cron: '0 2 * * *', job: '{JOB}'}}\n"
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


async def test_a_schedule_runs_at_its_times(store: Store) -> None:
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


async def test_what_is_not_due_writes_nothing(database: Database, store: Store) -> None:
    clock = FakeClock()
    scheduler = await started(store, clock, hourly())
    before = database.written()
    for _ in range(20):
        clock.advance(LOOK_SECONDS)
        await scheduler.look()
    await started(store, clock, hourly())  # nor does a restart
    assert database.written() == before


async def test_a_rule_that_changed_begins_anew_and_one_that_is_gone_is_forgotten(store: Store) -> None:
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


async def test_one_that_goes_by_an_older_rule_stands_back(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    old = await started(store, clock, hourly(), hourly(name="removed"))
    new = await started(store, clock, Schedule("s", cron("30 * * * *"), Report()))
    clock.advance(3600)
    await old.look()
    await new.look()
    await old.look()
    assert await runs(store) == ["s:2026-01-01T12:30:00.000Z"]
    assert caplog.text.count("this one stands back") == 2


async def test_a_schedule_that_fails_stops_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_it_runs_by_itself_and_stops_at_once(database: Database) -> None:
    async with opened(database, Clock()) as store:
        scheduler = Scheduler([Schedule("s", Every(Duration(1)), Report())], store, Clock(), Metrics())
        none = Scheduler([], store, Clock(), Metrics())
        await scheduler.start()
        await until(lambda: scheduler._metrics.schedule_runs.total() >= 2, "two runs", store=store)
        await scheduler.stop(60.0)
        await none.start()
        await none.stop(1.0)
        found = await runs(store)
        assert len(set(found)) == len(found) == scheduler._metrics.schedule_runs.total()
        assert scheduler.last_error is None


# What was missed


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("skip", []), ("once", ["01-01T15:00"]), ("all", ["01-01T13:00", "01-01T14:00", "01-01T15:00"])],
)
async def test_catching_up_after_a_restart(
    store: Store, catch_up: str, expected: list[str], caplog: pytest.LogCaptureFixture
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
async def test_a_run_that_is_a_little_late_is_not_missed(store: Store, catch_up: str) -> None:
    clock = FakeClock()
    await started(store, clock, hourly(catch_up))
    clock.advance(3600 + 59)
    await started(store, clock, hourly(catch_up))
    assert await times(store) == ["01-01T13:00"]


async def test_catching_up_has_an_end(store: Store, caplog: pytest.LogCaptureFixture) -> None:
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


async def test_a_period_counts_from_a_run_that_was_made_up_for(store: Store) -> None:
    clock = FakeClock()
    schedule = Schedule("e", Every(Duration(3600)), Report())
    await started(store, clock, schedule)
    clock.advance(2.9 * 3600)
    await started(store, clock, schedule)
    assert await times(store) == ["01-01T14:00"]
    assert (await table.every(store))[0].next_run_at == clock.now() + HOUR


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
    now = Clock().now()
    before = [json.loads(line) for line in listed(tmp_path, "list", "--json").splitlines()]
    assert [(each["name"], each["last_run_at"]) for each in before] == [("report", None), ("tick", None)]
    assert all(each["next_run_at"] > now for each in before)
    assert not (tmp_path / "edgeq.db").exists()
    rows = {
        "report": table.StoredSchedule("report", None, NOON + DAY, "0 2 * * * Europe/Berlin"),
        "tick": table.StoredSchedule("tick", None, NOON + DAY, "every 1m"),
    }
    async with opened(SqliteDatabase(tmp_path)) as store:
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
