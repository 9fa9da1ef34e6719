"""An app with jobs that say what they do in files, and ways to dispatch them without a program of their own."""

from __future__ import annotations

import asyncio
from typing import Any

from edgeq.clock import Clock
from edgeq.config.schema import Config
from edgeq.config.schema import Store as Settings
from edgeq.events import to_json
from edgeq.store import jobs
from edgeq.store.jobs import NewJob
from edgeq.store.opening import make_store
from edgeq.telemetry.metrics import Metrics

APP = """\
import asyncio
import os
import time
from pathlib import Path

from edgeq import Job

def connect():
    return "connected"

class Note(Job):
    text: str

    def handle(self, ctx):
        with open("notes", "a") as notes:
            notes.write(f"{self.text} {os.getpid()} {ctx.context}\\n")

class Wait(Job):
    n: int

    async def handle(self, ctx):
        Path(f"began-{self.n}").touch()
        while not Path(f"go-{self.n}").exists():
            await asyncio.sleep(0.01)

class Block(Job):
    n: int

    def handle(self, ctx):
        Path(f"began-{self.n}").touch()
        while not Path(f"go-{self.n}").exists():
            time.sleep(0.01)

class Stubborn(Job):
    async def handle(self, ctx):
        Path("began-stubborn").touch()
        while not Path("go-stubborn").exists():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

class Thread(Job):
    async def handle(self, ctx):
        Path("began-thread").touch()
        await asyncio.to_thread(time.sleep, 1000)

class CloseAll(Job):
    def handle(self, ctx):
        os.closerange(3, 100)

class Chain(Job):
    left: int

    def handle(self, ctx):
        if self.left:
            ctx.dispatch(Chain(left=self.left - 1))

class Tell(Job):
    def handle(self, ctx):
        ctx.notify("Told", severity="critical", channels=["phone"])

class Fail(Job):
    backoff = "1ms"
    max_attempts = 3

    def handle(self, ctx):
        raise ValueError("no")
"""

FINDER = """\
from pathlib import Path

from app import Note
from edgeq import source

@source(queue="other", backoff="1ms..10ms")
async def files(wanted):
    for path in sorted(Path("inbox").glob("*")):
        yield Note(text=path.name)
"""
"""A module with a source that finds a job for each file in the folder `inbox`."""


def job(kind: str, queue: str = "default", *, delay_seconds: float = 0.0, **args: Any) -> NewJob:
    """A job of APP to dispatch: `job("Note", text="a")`."""
    now = Clock().now()
    return NewJob(
        queue=queue,
        kind=f"app:{kind}",
        args=to_json(args),
        run_at=now + round(delay_seconds * 1e6),
        created_at=now,
        max_attempts=3,
    )


def dispatch(url: str, *new: NewJob) -> list[int]:
    """Add jobs to a store as any program may; their ids."""

    async def add() -> list[int]:
        config = Config(gateway="g", store=Settings(url=url, durability="normal"))
        store = make_store(config, "test", metrics=Metrics(), clock=Clock(), make=True)
        await store.open()
        try:
            return [each.id for each in await store.write(lambda tx: jobs.add(tx, new))]
        finally:
            await store.close()

    return asyncio.run(add())
