"""The power is cut while a program dispatches jobs and runs them: what it was told is on disk is there after it.

`edgeq.Queue` says that a job is stored, and reads that it is completed, only when that survives a power cut. See
test_power_cut, which proves that this disk forgets what was not synced.
"""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.power import UNTIL_THE_TEST_ENDS, Disk, NoDiskError

CUTS = int(os.environ.get("POWER_CUTS", "20"))
DEADLINE_SECONDS = 120.0

PROGRAM = """
import asyncio
import edgeq
from edgeq.clock import Clock
from edgeq.config.schema import Queue
from edgeq.jobs.worker import Worker
from edgeq.store import jobs
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics
from edgeq.units import Duration

class Next(edgeq.Job):
    of: int

    async def handle(self, ctx):
        return self.of

class Note(edgeq.Job):
    number: int

    async def handle(self, ctx):
        ctx.emit("noted", data={"of": ctx.job.id})
        ctx.dispatch(Next(of=ctx.job.id))
        return self.number

async def left(store, clock):
    queues = await jobs.counts(store, clock.now())
    return sum(queue[state] for queue in queues for state in jobs.STATES if state not in jobs.FINISHED)

async def main(path, drain):
    clock, metrics = Clock(), Metrics()
    store = SqliteStore(path, metrics=metrics, clock=clock)
    await store.open()
    settings = Queue(concurrency=4, lease=Duration(1))
    worker = Worker("default", settings, store, metrics=metrics, clock=clock, owner="me")
    await worker.start()
    waiting = []
    number = 0
    with edgeq.Queue(path) as queue:
        while not drain:
            number += 1
            waiting.append((await queue.dispatch_async(Note(number=number))).id)
            print("dispatched", waiting[-1], flush=True)
            for job_id in list(waiting):
                if (await queue.get_async(job_id)).state == "completed":
                    print("completed", job_id, flush=True)
                    waiting.remove(job_id)
        while await left(store, clock):  # also those whose leases the cuts have left
            await asyncio.sleep(0.01)
    await worker.stop()
    await store.close()
"""
RUN = "import asyncio, noting, sys; asyncio.run(noting.main(sys.argv[1], sys.argv[2:] == ['drain']))"

pytestmark = pytest.mark.timeout(150 + 15 * CUTS)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        with Disk(tmp_path) as disk:
            yield disk
    except NoDiskError as error:
        pytest.skip(str(error))


def test_after_power_cuts_no_job_is_missing_and_none_is_undone(disk: Disk, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    database = disk.folder / "edgeq.db"
    (tmp_path / "noting.py").write_text(PROGRAM)
    command = [*UNTIL_THE_TEST_ENDS, sys.executable, "-c", RUN, str(database)]
    told: dict[str, set[int]] = {"dispatched": set(), "completed": set()}
    for _ in range(CUTS):
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                lines = list(itertools.islice(process.stdout, chance.randrange(1, 200)))
                time.sleep(chance.uniform(0, 0.005))
                assert process.poll() is None, "the program ended before the cut"
                disk.cut(process.pid)
                lines += process.stdout.read().splitlines(keepends=True)
            finally:
                process.kill()
        disk.unmount()
        disk.mount()
        for line in lines:
            if line.endswith("\n"):
                word, job_id = line.split()
                told[word].add(int(job_id))
        states = dict(rows(database, "SELECT id, state FROM jobs"))
        assert told["dispatched"] <= set(states), "jobs that were dispatched are missing"
        undone = {job_id for job_id in told["completed"] if states[job_id] != "completed"}
        assert not undone, "jobs that were completed are no longer"
    print(f"{CUTS} cuts, {len(told['dispatched'])} jobs, {len(told['completed'])} seen to be completed")
    assert told["completed"]
    subprocess.run([*command, "drain"], cwd=tmp_path, check=True, timeout=DEADLINE_SECONDS)
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
    assert {state for (state,) in rows(database, "SELECT DISTINCT state FROM jobs")} == {"completed"}
    notes = {job_id for (job_id,) in rows(database, "SELECT id FROM jobs WHERE kind = 'noting:Note'")}
    noted = Counter(of for (of,) in rows(database, "SELECT json_extract(data, '$.of') FROM events"))
    following = Counter(
        of for (of,) in rows(database, "SELECT json_extract(args, '$.of') FROM jobs WHERE kind = 'noting:Next'")
    )
    assert noted == following == Counter(notes), "what a job records is there once, with its completion"


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return connection.execute(query).fetchall()
