"""A worker whose jobs run in processes of their own: what becomes of their claims."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import isolated_jobs as sample
from support.processes import START_SECONDS, gone, there, written
from support.stores import Database

from edgeq import Job
from edgeq.clock import Clock
from edgeq.config.schema import Queue
from edgeq.jobs.isolation.pool import ProcessPool
from edgeq.jobs.worker import Worker
from edgeq.store import dead_letters, events, jobs
from edgeq.store.jobs import StoredJob
from edgeq.telemetry.metrics import Metrics
from edgeq.testing.notified import notified
from edgeq.testing.waiting import until


class Bench:
    """A store and a worker of the queue `default`."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.store = database.store(metrics=self.metrics, clock=self.clock)
        self.worker: Worker | None = None
        self.pool: ProcessPool | None = None

    async def work(self, settings: Queue) -> Worker:
        def processes() -> ProcessPool:
            self.pool = ProcessPool(
                settings.processes,
                modules=[sample.__name__],
                path=None,
                context=settings.context,
                recycle_after=settings.recycle_after,
                memory_max=settings.memory_max,
                clock=self.clock,
                log=logging.getLogger("edgeq.worker.default"),
            )
            return self.pool

        self.worker = Worker(
            "default", settings, self.store, metrics=self.metrics, clock=self.clock, owner="bench", processes=processes
        )
        await self.worker.start()
        return self.worker

    async def dispatch(self, *made: Job, max_attempts: int = 1) -> list[int]:
        new = [job.new_job(now=self.clock.now(), max_attempts=max_attempts) for job in made]
        return [each.id for each in await self.store.write(lambda tx: jobs.add(tx, new))]

    async def job(self, job_id: int) -> StoredJob:
        job = await jobs.one(self.store, job_id)
        assert job is not None
        return job

    async def ended(self, job_id: int) -> StoredJob:
        async def is_ended() -> bool:
            return (await self.job(job_id)).state in jobs.FINISHED

        await until(is_ended, f"the end of job {job_id}", store=self.store, deadline_seconds=START_SECONDS)
        return await self.job(job_id)


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    made = Bench(database)
    await made.store.open()
    yield made
    if made.worker is not None:
        await made.worker.stop(0.0)
        assert made.pool is None or made.pool.pids == []
    await made.store.close()


async def test_a_job_that_crashes_is_dead_with_its_reason_and_the_others_are_completed(bench: Bench) -> None:
    ids = await bench.dispatch(
        sample.Everything(), sample.Crash(how="null"), sample.Hog(), sample.LastWords(), sample.Add(a=1, b=2)
    )
    await bench.work(Queue(isolation="process", processes=2, memory_max=128 * 2**20))
    ended = [await bench.ended(job_id) for job_id in ids]
    assert [job.state for job in ended] == ["completed", "dead", "dead", "dead", "completed"]
    assert ended[4].result == "3"
    assert ended[0].progress == '{"fraction":0.75,"text":""}'
    letters = {letter.job_id: letter.reason for letter in await dead_letters.find(bench.store, limit=10)}
    assert letters == {ids[1]: "crashed", ids[2]: "memory", ids[3]: "failed"}
    assert "SIGSEGV" in str(ended[1].error)
    recorded = await events.after(bench.store, 0, 10)
    assert sorted(event.type for event in recorded) == ["gave.up", "notification", "thing.done"]
    assert [(each.title, each.channels) for each in notified(recorded)] == [("Look", ("phone",))]
    [later] = [job for job in await jobs.find(bench.store, limit=10) if job.id not in ids]
    assert (later.kind, later.state, later.unique_key) == (f"{sample.__name__}:Add", "scheduled", "u")


async def test_a_crash_counts_as_an_attempt_and_is_tried_again(bench: Bench) -> None:
    [job_id] = await bench.dispatch(sample.Crash(how="exit"), max_attempts=2)
    await bench.work(Queue(isolation="process"))
    job = await bench.ended(job_id)
    assert (job.state, job.attempt) == ("dead", 2)
    assert "its process ended with exit status 7" in str(job.error)


async def test_cancelling_a_job_ends_its_process_and_what_it_started(bench: Bench, tmp_path: Path) -> None:
    [job_id] = await bench.dispatch(sample.Starts(file=str(tmp_path / "pids")))
    await bench.work(Queue(isolation="process"))
    pids = [int(pid) for pid in (await written(tmp_path / "pids")).split()]
    await bench.store.write(lambda tx: jobs.cancel(tx, [job_id], bench.clock.now()))
    for pid in pids:
        await gone(pid)
    assert (await bench.job(job_id)).state == "cancelled"


async def test_a_worker_that_stops_gives_a_job_that_hangs_back_and_kills_its_process(
    bench: Bench, tmp_path: Path
) -> None:
    [job_id] = await bench.dispatch(sample.Hang(how="loop", file=str(tmp_path / "pid")))
    worker = await bench.work(Queue(isolation="process"))
    pid = int(await written(tmp_path / "pid"))
    await worker.stop(0.1)
    assert not there(pid)
    job = await bench.job(job_id)
    assert (job.state, job.attempt) == ("available", 0)


async def test_a_job_class_can_ask_for_a_process_of_its_own(bench: Bench) -> None:
    alone, together = await bench.dispatch(sample.Alone(), sample.Pid())
    await bench.work(Queue())
    pids = [int((await bench.ended(job_id)).result or 0) for job_id in (alone, together)]
    assert pids[0] != os.getpid() == pids[1]
