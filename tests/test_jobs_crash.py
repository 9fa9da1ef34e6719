"""Workers and dispatchers killed with SIGKILL, at random under load and at named places; then one audit.

Every job ends completed, or dead with a reason, and in one way only; what it recorded is there once, its callback is
added and run once; no attempt goes uncounted (G7).
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.appliance import Appliance
from support.job_load import JOBS, Program, Site, audit, dice, numbers_told

ROUNDS = int(os.environ.get("JOB_KILLS", "30"))

pytestmark = pytest.mark.timeout(300 + 10 * ROUNDS)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.kill_all()


def test_killed_at_random_under_load_nothing_is_lost_and_nothing_done_twice(site: Site) -> None:
    """An appliance and a process of workers beside it, each killed again and again."""
    chance = dice()
    start: list[Callable[[], Program]] = [site.run, lambda: site.work("default", "threads")]
    workers = [each() for each in start]
    dispatchers = [site.dispatch_from(1)]
    for number in range(1, ROUNDS + 1):
        victim = chance.randrange(2)
        wanted = chance.randint(1, 25)
        site.until(lambda: attempts_of(site, workers[victim]) >= wanted, "a worker to work")  # noqa: B023
        workers[victim].process.kill()
        if chance.random() < 0.3:
            dispatchers[-1].kill()
            dispatchers.append(site.dispatch_from(10_000 * number))
        workers[victim].process.wait()
        workers[victim] = start[victim]()
    site.until(lambda: attempts_of(site, workers[victim]) >= 1, "the last worker to work")
    dispatchers[-1].kill()
    site.until(site.all_ended, "all jobs to end")
    assert [worker.stop() for worker in workers] == [0, 0]
    told = numbers_told(dispatchers)
    states = audit(site, told)
    print(f"{ROUNDS} kills of workers, {len(dispatchers) - 1} of dispatchers, {len(told)} jobs: {dict(states)}")
    assert states["completed"] > len(told) / 2
    assert states["dead"] > 0


def attempts_of(site: Site, worker: Program) -> int:
    return sum(pid == worker.pid for _, _, _, pid in site.attempts())


@pytest.mark.parametrize("name", ["job.claimed", "job.handled", "job.ended", "job.committed"])
def test_a_worker_killed_between_two_steps(site: Site, name: str) -> None:
    dispatcher = site.dispatch_from(1)
    for count in (1, 7):
        worker = site.work("default", "threads", EDGEQ_FAILPOINT=f"{name}:{count}")
        assert worker.process.wait(120) == -signal.SIGKILL, f"{name}:{count} was not reached:\n{worker.log}"
    dispatcher.kill()
    site.work("default", "threads")
    site.until(site.all_ended, "all jobs to end")
    assert audit(site, numbers_told([dispatcher]))["completed"] > 0


def test_a_worker_that_slept_through_its_lease_can_not_complete_the_job(site: Site) -> None:
    first = site.work("default")
    dispatch(site, "Gate")
    site.until(lambda: site.attempts(), "the first attempt")
    put_to_sleep(site, first)
    second = site.work("default")
    site.until(lambda: len(site.attempts()) == 2, "the second attempt")
    assert [pid for _, _, _, pid in site.attempts()] == [first.pid, second.pid]
    (site.folder / "gate").touch()
    site.until(site.all_ended, "the job to end")
    before = site.sql("SELECT * FROM jobs")
    os.kill(first.pid, signal.SIGCONT)
    site.until(
        lambda: "job 1 (load_jobs:Gate) was taken over" in first.log, "the first worker to see that it has lost the job"
    )
    assert site.sql("SELECT * FROM jobs") == before
    assert site.sql("SELECT state, attempt, result FROM jobs") == [("completed", 2, "2")]
    assert site.sql("SELECT json_extract(data, '$.attempt') FROM events WHERE type = 'through'") == [(2,)]
    assert second.stop() == 0
    dispatch(site, "Gate")  # and it goes on working
    site.until(site.all_ended, "another job to end")
    assert site.sql("SELECT state, attempt, result FROM jobs WHERE id = 2") == [("completed", 1, "1")]
    assert first.stop() == 0


def test_a_process_for_jobs_does_not_outlive_its_killed_worker(site: Site) -> None:
    worker = site.work("isolated")
    dispatch(site, "Unending")
    site.until(lambda: site.attempts(), "the job to begin")
    [(_, _, _, child)] = site.attempts()
    assert child != worker.pid
    worker.kill()
    site.until(lambda: state(child) in ("", "Z"), "the process of the job to end")


SCHEDULED = """\
gateway: site
mqtt: {url: "mqtt://127.0.0.1:1"}
store: {url: edgeq.db}
app: {path: ., modules: [load_jobs]}
schedules:
  - {name: tick, every: 1s, job: "load_jobs:Next", args: {of: 1}, catch_up: all}
"""


@pytest.mark.parametrize("name", ["schedule.decided", "schedule.dispatched"])
def test_a_schedule_killed_between_two_steps_runs_each_time_once(tmp_path: Path, name: str) -> None:
    appliance = Appliance(tmp_path, SCHEDULED)
    (tmp_path / "load_jobs.py").write_text(JOBS)
    try:
        for count in (1, 2):
            process = appliance.spawn(EDGEQ_FAILPOINT=f"{name}:{count}")
            assert process.wait(120) == -signal.SIGKILL, f"{name}:{count} was not reached:\n{appliance.log}"
        process = appliance.spawn()
        appliance.until(lambda: appliance.status().get("pid") == process.pid, "its start")
        enough = "SELECT count(*) FROM jobs WHERE state = 'completed'"
        appliance.until(lambda: appliance.sql(enough) >= [(6,)], "six runs")
        assert appliance.stop() == 0
        keys = [key for (key,) in appliance.sql("SELECT unique_key FROM jobs ORDER BY id")]
        times = [datetime.fromisoformat(key.removeprefix("schedule:tick:")) for key in keys]
        assert times == [times[0] + timedelta(seconds=number) for number in range(len(times))]
    finally:
        appliance.kill()


def put_to_sleep(site: Site, program: Program) -> None:
    """Stop it, but not in the middle of a commit, which would keep everybody else from writing."""
    while True:
        os.kill(program.pid, signal.SIGSTOP)
        site.until(lambda: state(program.pid) == "T", "it to stop")
        with closing(sqlite3.connect(site.folder / "edgeq.db", timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                os.kill(program.pid, signal.SIGCONT)


def state(pid: int) -> str:
    """What the kernel says of a process: T for stopped, Z for one that is dead but not buried, and so on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second: it was buried between the opening and the reading
        return ""


def dispatch(site: Site, name: str) -> None:
    program = f"import edgeq, load_jobs; edgeq.Queue('edgeq.db').dispatch(load_jobs.{name}())"
    subprocess.run([sys.executable, "-c", program], cwd=site.folder, check=True, timeout=120)
