"""Jobs that fail, dispatch and call back, `edgeq work` processes that run them, and the audit of what came of them.

Every attempt leaves a line in a file before it does anything else: that is the side effect which no store can undo.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ATTEMPTS_MAX = 4
DEADLINE_SECONDS = 120.0

CONFIGURATION = """\
gateway: site
mqtt: {url: "mqtt://127.0.0.1:1"}
store: {url: edgeq.db}
app: {path: ., modules: [load_jobs]}
jobs:
  queues:
    default: {concurrency: 6, lease: 1s}
    threads: {concurrency: 3, lease: 1s}
    isolated: {isolation: process, processes: 1, lease: 1s}
log: {level: info, format: text}
"""

JOBS = f"""\
import asyncio, os, time
from edgeq import Job, Limit

ATTEMPTS_MAX = {ATTEMPTS_MAX}


def note(ctx, what="began"):
    with open("attempts", "ab", buffering=0) as file:
        file.write(f"{{what}} {{ctx.job.id}} {{ctx.job.attempt}} {{os.getpid()}}\\n".encode())


class Next(Job):
    max_attempts = 50
    of: int

    def handle(self, ctx):
        return self.of


class Told(Job):
    max_attempts = 50
    queue = "threads"
    of: int
    well: bool

    def handle(self, ctx):
        ctx.emit("told", subject=str(ctx.parent.id), data={{"of": self.of, "well": self.well}})
        return ctx.parent.id


class Work(Job):
    max_attempts = ATTEMPTS_MAX
    backoff = "10ms"
    number: int

    def begin(self, ctx):
        note(ctx)
        return 0.002 + self.number % 7 / 200

    def end(self, ctx):
        if self.number % 11 == 0 or (self.number % 5 == 0 and ctx.job.attempt == 1):
            raise ValueError("one of those")
        if self.number % 17 == 0 and not os.path.exists(f"snoozed-{{ctx.job.id}}"):
            note(ctx, "snoozed")
            open(f"snoozed-{{ctx.job.id}}", "w").close()
            return ctx.snooze(0.02)
        ctx.emit("worked", subject=str(self.number))
        ctx.dispatch(Next(of=self.number))
        return self.number

    async def handle(self, ctx):
        await asyncio.sleep(self.begin(ctx))
        return self.end(ctx)

    def failed(self, ctx, error):
        ctx.emit("gave up", subject=str(self.number))


class Threaded(Work):
    queue = "threads"
    limit = Limit(concurrency=2)

    def handle(self, ctx):
        time.sleep(self.begin(ctx))
        return self.end(ctx)


class Unending(Job):
    queue = "isolated"
    timeout = "10m"

    def handle(self, ctx):
        note(ctx)
        while True:
            time.sleep(60)


class Gate(Job):
    # Goes on when the file is there; the first attempt of it says that it has begun.
    max_attempts = 3
    timeout = "10m"

    async def handle(self, ctx):
        note(ctx)
        ctx.emit("through", data={{"attempt": ctx.job.attempt}})
        while not os.path.exists("gate"):
            await asyncio.sleep(0.01)
        return ctx.job.attempt
"""

# Dispatches one to four jobs in each commit, and says their numbers when it is done.
DISPATCHER = """\
import random, sys, time
import edgeq
from load_jobs import Threaded, Told, Work

number = int(sys.argv[1])
with edgeq.Queue("edgeq.db") as queue:
    while True:
        numbers = range(number, number + random.randint(1, 4))
        with queue.transaction():
            for number in numbers:
                how = {"on_success": Told(of=number, well=True), "on_failure": Told(of=number, well=False)}
                queue.dispatch((Work if number % 3 else Threaded)(number=number), unique_key=str(number), **how)
        print(*numbers, flush=True)
        number += 1
        time.sleep(0.02)
"""


class Program:
    """A process that runs in the site's folder."""

    def __init__(self, folder: Path, *words: str, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGEQ_")}
        self.log_file = folder / f"log-{time.monotonic_ns()}"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(words, cwd=folder, env={**kept, **environ}, stdout=log, stderr=log)
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.log_file.read_text(errors="replace")

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it in peace; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)


class Site:
    """A folder with a configuration, an app and a database, and the programs that were started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        (folder / "edgeq.yaml").write_text(CONFIGURATION)
        (folder / "load_jobs.py").write_text(JOBS)
        (folder / "dispatcher.py").write_text(DISPATCHER)

    def work(self, *words: str, **environ: str) -> Program:
        """Start `edgeq work`, and don't wait."""
        return self._start("-m", "edgeq.cli.main", "work", *words, **environ)

    def run(self) -> Program:
        """Start `edgeq run`, and don't wait. It has no broker."""
        return self._start("-m", "edgeq.cli.main", "run")

    def dispatch_from(self, number: int) -> Program:
        """Start to dispatch jobs with numbers from this one on."""
        return self._start("dispatcher.py", str(number))

    def _start(self, *words: str, **environ: str) -> Program:
        program = Program(self.folder, sys.executable, *words, **environ)
        self.programs.append(program)
        return program

    def kill_all(self) -> None:
        """End all programs."""
        for program in self.programs:
            program.kill()

    def attempts(self) -> list[tuple[str, int, int, int]]:
        """The lines that attempts have left: what, job, attempt, process. The last one may be in the making."""
        file = self.folder / "attempts"
        lines = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
        return [(what, int(job), int(attempt), int(pid)) for what, job, attempt, pid in map(str.split, lines)]

    def sql(self, text: str, *params: Any) -> list[Any]:
        """Rows of a query; none before there is a database."""
        path = self.folder / "edgeq.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            try:
                return connection.execute(text, params).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Return when `condition()` is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.programs[-1].log[-3000:]}"
            time.sleep(0.01)

    def all_ended(self) -> bool:
        """Whether there are jobs, and all of them have ended."""
        incomplete = "state IN ('scheduled', 'available', 'executing', 'retryable')"
        counts = self.sql(f"SELECT count(*), count(*) FILTER (WHERE {incomplete}) FROM jobs")
        return any(every > 0 and left == 0 for every, left in counts)


def audit(site: Site, told: set[int]) -> Counter[str]:
    """Fails unless every job that the dispatcher `told` of is there once and has ended in one way, with all that
    belongs to it, and nothing else. How many jobs ended in which way."""
    assert site.sql("PRAGMA integrity_check") == [("ok",)]
    worked = _counts(site, "SELECT subject, count(*) FROM events WHERE type = 'worked' GROUP BY subject")
    gave_up = _counts(site, "SELECT subject, count(*) FROM events WHERE type = 'gave up' GROUP BY subject")
    following = _counts(
        site, "SELECT json_extract(args, '$.of'), count(*) FROM jobs WHERE kind = 'load_jobs:Next' GROUP BY 1"
    )
    callbacks: dict[int, list[bool]] = {}
    for parent, well in site.sql(
        "SELECT json_extract(options, '$.parent.id'), json_extract(args, '$.well') FROM jobs "
        "WHERE kind = 'load_jobs:Told'"
    ):
        callbacks.setdefault(parent, []).append(bool(well))
    reports = _counts(site, "SELECT subject, count(*) FROM events WHERE type = 'told' GROUP BY subject")
    letters: dict[int, list[str]] = {}
    for job_id, reason in site.sql("SELECT job_id, reason FROM dead_letters"):
        letters.setdefault(job_id, []).append(reason)
    began = Counter((job, attempt) for what, job, attempt, _ in site.attempts() if what == "began")
    snoozed = Counter((job, attempt) for what, job, attempt, _ in site.attempts() if what == "snoozed")
    numbers: Counter[int] = Counter()
    states: Counter[str] = Counter()
    for job_id, state, attempt, result, number in site.sql(
        "SELECT id, state, attempt, result, json_extract(args, '$.number') FROM jobs "
        "WHERE kind IN ('load_jobs:Work', 'load_jobs:Threaded')"
    ):
        numbers[number] += 1
        states[state] += 1
        assert 1 <= attempt <= ATTEMPTS_MAX
        for each in range(1, attempt + 1):
            assert began[job_id, each] <= 1 + snoozed[job_id, each], f"job {job_id} had attempt {each} twice"
        assert not began[job_id, attempt + 1], f"job {job_id} had an attempt that wasn't counted"
        well = state == "completed"
        told_of = (callbacks.get(job_id), reports[str(job_id)], worked[str(number)], following[number])
        assert told_of == ([well], 1, int(well), int(well)), f"job {job_id} is {state}"
        if well:
            assert (result, gave_up[str(number)], job_id in letters) == (str(number), 0, False)
        else:
            assert state == "dead"
            [reason] = letters[job_id]
            assert gave_up[str(number)] == (reason == "failed"), "failed() is called unless the process died"
            assert reason in ("failed", "lease_expired")
            assert reason == "lease_expired" or number % 11 == 0
    assert set(numbers.values()) <= {1}, "a job was added twice"
    assert told <= set(numbers), "a job that was dispatched is missing"
    assert site.sql("SELECT count(*) FROM jobs WHERE kind IN ('load_jobs:Next', 'load_jobs:Told')") == site.sql(
        "SELECT count(*) FROM jobs WHERE kind IN ('load_jobs:Next', 'load_jobs:Told') AND state = 'completed'"
    )
    return states


def _counts(site: Site, query: str) -> Counter[Any]:
    return Counter(dict(site.sql(query)))


def numbers_told(programs: list[Program]) -> set[int]:
    """What dispatchers have said. One that is killed may be cut off in the middle of its last line."""
    whole = [program.log.rpartition("\n")[0] for program in programs]
    return {int(number) for text in whole for number in text.split()}


def dice() -> random.Random:
    """Chance, and a line that says how to have the same again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)
