"""A prepared app in which the right sides of the tables of docs/coming-from.md are tried."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeq import Backoff, Job, JobContext, Queue, job
from edgeq.clock import Clock
from edgeq.events import NewEvent
from edgeq.jobs.job import Definition, definition
from edgeq.store import events
from edgeq.store.jobs import StoredJob
from edgeq.store.sqlite import SqliteStore
from edgeq.telemetry.metrics import Metrics

from .readme import DEADLINE_SECONDS, Terminals

CONFIGURATION = """\
app: {path: app, modules: [shop]}
jobs: {queues: {default: {}, video: {}, mail: {}, orders: {}}}
"""

# The user's jobs, under the names that the tables use.
SHOP = """\
import asyncio
import os
import time
from pathlib import Path

from edgeq import Job, job


class Report(Job):
    day: str

    def handle(self, ctx):
        with open("reports", "a") as reports:
            reports.write(f"{self.day}\\n")


@job(max_attempts=2, backoff="1h")
def process(entity: dict, ctx=None):
    if entity.get("fails"):
        raise ValueError("no such entity")
    return entity


@job
def send_email(to: str):
    return 0


@job
def tell(ctx):
    return [ctx.parent.args, ctx.parent.result, ctx.parent.error and ctx.parent.error.partition("\\n")[0]]


@job(max_attempts=1)
def broken():
    raise ValueError("broken")


@job(max_attempts=9, backoff="1ms")
def breaks_often():
    raise ValueError("broken")


@job
async def wait(n: int):
    Path(f"began-{n}").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)


@job
def block(n: int):
    Path(f"began-{n}").touch()
    while not Path("go").exists():
        time.sleep(0.01)


@job
def who(n: int):
    return os.getpid()


@job
def steps(ctx):
    ctx.progress(0.4, "step")


def connect():
    return "connected"
"""


class Place:
    """A folder with the app in it. `queue` is the program's, `shop` the app's module as the program has it."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest, shop: ModuleType) -> None:
        self.folder = folder
        self.shop = shop
        self.terminals = Terminals(folder)
        self.type = self.terminals.type
        self.until = self.terminals.until
        self._request = request
        self.write("edgeq.yaml", CONFIGURATION)
        self.write("app/shop.py", SHOP)
        self.queue = Queue(folder / "edgeq.db").__enter__()

    def close(self) -> None:
        """Leave nothing running."""
        self.terminals.kill()
        self.queue.close()

    def write(self, path: str, text: str) -> None:
        """Write a file of the app."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def configure(self, *yaml: str) -> None:
        """Add to the configuration, a file for each; what it says takes the place of what was said there."""
        self.write("edgeq.yaml", "app: {path: app, modules: [shop]}\n")
        for number, text in enumerate(yaml):
            self.write(f"conf.d/{number}.yaml", text)
        self.type("edgeq check")

    def broker(self) -> None:
        """Have `edgeq run` find a broker."""
        url = self._request.getfixturevalue("broker").url
        self.write("conf.d/broker.yaml", f"mqtt: {{url: '{url}'}}\n")

    # Python

    def python(self, text: str, **names: Any) -> Any:
        """The value of an expression in a program that has `queue` and the app's jobs."""
        return eval(text, {**vars(self.shop), "queue": self.queue, **names})

    def made(self, text: str, name: str = "work") -> Any:
        """What `text`, the source of a module, calls `name`."""
        module = ModuleType("row")
        vars(module).update({**vars(self.shop), "Job": Job, "JobContext": JobContext, "job": job, "Backoff": Backoff})
        module.__name__ = "row"
        exec(compile(text, "row", "exec", dont_inherit=True), vars(module))
        return getattr(module, name)

    def definition(self, decorator: str, body: str = "raise ValueError('no')") -> Definition:
        """What is known of a function under a `@job(…)`."""
        return definition(self.made(f"{decorator}\ndef work():\n    {body}"))

    # Jobs

    def jobs(self, state: str = "", **filters: Any) -> list[StoredJob]:
        """Stored ones, oldest first."""
        return self.queue.find(state=state, limit=10_000, **filters)[::-1]

    def drain(self, words: str = "") -> None:
        """Have what is ready run."""
        self.type(f"edgeq work --drain {words}".strip())

    def seven(self, made: Any) -> None:
        """Dispatch seven of these, so that there is a job 7, and run them."""
        self.queue.dispatch_many([made] * 7)
        self.drain()

    def reports(self) -> list[str]:
        """The days whose reports were made, in that order."""
        file = self.folder / "reports"
        return file.read_text().split() if file.exists() else []

    def eventually(self, condition: Callable[[], Any], what: str) -> None:
        """Return when `condition()` is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}"
            time.sleep(0.02)

    def begun(self) -> int:
        """How many of the jobs that wait for `go` have begun."""
        return len(list(self.folder.glob("began-*")))

    def go(self) -> None:
        """Let the jobs end that wait for it."""
        self.write("go", "")

    def work(self, command: str) -> None:
        """Begin `edgeq work …` in the first terminal."""
        self.terminals.start(command, "working on")

    def ask_to_stop(self) -> None:
        """A first SIGTERM for what runs in the first terminal."""
        assert self.terminals.running is not None
        self.terminals.running.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """The exit status of what ran in the first terminal."""
        assert self.terminals.running is not None
        status = self.terminals.running.wait(DEADLINE_SECONDS)
        self.terminals.running = None
        return status

    # The store

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows, by another program's eyes and hands."""
        with closing(sqlite3.connect(self.folder / "edgeq.db", timeout=60)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def events(self, *subjects: str) -> None:
        """Store events of type door.opened."""

        async def main() -> None:
            store = SqliteStore(
                str(self.folder / "edgeq.db"), metrics=Metrics(), clock=Clock(), durability="normal", exclusive=False
            )
            await store.open()
            now = Clock().now()
            new = [NewEvent("door.opened", subject=each, occurred_at=now, recorded_at=now) for each in subjects]
            try:
                await store.write(lambda tx: events.append(tx, new))
            finally:
                await store.close()

        asyncio.run(main())
