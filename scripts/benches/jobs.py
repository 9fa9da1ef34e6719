"""Jobs a second, beside huey on SQLite: dispatched one by one, dispatched in bulk, and run by one worker; and how soon.

The same work on both sides, in one run and in turns: a job that does nothing, with a small JSON argument, on an SQLite
file with full synchronisation (huey's `fsync=True` is `PRAGMA synchronous=2`). What counts is the median of the ratios
of what was done in turn: the rates of a machine change from minute to minute, the ratio less. Rates are medians.

- single: `Queue.dispatch` and calling huey's task, each job a commit of its own.
- bulk: `Queue.dispatch_many`. huey has no such thing: its jobs are dispatched one by one.
- run: claim, run and complete what was dispatched, results kept, by one `Worker` of so many jobs at once; and by huey's
  own worker (`huey.consumer.Worker.loop`) in this thread, which takes one job at a time.
- pick-up: from the return of a dispatch to the first line of the handler, when nothing else is going on, by a job
  dispatched in the worker's process and by one of another process. A job is claimed in a commit, so the time of one
  bare commit of the same job at the same pace stands beside it.

Ends with status 1 when edgeq is slower than it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Self

from huey import SqliteHuey
from huey.consumer import Worker as HueyWorker
from support import DEADLINE_SECONDS, file_system, percentile, scratch

from edgeq import Job, Queue
from edgeq.clock import Clock
from edgeq.config.schema import Queue as QueueSettings
from edgeq.jobs.worker import Worker
from edgeq.store import jobs
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics

SINGLE_RATIO, MANY_RATIO = 1.0, 3.0
MANY_RATE = 10_000.0
PICK_UP_MS = 2.0  # above one commit
TURN = 20  # jobs that one side dispatches before it is the other's turn
PACE_SECONDS = 0.05
HOW = {"number": 12_345, "name": "bench"}

# The jobs of a program must be in a module that the worker can import, too: this one is.
sys.modules.setdefault("bench_jobs", sys.modules[__name__])

begun: dict[int, int] = {}
done = 0


class Nothing(Job):
    """What there is to do."""

    __module__ = "bench_jobs"
    number: int
    name: str

    async def handle(self, ctx: Any) -> None:
        """Nothing."""
        global done
        done += 1


class Threaded(Job):
    """The same without `async`: it runs in a thread."""

    __module__ = "bench_jobs"
    number: int
    name: str

    def handle(self, ctx: Any) -> None:
        """Nothing."""
        global done
        done += 1


class Timed(Job):
    """Says when it has begun."""

    __module__ = "bench_jobs"
    number: int

    async def handle(self, ctx: Any) -> None:
        """Note the time."""
        begun[self.number] = time.monotonic_ns()


DISPATCHER = """\
import json, sys, time
sys.path[:0] = {path!r}
import jobs
from edgeq import Queue
returned = []
with Queue({database!r}) as queue:
    for number in range({count}):
        time.sleep({pace})
        queue.dispatch(jobs.Timed(number=number))
        returned.append(time.monotonic_ns())
print(json.dumps(returned))
"""


def main() -> int:
    """Measure, print, say whether it is quick enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--jobs", type=int, default=10_000, help="in bulk, a round (default: 10000)")
    parser.add_argument("--concurrency", type=int, default=100, help="of the worker (default: 100)")
    parser.add_argument("--picks", type=int, default=200, help="jobs to measure the pick-up with (default: 200)")
    parser.add_argument("--folder", default="/var/tmp", help="on the disk to measure (default: /var/tmp)")
    options = parser.parse_args()
    logging.getLogger("huey").setLevel(logging.ERROR)
    with scratch(options.folder) as folder:
        print(f"{options.rounds} rounds, {options.jobs} jobs in bulk, {options.concurrency} at once;", end=" ")
        print(f"{folder} is on {file_system(folder)}, SQLite {sqlite3.sqlite_version}")
        bench = Bench(folder, options.jobs, options.concurrency)
        for _ in range(options.rounds):
            bench.round()
        good = bench.report()
        good = pick_up(folder, options.picks, options.concurrency) and good
    return 0 if good else 1


class Bench:
    """Both queues, and how many jobs a second they have done in each round."""

    def __init__(self, folder: Path, count: int, concurrency: int) -> None:
        self.database = str(folder / "edgeq.db")
        self.count, self.concurrency = count, concurrency
        self.rates: dict[str, list[float]] = {}
        self.queue = Queue(self.database)
        self.huey = SqliteHuey(filename=str(folder / "huey.db"), fsync=True)
        assert self.huey.storage.conn.execute("PRAGMA synchronous").fetchone() == (2,)
        self.huey_task: Callable[..., Any] = self.huey.task()(huey_nothing)

    def round(self) -> None:
        """Dispatch in turns, in bulk, and run it all, each on both sides."""
        turns = max(1, self.count // 5 // TURN)
        dispatches: list[tuple[str, Callable[[], Any]]] = [
            ("edgeq", lambda: self.queue.dispatch(Nothing(**HOW))),
            ("huey", lambda: self.huey_task(**HOW)),
        ]
        for _ in range(turns):
            for who, dispatch in dispatches:
                self.note("single", who, TURN, lambda dispatch=dispatch: [dispatch() for _ in range(TURN)])
            dispatches.reverse()
        self.note(
            "bulk", "edgeq", self.count, lambda: self.queue.dispatch_many(Nothing(**HOW) for _ in range(self.count))
        )
        self.note("bulk", "huey", turns * TURN, lambda: [self.huey_task(**HOW) for _ in range(turns * TURN)])
        self.note("run", "edgeq", self.count + turns * TURN, lambda: self.run_edgeq(self.count + turns * TURN))
        self.note("run", "huey", 2 * turns * TURN, self.run_huey)
        self.queue.dispatch_many(Threaded(**HOW) for _ in range(self.count // 5))
        self.note("run, def", "edgeq", self.count // 5, lambda: self.run_edgeq(self.count // 5))

    def note(self, what: str, who: str, count: int, work: Callable[[], object]) -> None:
        """Do it, and note how many jobs a second that was."""
        began = time.perf_counter()
        work()
        self.rates.setdefault(f"{what} {who}", []).append(count / (time.perf_counter() - began))

    def run_edgeq(self, count: int) -> None:
        """Run everything that is there."""
        asyncio.run(self._run_edgeq(count))

    async def _run_edgeq(self, count: int) -> None:
        global done
        done = 0
        async with Running(self.database, self.concurrency) as running:
            while done < count or await running.unfinished():  # noqa: ASYNC110 - counting is no event
                await asyncio.sleep(0.005)

    def run_huey(self) -> None:
        """Run everything that is there."""
        worker = HueyWorker(self.huey, threading.Event(), 0.1, 10.0, 1.15)
        while len(self.huey):
            for _ in range(TURN):
                worker.loop()

    def report(self) -> bool:
        """Print the medians; whether they are what they should be."""
        good = True
        print(f"{'jobs a second':16} {'edgeq':>9} {'huey':>9} {'ratio':>7}   should be")
        for what, ratio, rate in (
            ("single", SINGLE_RATIO, 0.0),
            ("bulk", MANY_RATIO, MANY_RATE),
            ("run", MANY_RATIO, MANY_RATE),
        ):
            ours, theirs = self.rates[f"{what} edgeq"], self.rates[f"{what} huey"]
            found = median(our / their for our, their in zip(ours, theirs, strict=True))
            enough = median(ours) >= rate and found >= ratio
            good = good and enough
            demand = f"{ratio:.1f} times huey" + (f", {rate:.0f}" if rate else "")
            print(f"{what:16} {median(ours):9.0f} {median(theirs):9.0f} {found:7.2f}   {demand:24} {verdict(enough)}")
        print(f"{'run, in threads':16} {median(self.rates['run, def edgeq']):9.0f}")
        return good


def huey_nothing(number: int, name: str) -> None:
    """The same work for huey."""


class Running:
    """A store and one worker on it."""

    def __init__(self, database: str, concurrency: int) -> None:
        self.store = SqliteStore(database, metrics=Metrics(), clock=Clock())
        self.worker = Worker(
            "default",
            QueueSettings(concurrency=concurrency),
            self.store,
            metrics=Metrics(),
            clock=Clock(),
            owner="bench",
        )

    async def __aenter__(self) -> Self:
        await self.store.open()
        await self.worker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.stop()
        await self.store.close()

    async def unfinished(self) -> int:
        """How many jobs there still are to do."""
        return sum(row[state] for row in await jobs.counts(self.store, 0) for state in jobs.INCOMPLETE)


def pick_up(folder: Path, count: int, concurrency: int) -> bool:
    """Measure and print how soon a job begins; whether that is soon enough."""
    database = str(folder / "edgeq.db")
    latencies = asyncio.run(measure_pick_up(database, count, concurrency))
    commits = measure_commits(database, count)
    print(f"{'pick-up':16} {'median':>9} {'99 %':>9}")
    print(f"{'one commit':16} {median(commits):6.2f} ms {percentile(commits, 0.99):6.2f} ms")
    good = True
    for where, values in latencies.items():
        allowed = PICK_UP_MS + median(commits)
        enough = median(values) <= allowed
        good = good and enough
        print(
            f"{where:16} {median(values):6.2f} ms {percentile(values, 0.99):6.2f} ms           "
            f"median {allowed:.2f} ms at most   {verdict(enough)}"
        )
    return good


async def measure_pick_up(database: str, count: int, concurrency: int) -> dict[str, list[float]]:
    """Milliseconds from the return of each dispatch to the beginning of its handler."""
    async with Running(database, concurrency) as running:
        returned: list[int] = []
        for number in range(count):
            await asyncio.sleep(PACE_SECONDS)
            new = Timed(number=number).new_job(now=Clock().now())
            await running.store.write(lambda tx, new=new: jobs.add(tx, [new]))  # type: ignore[misc]
            returned.append(time.monotonic_ns())
        here = await _latencies(returned)
        script = DISPATCHER.format(path=sys.path, database=database, count=count, pace=PACE_SECONDS)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
        output, _ = await child.communicate()
        return {"this process": here, "another process": await _latencies(json.loads(output))}


async def _latencies(returned: list[int]) -> list[float]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(begun) < len(returned):
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain for the last job to be picked up")
        await asyncio.sleep(0.01)
    latencies = [(begun[number] - moment) / 1e6 for number, moment in enumerate(returned)]
    begun.clear()
    return latencies


def measure_commits(database: str, count: int) -> list[float]:
    """Milliseconds that one job and its commit take, bare, in the same database and at the same pace."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    columns = "queue, kind, args, priority, state, attempt, max_attempts, run_at, created_at, finished_at"
    copy = f"INSERT INTO jobs ({columns}) SELECT {columns} FROM jobs WHERE id = 1"
    taken = []
    for _ in range(count):
        time.sleep(PACE_SECONDS)
        began = time.monotonic_ns()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(copy)
        connection.execute("COMMIT")
        taken.append((time.monotonic_ns() - began) / 1e6)
    connection.close()
    return taken


def verdict(good: bool) -> str:
    """In a word."""
    return "PASS" if good else "FAIL"


if __name__ == "__main__":
    sys.exit(main())
