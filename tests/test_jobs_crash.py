"""Workers killed with SIGKILL, at random and at named places: every job ends completed, or dead with a reason (G7)."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

JOBS = 120
MAX_ATTEMPTS = 3
DEADLINE_SECONDS = 60.0

# Adds the jobs if there are none, says a line for each attempt, and ends when every job has ended.
PROGRAM = """
import asyncio, os, sys
from edgeq import failpoints
from edgeq.clock import Clock
from edgeq.config.schema import Queue
from edgeq.jobs.job import Job
from edgeq.jobs.worker import Worker
from edgeq.store import jobs
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

class Work(Job):
    max_attempts = MAX_ATTEMPTS
    backoff = "10ms"
    number: int

    async def handle(self, ctx):
        print("attempt", flush=True)
        ctx.emit("worked", subject=str(self.number))
        await asyncio.sleep(0.005 + self.number % 7 / 200)
        return self.number

async def main():
    failpoints.arm(os.environ)
    clock, metrics = Clock(), Metrics()
    store = SqliteStore(sys.argv[1], metrics=metrics, clock=clock)
    await store.open()
    if not await jobs.counts(store, clock.now()):
        now = clock.now()
        rows = [Work(number=number).new_job(now=now) for number in range(JOBS)]
        await store.write(lambda tx: jobs.add(tx, rows))
    settings = Queue(concurrency=4, lease=Duration(0.3))
    worker = Worker("default", settings, store, metrics=metrics, clock=clock, owner=str(os.getpid()))
    await worker.start()
    while True:
        [counts] = await jobs.counts(store, clock.now())
        if counts["completed"] + counts["dead"] == JOBS:
            break
        await asyncio.sleep(0.02)
    await worker.stop()
    await store.close()

asyncio.run(main())
"""


def start(path: Path, failpoint: str = "") -> subprocess.Popen[str]:
    program = PROGRAM.replace("MAX_ATTEMPTS", str(MAX_ATTEMPTS)).replace("JOBS", str(JOBS))
    environ = {**os.environ, "EDGEQ_FAILPOINT": failpoint}
    return subprocess.Popen([sys.executable, "-c", program, str(path)], env=environ, stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen[str], attempts: int, seconds: float) -> None:
    assert process.stdout is not None
    for _ in range(attempts):
        if not process.stdout.readline():
            break
    time.sleep(seconds)
    process.kill()
    process.wait()
    process.stdout.close()


def audit(path: Path) -> Counter[str]:
    """Fails unless each job has ended in exactly one way; how often each way."""
    connection = sqlite3.connect(path)

    def rows(query: str) -> list[Any]:
        return connection.execute(query).fetchall()

    try:
        worked = Counter(int(subject) for (subject,) in rows("SELECT subject FROM events WHERE type = 'worked'"))
        letters = dict(rows("SELECT job_id, reason FROM dead_letters"))
        states: Counter[str] = Counter()
        for id_, state, attempt, result in rows("SELECT id, state, attempt, result FROM jobs"):
            number = id_ - 1
            assert 1 <= attempt <= MAX_ATTEMPTS
            if state == "completed":
                assert (result, worked[number], id_ in letters) == (str(number), 1, False)
            else:
                assert (state, worked[number], letters[id_]) == ("dead", 0, "lease_expired")
            states[state] += 1
        assert states.total() == JOBS
        return states
    finally:
        connection.close()


def drain(path: Path) -> None:
    process = start(path)
    try:
        process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0


def test_workers_killed_at_random(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.db"
    dice = random.Random(7)
    for _ in range(6):
        kill_after(start(path), attempts=dice.randint(1, 25), seconds=dice.random() / 50)
    drain(path)
    assert audit(path)["completed"] > JOBS / 2


@pytest.mark.parametrize("failpoint", ["job.claimed:2", "job.handled:5"])
def test_a_worker_killed_between_two_steps(tmp_path: Path, failpoint: str) -> None:
    path = tmp_path / "edgeq.db"
    process = start(path, failpoint)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == -signal.SIGKILL
    drain(path)
    assert audit(path)["completed"] == JOBS
