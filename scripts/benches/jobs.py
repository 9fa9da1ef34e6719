"""Jobs a second, beside other queues on the same database: dispatched one by one, in bulk, and run; and how soon.

The same work on all sides, in one run and in turns: a job that does nothing, with a small JSON argument, all of them
with full synchronisation. What counts is the median of the ratios of what was done in turn: the rates of a machine
change from minute to minute, the ratio less. Rates are medians.

- single: `Queue.dispatch` and what others have for that, each job a commit of its own.
- bulk: `Queue.dispatch_many` and what others have. huey has no such thing: its jobs are dispatched one by one.
- run: claim, run and complete what was dispatched, by one `Worker` of so many jobs at once.
- pick-up (SQLite): from the return of a dispatch to the first line of the handler, when nothing else is going on, by a
  job dispatched in the worker's process and by one of another process. A job is claimed in a commit, so the time of
  one bare commit of the same job at the same pace stands beside it.

On SQLite, the other is huey, whose worker takes one job at a time. On PostgreSQL, each side has a database of its own
on one server, started for this with its default settings; the others are procrastinate and pgqueuer. See `sides/` for
how each is used.

Ends with status 1 when edgeq is slower than it should be.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from postgres import Postgres
from sides import Side
from sides.edgeq import Edgeq, Running, Threaded, Timed, begun
from support import DEADLINE_SECONDS, arguments, file_system, note, percentile, results, scratch

from edgeq.clock import Clock
from edgeq.store import jobs

PICK_UP_MS = 2.0  # above one commit
TURN = 20  # jobs that one side dispatches one by one before it is another's turn
BULK_TURNS = 5  # in how many turns it dispatches a round's jobs in bulk
PACE_SECONDS = 0.05


class Demand(NamedTuple):
    """What edgeq should reach: so many times the rate of each other, and so many a second."""

    what: str
    ratio: float
    rate: float = 0.0


ON_SQLITE = (Demand("single", 1.0), Demand("bulk", 3.0, 10_000.0), Demand("run", 3.0, 10_000.0))
ON_POSTGRESQL = (Demand("single", 1.0), Demand("bulk", 1.0), Demand("run", 1.0))

DISPATCHER = """\
import json, sys, time
sys.path[:0] = {path!r}
from edgeq import Queue
from sides.edgeq import Timed
returned = []
with Queue({database!r}) as queue:
    for number in range({count}):
        time.sleep({pace})
        queue.dispatch(Timed(number=number))
        returned.append(time.monotonic_ns())
print(json.dumps(returned))
"""


def main() -> int:
    """Measure, print, say whether it is quick enough."""
    parser = arguments(__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite", help="(default: sqlite)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--jobs", type=int, default=10_000, help="dispatched in bulk, a round (default: 10000)")
    parser.add_argument("--concurrency", type=int, default=100, help="of the worker (default: 100)")
    parser.add_argument("--picks", type=int, default=200, help="jobs to measure the pick-up with (default: 200)")
    options = parser.parse_args()
    with results(options), scratch(options.folder) as folder:
        print(f"{options.rounds} rounds, {options.jobs} jobs in bulk, {options.concurrency} at once;", end=" ")
        print(f"{folder} is on {file_system(folder)},", end=" ")
        if options.store == "postgresql":
            with Postgres(folder) as server:
                print(f"PostgreSQL {server.version}")
                good = compare(on_postgresql(server, options.concurrency), ON_POSTGRESQL, options.rounds, options.jobs)
        else:
            print(f"SQLite {sqlite3.sqlite_version}")
            good = compare(on_sqlite(folder, options.concurrency), ON_SQLITE, options.rounds, options.jobs)
            good = pick_up(folder, options.picks, options.concurrency) and good
    return 0 if good else 1


def on_sqlite(folder: Path, concurrency: int) -> tuple[Edgeq, list[Side]]:
    """edgeq, and the others."""
    from sides.huey import Huey

    return Edgeq(str(folder / "edgeq.db"), concurrency), [Huey(folder)]


def on_postgresql(server: Postgres, concurrency: int) -> tuple[Edgeq, list[Side]]:
    """edgeq, and the others."""
    from sides.pgqueuer import PgQueuer
    from sides.procrastinate import Procrastinate

    ours = Edgeq(server.database("edgeq"), concurrency)
    return ours, [
        Procrastinate(server.database("procrastinate"), concurrency),
        PgQueuer(server.database("pgqueuer"), concurrency),
    ]


def compare(sides: tuple[Edgeq, list[Side]], demands: Sequence[Demand], rounds: int, count: int) -> bool:
    """All rounds with all sides; whether edgeq is what it should be."""
    bench = Bench(*sides, count)
    for _ in range(rounds):
        bench.round()
    good = bench.report(demands)
    for side in bench.sides:
        side.close()
    return good


class Bench:
    """All queues, and how many jobs a second they have done in each round."""

    def __init__(self, ours: Edgeq, others: list[Side], count: int) -> None:
        self.ours, self.others, self.count = ours, others, count
        self.sides: list[Side] = [ours, *others]
        self.rates: dict[tuple[str, str], list[float]] = {}

    def round(self) -> None:
        """Dispatch in turns, in bulk, and run it all, each on all sides."""
        turns = max(1, self.count // 5 // TURN)
        order = list(self.sides)
        for _ in range(turns):
            for side in order:
                began = time.perf_counter()
                side.dispatch(TURN)
                self.note("single", side, TURN, time.perf_counter() - began)
            order.append(order.pop(0))
        waiting = {side.name: turns * TURN for side in order}
        for _ in range(BULK_TURNS):
            for side in order:
                began = time.perf_counter()
                bulk = side.dispatch_many(self.count // BULK_TURNS)
                self.note("bulk", side, bulk, time.perf_counter() - began)
                waiting[side.name] += bulk
            order.append(order.pop(0))
        for side in order:
            self.note("run", side, waiting[side.name], side.run(waiting[side.name]))
        threaded = self.ours.dispatch_many(self.count // 5, Threaded)
        self.note("run, in threads", self.ours, threaded, self.ours.run(threaded))

    def note(self, what: str, side: Side, count: int, seconds: float) -> None:
        """Note so many jobs in so many seconds."""
        self.rates.setdefault((what, side.name), []).append(count / seconds)

    def report(self, demands: Sequence[Demand]) -> bool:
        """Print the medians; whether they are what they should be."""
        good = True
        print(f"{'jobs a second':16} {'edgeq':>9} {'':>14} {'':>9} {'ratio':>7}   should be")
        for demand in demands:
            ours = self.rates[demand.what, self.ours.name]
            for other in self.others:
                theirs = self.rates[demand.what, other.name]
                ratio = median(our / their for our, their in zip(ours, theirs, strict=True))
                enough = median(ours) >= demand.rate and ratio >= demand.ratio
                good = good and enough
                name = f"{demand.what}_{other.name}"
                note({demand.what: median(ours), name: median(theirs), f"{name}_ratio": ratio})
                wish = f"{demand.ratio:.1f} times" + (f", {demand.rate:.0f}" if demand.rate else "")
                print(
                    f"{demand.what:16} {median(ours):9.0f} {other.name:>14} {median(theirs):9.0f} {ratio:7.2f}   "
                    f"{wish:17} {verdict(enough)}"
                )
        print(f"{'run, in threads':16} {median(self.rates['run, in threads', self.ours.name]):9.0f}")
        return good


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
        note({f"pick_up_ms_{where.replace(' ', '_')}": median(values) - median(commits)})
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
        await running.worker.start()
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
